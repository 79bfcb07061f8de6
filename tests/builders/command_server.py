"""`ablate` as a process of its own without the seconds of its imports.

For each command a process is forked that has imported already what earlier commands did. It has a session,
working folder, environment, output and end of its own, as one from a shell. Tests of what is imported and of
the start itself start Python anew.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import util
from pathlib import Path

HERE = Path(__file__).resolve()
CODE = (str(HERE.parents[2] / "ablate"), *sys.path[1:])
"""Where the installation lies; a network of a test's own lies elsewhere."""
TRAINING = ("run", "search", "lr-find")
NEEDED = (
    "ablate.cli.run", "ablate.workflow.run", "ablate.report.publish", "ablate.execution.executors.local",
    "mlflow.store.tracking.sqlalchemy_store", "plotly.io", "sklearn.datasets", "ablate.execution.worker",
    "torch._dynamo",
)  # fmt: skip
"""What is imported before the first command that trains: 10 s of CPU less for each that is started."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_START = ("PYTHON", "LC_", "LANG", "LD_")
"""How variables begin that are read when Python starts."""


# In the tests


class Server:
    """The process that is forked, started when it is first needed."""

    def __init__(self):
        self.lock, self.process, self.socket = threading.Lock(), None, None
        self.shared = None  # the folder of what all processes of the tests share

    def start(self, arguments, environment, folder):
        """Start a command, and give what stands for its process."""
        with self.lock:
            (out, theirs), (err, their_err), (end, told) = pipes = [os.pipe() for _ in range(3)]
            self._ask(arguments, environment, folder, pipes)
        for each in (theirs, their_err, told):
            os.close(each)
        return Started(arguments, out, err, end)

    def run(self, arguments, environment, patience):
        """Run a command to its end: its exit code, what it printed on stdout, and on stderr."""
        with self.lock, ThreadPoolExecutor(2) as threads:
            pipes = [os.pipe(), os.pipe()]
            self._ask(arguments, environment, Path.cwd(), pipes)
            texts = [threads.submit(_read, *pipe) for pipe in pipes]
            pid = int.from_bytes(_receive(self.socket, 8))
            self.socket.settimeout(patience)
            try:
                code = int.from_bytes(_receive(self.socket, 8), signed=True)
                return code, *(text.result(patience) for text in texts)  # to its end: no child is left
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                self.socket.close()  # whatever it answers belongs to this command
                self.process = None
                raise

    def _ask(self, arguments, environment, folder, pipes):
        """Send a request, with the ends of pipes to write to; a third one is of what is only started."""
        request = {"arguments": arguments, "environment": environment, "folder": str(folder)}
        request["shared"] = self.shared and str(self.shared)
        request["umask"] = os.umask(0o022)  # it is told only where it is set
        os.umask(request["umask"])
        text = json.dumps(request).encode()
        if self.process is None:
            self._start()
        socket.send_fds(self.socket, [len(text).to_bytes(8)], [end for _, end in pipes])
        self.socket.sendall(text)

    def _start(self):
        self.socket, other = socket.socketpair()
        with other:
            command = [sys.executable, str(HERE), str(other.fileno())]
            # Else it does not find what is beside this file; each command has it in its own environment.
            every = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
            self.process = subprocess.Popen(
                command, pass_fds=[other.fileno()], env=every, start_new_session=True
            )
        atexit.register(self.process.wait)
        atexit.register(self.socket.close)  # first: it ends the process


class Started:
    """A command that runs, as `subprocess.Popen` has one: it leads a session of its own."""

    def __init__(self, arguments, out, err, end):
        self.args, self.returncode, self._end = arguments, None, end
        self.stdout, self.stderr = os.fdopen(out, encoding="utf-8"), os.fdopen(err, encoding="utf-8")
        self.pid = int.from_bytes(os.read(end, 8))
        assert self.pid, "the server has ended"

    def poll(self):
        """Return its exit code; None while it runs."""
        if self.returncode is None and select.select([self._end], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout=None):
        """Wait for its end, and return its exit code."""
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            code = os.read(self._end, 8)
            assert len(code) == 8, "nobody tells how it has ended"
            self.returncode = int.from_bytes(code, signed=True)
            os.close(self._end)
        return self.returncode

    def communicate(self, timeout=None):
        """Wait for its end, and return what it and its children have printed on stdout, and on stderr."""
        with ThreadPoolExecutor(2) as threads:
            texts = [threads.submit(_rest, stream) for stream in (self.stdout, self.stderr)]
            try:
                text = tuple(each.result(timeout) for each in texts)
                self.wait(timeout)
            except TimeoutError:
                os.killpg(self.pid, signal.SIGKILL)  # nobody else would end the threads that read
                raise
            return text

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stdout.close()
        self.stderr.close()
        self.wait()


SERVER = Server()


def start(arguments, environment, folder=None):
    """Start `ablate` with these arguments, and these variables besides its own."""
    if any(name.startswith(AT_START) for name in environment):
        return start_anew(arguments, environment, folder)
    return SERVER.start(arguments, os.environ | environment, folder or Path.cwd())


def start_anew(arguments, environment, folder=None):
    """Start it in a new Python, which imports everything."""
    return subprocess.Popen(
        [sys.executable, "-m", "ablate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        start_new_session=True,
    )


def run(arguments, environment, patience=300):
    """Run `ablate` with these arguments, and these variables besides its own."""
    if any(name.startswith(AT_START) for name in environment):
        process = start_anew(arguments, environment)
        out, err = process.communicate(timeout=patience)
        return process.returncode, out, err
    return SERVER.run(arguments, os.environ | environment, patience)


def _read(start, end):
    os.close(end)
    with os.fdopen(start, encoding="utf-8") as file:
        return file.read()


def _rest(stream):
    if stream.closed:
        return ""
    with stream:
        return stream.read()


def _receive(connection, count):
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise EOFError("the other end is gone")
        parts += part
    return bytes(parts)


# In the server


def serve(connection):
    """Fork a process for each request, until there are no more; return in that process only."""
    before = dict(os.environ)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # as `ablate` sets it before the import
    while True:
        message, ends, _, _ = socket.recv_fds(connection, 8, 3)
        if not message:
            os._exit(0)
        request = json.loads(_receive(connection, int.from_bytes(message)))
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
        deaf = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
        message = json.dumps([arguments[-1], list(ends), dict(os.environ), deaf])
        socket.send_fds(here, [message.encode()], list(ends))
        here.close()
        util.spawnv_passfds = real
        return pid

    real, util.spawnv_passfds = util.spawnv_passfds, spawn


def _be_a_fork_server(connection, imports):
    """Wait for the code that a new Python would be started with, and for the ends of pipes that it names."""
    try:
        text, ends, _, _ = socket.recv_fds(connection, 1 << 16, 8)
        if text:  # else nothing was to be trained
            code, numbers, environment, deaf = json.loads(text)
            os.environ.update(environment)
            for number in deaf:
                signal.signal(number, signal.SIG_IGN)
            spare = [fcntl.fcntl(end, fcntl.F_DUPFD, 1000) for end in ends]
            connection.close()
            for end in set(ends) - set(numbers):
                os.close(end)
            for end, number in zip(spare, numbers, strict=True):
                os.dup2(end, number)
                os.close(end)
            exec(code, {"__name__": "__main__"})
    except SystemExit:
        pass
    finally:
        _tell(imports)
        os._exit(0)


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


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    _run()
