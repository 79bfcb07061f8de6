"""What runs on a node of a Ray cluster: an actor that holds the slots of one GPU, or one CPU slot.

Its workers are those of the local executor: warm, and a dead one costs its task alone. What comes and goes is
JSON and bytes.
"""

import fcntl
import importlib
import json
import os
import shutil
import socket
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate import __version__, hardware, places
from ablate.errors import AblateError
from ablate.execution.executors.base import ENDS, Event, Files, Json, Program, Slot, Stay
from ablate.execution.executors.local import LocalExecutor

ELSEWHERE = ""  # the name of a task of another actor, for which this one's memory is kept free
QUIET = 20.0  # seconds without news, after which the coordinator is told that there are none
TOKEN = 32  # bytes
Parcel = list[Any]  # JSON of one message as bytes, and files of the task that it is about


def look(device: str) -> bytes:
    """Return what a node is: the version of ablate there, and the precision of its devices."""
    return json.dumps({"version": __version__, "precision": hardware.precision(device)}).encode()


def sees(token: str, content: bytes) -> bool:
    """Whether a file of this name is here and has this content, as no other file has."""
    try:
        with os.fdopen(os.open(token, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(TOKEN + 1) == content
    except OSError:
        return False


class Hosted(LocalExecutor):
    """A local executor of which nothing is left, on request, beside a task of another one."""

    def ring(self, bell: Any) -> None:
        """Let a wait for events end as soon as there is something to read here."""
        self._bell = [bell]

    def vacate(self) -> None:
        """End the idle processes, and start none."""
        memories = {worker.slot.memory for worker in self._workers} | {slot.memory for slot in self._vacant}
        self._reserved |= dict.fromkeys(memories, ELSEWHERE)
        self._news += self._dismiss(list(self._workers), ELSEWHERE)

    def return_(self) -> None:
        """Start processes again."""
        self._reserved = {memory: task for memory, task in self._reserved.items() if task != ELSEWHERE}
        self._spawn()


class Sent:
    """A task as it came."""

    def __init__(self, id: str, payload: Json) -> None:  # noqa: A002 (the contract's word)
        """Take its name and what the function gets."""
        self.id, self._payload = id, payload

    def to_json(self) -> Json:
        """Return what the function gets."""
        return self._payload


class Host:
    """The actor. Its thread drives the executor; what the coordinator calls only puts messages there."""

    def __init__(self, start: bytes, token: bytes) -> None:
        """Take the program and the slots; `token` is what the store's file of that name has in it."""
        # Else every worker would run the file that started this process, and import Ray.
        vars(sys.modules["__main__"]).pop("__file__", None)
        given = json.loads(start)
        _leave_out(given["paths"])
        self._program = Program(**given["program"] | {"preload": tuple(given["program"]["preload"])})
        self._slots = tuple(Slot(**slot) for slot in given["slots"])
        self._travels = bool(self._program.travel) and not sees(given["token"], token)
        self._room = Room() if self._travels else None
        self._stays: dict[str, Stay] = {}
        self._inbox: deque[tuple[Json, Files]] = deque()
        self._early: dict[int, tuple[Json, Files]] = {}  # by their numbers
        self._next, self._order = 0, threading.Lock()
        self._outbox: deque[Json] = deque([{"kind": "up", "travels": self._travels}])
        self._arrived = threading.Condition()
        self._bell, self._rope = os.pipe()
        os.set_blocking(self._bell, False)
        self._over = threading.Event()
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def tell(self, message: bytes, files: Files) -> None:
        """Take a message, with the files of the task that it brings; one that comes early has to wait."""
        content = json.loads(message)
        with self._order:
            self._early[content["number"]] = content, files
            while self._next in self._early:
                self._inbox.append(self._early.pop(self._next))
                self._next += 1
        os.write(self._rope, b".")

    def listen(self) -> list[Parcel]:
        """Wait for news, and return all there is; with the files that tasks have changed."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._outbox, QUIET)
            news = list(self._outbox)
            self._outbox.clear()
        parcels: list[Parcel] = []
        seen = set()
        for message in news:
            task = message.get("task", "")
            # With its first word all that there is of it now: nothing is heard that cannot be seen.
            stay = self._stays.get(task) if task not in seen else None
            seen.add(task)
            parcels.append([json.dumps(message).encode(), stay.changes() if stay is not None else {}])
            if message["kind"] in ENDS:
                self._stays.pop(task, None)
        return parcels

    def close(self) -> bool:
        """End every process, and remove what is here of the tasks."""
        self._over.set()
        os.write(self._rope, b".")
        return self._ended.wait(60)

    def _run(self) -> None:
        executor = None
        try:
            function = f"{self._program.travel}:work" if self._travels else self._program.function
            executor = Hosted(function, self._slots, self._program.preload, self._program.preflight)
            executor.ring(self._bell)
            while not self._over.is_set():
                self._hush()
                while self._inbox:
                    self._do(executor, *self._inbox.popleft())
                self._say([_news(event) for event in executor.events(QUIET)])
        except (AblateError, RuntimeError, OSError) as error:
            self._say([{"kind": "broken", "error": str(error)}])
        finally:
            if executor is not None:
                executor.close()
            if self._room is not None:
                self._room.leave()
            self._ended.set()

    def _hush(self) -> None:
        """Stop the bell; whatever it rang for is in the inbox."""
        with suppress(BlockingIOError):
            while os.read(self._bell, 1024):
                pass

    def _do(self, executor: Hosted, message: Json, files: Files) -> None:
        """Do what the coordinator says."""
        match message["do"]:
            case "submit":
                payload = message["payload"]
                if self._room is not None:
                    try:
                        payload = self._unpack(message["task"], payload, files)
                    except (AblateError, OSError) as error:
                        self._say([{"kind": "failed", "task": message["task"], "error": str(error)}])
                        return
                executor.submit(Sent(message["task"], payload), exclusive=message["exclusive"])
            case "cancel":
                executor.cancel(message["task"])
            case "kill":
                executor.kill(message["task"])
            case "vacate":
                executor.vacate()
            case "return":
                executor.return_()

    def _unpack(self, task: str, payload: Json, files: Files) -> Json:
        assert self._room is not None
        travel = importlib.import_module(self._program.travel)
        stay: Stay = travel.arrive(payload, files, self._room.folder)
        self._stays[task] = stay
        return stay.payload

    def _say(self, news: list[Json]) -> None:
        if news:
            with self._arrived:
                self._outbox.extend(news)
                self._arrived.notify_all()


def _leave_out(folders: list[str]) -> None:
    """Take the coordinator's folders, which others may write to, off the path that Ray has put them on."""
    wanted = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [folder for folder in sys.path if folder not in folders or folder in wanted]


def _news(event: Event) -> Json:
    return {"kind": event.kind, "task": event.task, "detail": event.detail, "error": event.error}


class Room:
    """A folder of this machine for the files of tasks; those of actors that were killed are removed."""

    def __init__(self) -> None:
        """Make it in the user's cache, and hold its lock, which ends with this process."""
        above = places.cache() / "ray"
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
        for other in above.iterdir():
            _remove_unless_held(other)
        name = f"{socket.gethostname()}-{os.getpid()}"
        self._lock = (above / f"{name}.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.folder = above / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)

    def leave(self) -> None:
        """Remove it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        Path(self._lock.name).unlink(missing_ok=True)
        self._lock.close()


def _remove_unless_held(lock: Path) -> None:
    """Remove a room of this machine whose process is dead, by its lock."""
    if lock.suffix != ".lock" or not lock.name.startswith(f"{socket.gethostname()}-"):
        return
    with suppress(OSError), lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink()
