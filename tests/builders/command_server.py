"""What is forked for the commands of tests: it has imported what others needed (see command_client.py)."""

import atexit
import fcntl
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from multiprocessing import util
from pathlib import Path

CODE = (str(Path(__file__).resolve().parents[2] / "ablate"), *sys.path[1:])
"""Where the installation lies; a network of a test's own lies elsewhere."""
TRAINING = ("run", "search", "lr-find")
NEEDED = (
    "ablate.cli.run", "ablate.workflow.run", "ablate.report.publish", "ablate.execution.executors.local",
    "mlflow.store.tracking.sqlalchemy_store", "plotly.io", "sklearn.datasets", "ablate.execution.worker",
    "torch._dynamo",
)  # fmt: skip
"""What is imported before the first command that trains: 10 s of CPU less for each that is started."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def deaf():
    """Return the signals that this process ignores."""
    return [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]


def memory():
    """Return the bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def room():
    """Return how many more bytes this process may have; None without a limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit - memory()


def receive(connection, count):
    """Return so many bytes of a connection."""
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise EOFError("the other end is gone")
        parts += part
    return bytes(parts)


def accept(listener):
    """Fork a process for each connection; return in that process only. End with the last of them."""
    clients, has_served, address = set(), False, listener.getsockname()
    while True:
        if select.select([listener], [], [], 0.5)[0]:
            connection, _ = listener.accept()
            pid = os.fork()
            if pid == 0:
                listener.close()
                return connection
            connection.close()
            clients.add(pid)
            has_served = True
        with suppress(ChildProcessError):
            clients.discard(os.waitpid(-1, os.WNOHANG)[0])
        if has_served and not clients:
            Path(address).unlink(missing_ok=True)  # from here on nobody can come
            if not select.select([listener], [], [], 0)[0]:
                os._exit(0)


def serve(connection, before):
    """Fork a process for each request, until there are no more; return in that process only.

    `before`: the environment without what this server has added.
    """
    while True:
        message, ends, _, _ = socket.recv_fds(connection, 8, 8)
        if not message:
            os._exit(0)
        request = json.loads(receive(connection, int.from_bytes(message)))
        if "code" in request:
            _fork_a_fork_server(connection, request, ends)
            continue
        imports, name = tempfile.mkstemp()
        Path(name).unlink()
        if len(ends) == 3:
            if request["arguments"][0] in (*TRAINING, "worker"):
                _import_all(NEEDED)
            if _is_forked(*ends[2:]):
                connection.close()
                _become(request, ends[:2], imports, before)
                return
            for end in (imports, *ends):
                os.close(end)
            continue
        ended, alive = os.pipe()
        pid = os.fork()
        if pid == 0:
            connection.close()
            os.close(ended)
            _become(request, ends, imports, before)
            return
        for end in (alive, *ends):
            os.close(end)
        connection.sendall(pid.to_bytes(8))
        _, status = os.waitpid(pid, 0)
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))
        os.read(ended, 1)  # until its fork server has ended too
        os.close(ended)
        with os.fdopen(imports) as file:
            file.seek(0)
            _import_all(file.read().split())


def _is_forked(end):
    """Whether this is a new process; another one tells its id, and how it ends, and nobody waits for both."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return False
    if os.fork():
        os._exit(0)
    pid = os.fork()
    if pid == 0:
        os.close(end)
        return True
    os.write(end, pid.to_bytes(8))
    _, status = os.waitpid(pid, 0)
    os.write(end, os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))
    os._exit(0)


def _import_all(names):
    """Import what a command has imported or will need, for the next one."""
    for name in names:
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)
    assert threading.active_count() == 1, "a process with threads is not to be forked"
    gc.freeze()  # a collection in a child would copy every page


