"""`ablate` as a process of its own without the seconds of its imports.

For each command a process is forked that has imported already what earlier commands did. It has a session,
working folder, environment, output and end of its own, as one from a shell. Tests of what is imported and of
the start itself start Python anew. The processes of one test session share what the server has imported: each
has a child of it (see command_server.py).
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import util
from pathlib import Path

import command_server
from command_server import deaf, receive, room
from filelock import FileLock

HEAVY = "ablate.execution.worker"
"""What a fork server preloads that imports torch."""
SPAWN = util.spawnv_passfds
AT_START = ("PYTHON", "LC_", "LANG", "LD_")
"""How variables begin that are read when Python starts."""


class Server:
    """The process that is forked, started when it is first needed."""

    def __init__(self):
        self.lock, self.socket = threading.Lock(), None
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
            pid = int.from_bytes(receive(self.socket, 8))
            self.socket.settimeout(patience)
            try:
                code = int.from_bytes(receive(self.socket, 8), signed=True)
                return code, *(text.result(patience) for text in texts)  # to its end: no child is left
            except TimeoutError:
                os.killpg(pid, signal.SIGKILL)
                self.socket.close()  # whatever it answers belongs to this command
                self.socket = None
                raise

    def _ask(self, arguments, environment, folder, pipes):
        """Send a request, with the ends of pipes to write to; a third one is of what is only started."""
        request = {"arguments": arguments, "environment": environment, "folder": str(folder)}
        request["shared"] = self.shared and str(self.shared)
        request["umask"] = os.umask(0o022)  # it is told only where it is set
        os.umask(request["umask"])
        self._send(request, [end for _, end in pipes])

    def fork_server(self, code, ends):
        """Start the fork server that Python's code names, as `python -c` would, and return its process id.

        The process with that id is a child of this one, which ends when the fork server does.
        """
        with self.lock:
            here, there = os.pipe()
            stands_for_it = os.posix_spawnp("cat", ["cat"], os.environ, file_actions=[
                (os.POSIX_SPAWN_DUP2, here, 0), (os.POSIX_SPAWN_CLOSE, there),
            ])  # fmt: skip
            os.close(here)
            request = {"code": code, "ends": [*ends, 1, 2], "folder": str(Path.cwd())}
            request |= {"environment": dict(os.environ), "deaf": deaf()}
            request["room"] = room()
            self._send(request, [there, *ends, 1, 2])
            os.close(there)
        return stands_for_it

    def _send(self, request, ends):
        text = json.dumps(request).encode()
        if self.socket is None:
            self._start()
        socket.send_fds(self.socket, [len(text).to_bytes(8)], ends)
        self.socket.sendall(text)

    def _start(self):
        """Connect to the server of all processes of the tests; start it where there is none."""
        address = str(self.shared / "commands")
        with FileLock(f"{address}.lock"):
            self.socket = socket.socket(socket.AF_UNIX)
            try:
                self.socket.connect(address)
            except OSError:
                Path(address).unlink(missing_ok=True)  # of one that has ended
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(address)
                    listener.listen()
                    self._spawn(listener)
                self.socket.connect(address)
        atexit.register(self.socket.close)  # the server ends with the last of its connections

    def _spawn(self, listener):
        # Else it does not find what is beside this file; each command has it in its own environment.
        every = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
        process = subprocess.Popen(
            [sys.executable, command_server.__file__, str(listener.fileno())],
            pass_fds=[listener.fileno()], env=every, start_new_session=True,
        )  # fmt: skip
        process.returncode = 0  # nobody waits for it: the last connection may be another process's


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

    def __del__(self):
        self.stdout.close()  # a test need not read what it does not look at
        self.stderr.close()

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


def lend_fork_servers():
    """Let the fork servers of this process that would import torch be forked, too."""

    def spawn(path, arguments, ends):
        is_heavy = "forkserver" in arguments[-1] and HEAVY in arguments[-1]
        return SERVER.fork_server(arguments[-1], ends) if is_heavy else SPAWN(path, arguments, ends)

    util.spawnv_passfds = spawn


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
