"""The process of a submission: in its own session, with its files in the submission's folder.

It lives as long as `lock` there is held. Whoever starts it locks that file and leaves it the descriptor, so
that it is held from before it begins until its end, whatever is killed meanwhile: who can lock it knows that
nothing runs. Two shells write `pid` and `exit`: the inner one becomes the program, which alone is sent
signals; the outer one waits for it, as only a parent learns with what code it ends.
"""

import fcntl
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ablate import descriptors
from ablate.store import files

SCRIPT = """sh -c 'echo $$ >&0; exec "$@" </dev/null >&2' sh "$@"; echo $?"""
"""Its input is the file `pid`, its output the file `exit`, its errors the log."""
HIDDEN = ("ABLATE_TOKEN", "ABLATE_SERVER")  # of the service's environment: nothing for the code of a study
TAIL = 4000  # bytes of a log in which its last line is looked for
LONGEST = 500  # characters of that line
Process: TypeAlias = "subprocess.Popen[bytes]"


@dataclass(frozen=True, slots=True)
class Child:
    """The process of a submission, that runs, or has ended, or was never started."""

    folder: Path

    @property
    def lock(self) -> Path:
        """The file that the process holds."""
        return self.folder / "lock"

    @property
    def log(self) -> Path:
        """The file of what it prints."""
        return self.folder / "log.txt"

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return files.is_held(self.lock)

    @property
    def pid(self) -> int | None:
        """The id of the process; None where it has not come so far as to write it."""
        return _number(self.folder / "pid")

    @property
    def exit_code(self) -> int | None:
        """The code with which it has ended; None where nobody could see that."""
        return _number(self.folder / "exit")

    @property
    def last_line(self) -> str:
        """The last line that it has printed."""
        try:
            with files.open_binary(self.log) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip()[:LONGEST] for line in reversed(lines) if line.strip()), "")

    def hold(self) -> int | None:
        """Return a descriptor of the lock, held; None where another process holds it."""
        descriptor = descriptors.open_file(self.lock, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def forget(self) -> None:
        """Remove what an earlier process of this submission has written."""
        for name in ("pid", "exit"):
            descriptors.remove(self.folder / name)
        files.sync(self.folder)

    def start(self, command: Sequence[str], cwd: str, more: dict[str, str], held: int) -> Process:
        """Start it, with more environment; `held`: the descriptor of its lock."""
        environment = {name: value for name, value in os.environ.items() if name not in HIDDEN} | more
        log_flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with (
            descriptors.new(self.folder / "pid") as pid,
            descriptors.new(self.folder / "exit") as code,
            os.fdopen(descriptors.open_file(self.log, log_flags), "ab") as log,
        ):
            return subprocess.Popen(  # noqa: S603 (a run of ablate)
                ["/bin/sh", "-c", SCRIPT, "sh", *command],
                cwd=cwd, env=environment, stdin=pid, stdout=code, stderr=log, pass_fds=(held,),
                start_new_session=True,
            )  # fmt: skip

    def stop(self) -> bool:
        """Ask it to end, as it does once its running epochs have; return whether that was possible."""
        pid = self.pid
        if pid is None or not _is_ours(pid, self.folder):
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return True


def _number(path: Path) -> int | None:
    try:
        return int(files.read(path))
    except (FileNotFoundError, ValueError):
        return None


def _is_ours(pid: int, folder: Path) -> bool:
    """Whether a process was started with a file of this folder: elsewhere its number may be another's."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        if Path("/proc/self/cmdline").exists():
            return False
        ps = ["ps", "-o", "command=", "-p", str(pid)]  # of macOS
        command = subprocess.run(ps, capture_output=True, check=False).stdout  # noqa: S603
    return os.fsencode(folder) in command
