"""What a worker process does: task after task, until its parent closes the pipe or dies."""

import importlib
import json
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from ablate.errors import AblateError
from ablate.execution.executors.base import Function, Json, run_here


def serve(pipe: Connection, function: str, preflight: str, device: str, environment: dict[str, str]) -> None:
    """Run task after task, as a worker process, until the pipe closes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # they are for the parent, which asks us to stop
    os.environ.update(environment)
    call: Function = _import(function)
    if preflight and device != "cpu":
        try:
            _import(preflight)(device)
        except AblateError as refusal:
            pipe.send_bytes(json.dumps({"kind": "unusable", "error": str(refusal)}).encode())
            sys.exit(1)
    inbox = Inbox(pipe)
    inbox.send({"kind": "ready"})
    while True:
        message = inbox.next_task()
        task = message["task"]

        def report(detail: Json, task: str = task) -> None:
            news: Json = {"kind": "progress", "detail": detail} if detail else {"kind": "alive"}
            inbox.send(news | {"task": task})

        payload = message["payload"] | {"device": device}
        kind, detail, error = run_here(call, payload, report, inbox.should_stop)
        inbox.send({"kind": kind, "task": task, "detail": detail, "error": error})


def _import(function: str) -> Any:
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)


class Inbox:
    """The worker's end of the pipe, read by a thread, which sees a stop or the parent's death at once."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._task: Json | None = None
        self._arrived = threading.Semaphore(0)
        self._stop = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                message = json.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the parent has closed the pipe or is dead: nobody waits for this job any more
            if "stop" in message:
                self._stop.set()
            else:
                self._stop.clear()
                self._task = message
                self._arrived.release()

    def next_task(self) -> Json:
        """Wait for a task."""
        self._arrived.acquire()
        assert self._task is not None
        return self._task

    def should_stop(self) -> bool:
        """Whether the parent has asked this task to stop."""
        return self._stop.is_set()

    def send(self, message: Json) -> None:
        """Send a message to the parent; when it is dead, end."""
        try:
            self._pipe.send_bytes(json.dumps(message).encode())
        except OSError:
            os._exit(0)