def _tell(imports):
    """Write the modules of the installation that are there, in the order of their import."""
    origins = {
        name: getattr(getattr(it, "__spec__", None), "origin", None) for name, it in sys.modules.items()
    }
    ours = (name for name, origin in origins.items() if origin and origin.startswith(CODE))
    os.write(imports, "".join(f"{name}\n" for name in ours if not name.endswith("__main__")).encode())


def _become(request, ends, imports, before):
    """Be as a process that was started by a shell."""
    os.setsid()
    for end, number in zip(ends, (1, 2), strict=True):
        os.dup2(end, number)
        os.close(end)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    added = {name: value for name, value in os.environ.items() if before.get(name) != value}
    wanted = added | request["environment"]
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)
    sys.argv = ["ablate", *request["arguments"]]
    if request["shared"]:
        import mlflow_tables  # beside this file

        mlflow_tables.share(request["shared"])
    sys.path[0] = str(Path.cwd())
    importlib.invalidate_caches()
    if request["arguments"][:1] and request["arguments"][0] in TRAINING:
        _keep_a_fork_server(imports)
    atexit.register(_tell, imports)


def _keep_a_fork_server(imports):
    """Fork now, while there are no threads, the process that the command's workers are to be forked from."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        here.close()
        _be_a_fork_server(there, imports)
    there.close()

    def spawn(path, arguments, ends):
        if "forkserver" not in arguments[-1]:
            return real(path, arguments, ends)
        message = json.dumps([arguments[-1], list(ends), dict(os.environ), deaf()])
        socket.send_fds(here, [message.encode()], list(ends))
        here.close()
        util.spawnv_passfds = real
        return pid

    real, util.spawnv_passfds = util.spawnv_passfds, spawn


def _fork_a_fork_server(connection, request, ends):
    """Fork it, and a process between that holds the first end until the fork server has ended."""
    _import_all(NEEDED)
    there, *ends = ends
    if os.fork():
        for end in (there, *ends):
            os.close(end)
        return
    connection.close()
    pid = os.fork()
    if pid == 0:
        os.close(there)
        os.chdir(request["folder"])
        os.environ.clear()
        if request["room"] is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory() + request["room"], resource.RLIM_INFINITY))
        with suppress(SystemExit):
            _serve_forks(request["code"], ends, request["ends"], request["environment"], request["deaf"])
        os._exit(0)
    for end in ends:
        os.close(end)
    os.waitpid(pid, 0)
    os._exit(0)


def _be_a_fork_server(connection, imports):
    """Wait for the code that a new Python would be started with, and for the ends of pipes that it names."""
    try:
        text, ends, _, _ = socket.recv_fds(connection, 1 << 16, 8)
        if text:  # else nothing was to be trained
            code, numbers, environment, deaf = json.loads(text)
            connection.close()
            _serve_forks(code, ends, numbers, environment, deaf)
    except SystemExit:
        pass
    finally:
        _tell(imports)
        os._exit(0)


def _serve_forks(code, ends, numbers, environment, deaf):
    """Run the code of a fork server; its ends of pipes have the numbers that the code names."""
    os.environ.update(environment)
    for number in deaf:
        signal.signal(number, signal.SIG_IGN)
    spare = [fcntl.fcntl(end, fcntl.F_DUPFD, 1000) for end in ends]
    for end in set(ends) - set(numbers):
        os.close(end)
    for end, number in zip(spare, numbers, strict=True):
        os.dup2(end, number)
        os.close(end)
    exec(code, {"__name__": "__main__"})


def _run():
    """Run the command and end as Python does, but for taking all modules apart, which takes 2 s."""
    code = 0
    try:
        runpy.run_module("ablate", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
    except Exception:  # noqa: BLE001 whatever it is
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else code is not None)


def _main(listener):
    before = dict(os.environ)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # as `ablate` sets it before the import
    if "PYTEST_XDIST_WORKER" in os.environ:  # many tests are to come: all will need it, and once is enough
        _import_all(NEEDED)
    serve(accept(listener), before)
    _run()


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
