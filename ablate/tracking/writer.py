"""A thread that sends while training goes on."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ablate.messages import public
from ablate.store.layout import Store
from ablate.study.file import Study
from ablate.tracking.addresses import first_line
from ablate.tracking.records import Source
from ablate.tracking.sender import Sender, renamed

PAUSE = 5.0  # seconds before the next try when the server is away
PATIENCE = 3.0  # seconds of sending at the end after which a notice explains the wait
TICK = 0.2  # seconds between two looks at an interruption


@dataclass(frozen=True, slots=True)
class Report:
    """How many sources of a writer are not up to date at its end, and why."""

    late: int
    error: str


class Writer:
    """A thread that keeps MLflow up to date while training goes on, and catches up after a failure.

    It begins with what an earlier command has left: runs that MLflow shows as running and no process trains
    are ended.
    """

    def __init__(
        self,
        address: str,
        study: Study,
        sources: Sequence[Source],
        store: Store,
        notice: Callable[[str], None],
        *,
        whole: bool = True,
    ) -> None:
        """Start; `notice` is called, once, when MLflow cannot be reached.

        `whole`: the sources are all that the study has.
        """
        keys = frozenset(source.key for source in sources) if whole else None
        self._sender = Sender(address, study, store, keys)
        self._address, self._study, self._notice = address, study.name, notice
        self._by_job: dict[str, list[Source]] = {}
        for source in sources:
            self._by_job.setdefault(source.job, []).append(source)
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # Jobs with something to send, in order, and whether this command has begun them: one that it has not
        # begun has ended, unless another process trains it.
        self._todo: dict[str, bool] = dict.fromkeys(self._by_job, False)
        self._error, self._name = "", ""
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def touch(self, job: str) -> None:
        """Send soon what is new of a job, a search or a range test, by its id; others are ignored."""
        self._queue.put(job)

    def close(self, stopped: Callable[[], bool] = lambda: False) -> Report:
        """Send what is left, and stop; `stopped` is asked meanwhile, and ends it: ablate sync sends the rest.

        One failure now is final, so a server that hangs costs at most one request: 20 seconds, or
        MLFLOW_HTTP_REQUEST_TIMEOUT.
        """
        self._closing.set()
        self._queue.put(None)
        notice_at = time.monotonic() + PATIENCE
        while self._thread.is_alive() and not self._abandoned.is_set():
            self._thread.join(TICK)
            if stopped():
                self.abandon()
            elif self._thread.is_alive() and time.monotonic() > notice_at:
                notice_at = float("inf")
                self._notice(
                    f"waiting for MLflow at {public(self._address)} to take the last runs; "
                    "Ctrl-C leaves them to ablate sync"
                )
        late = sum(len(self._by_job[job]) for job in self._todo.copy())
        return Report(late, (self._error or "interrupted") if late else "")

    def abandon(self) -> None:
        """Stop at once: the thread may be waiting for a server, and ends with the process."""
        self._abandoned.set()
        self._queue.put(None)

    def _work(self) -> None:
        is_first, closing = True, False
        while not closing:
            closing = self._collect(0.0 if is_first else PAUSE if self._todo else None)
            self._send_all(closing=closing)
            is_first = False
        if self._error and not self._abandoned.is_set():
            self._look_again()
        if not self._todo:  # a run whose job was interrupted is still shown as running
            shown = self._sender.running()
            self._todo = {
                job: False
                for job, sources in self._by_job.items()
                if any(source.key in shown for source in sources)
            }
            self._send_all(closing=True)

    def _look_again(self) -> None:
        """Look at what MLflow has: a request whose answer was lost on the way may have made a run twice."""
        with suppress(Exception):  # away again: the next command looks
            self._sender.look()

    def _send_all(self, *, closing: bool) -> None:
        """Send what is new, until MLflow seems to be away: two failures in a row, or a slow one late."""
        refused = 0
        for job, is_live in list(self._todo.items()):
            if self._abandoned.is_set():
                return
            began = time.monotonic()
            if self._send(job, closing=closing or not is_live, again=is_live):
                del self._todo[job]
                refused = 0
                continue
            # Behind the others: a run that MLflow never takes must not hold them up.
            self._todo[job] = self._todo.pop(job)
            refused += 1
            if self._closing.is_set() and time.monotonic() - began > PATIENCE:
                self._abandoned.set()
            if refused == 2:
                return

    def _collect(self, timeout: float | None) -> bool:
        """Wait for the first touch and take all that there are; return whether it is time to close."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                job = self._queue.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
            except queue.Empty:
                return False
            if job is None:
                return True
            if job in self._by_job:
                self._todo[job] = True
            end = end if timeout is not None else time.monotonic()

    def _send(self, job: str, *, closing: bool, again: bool) -> bool:
        try:
            for source in self._by_job[job]:
                self._sender.send(source, closing=closing, again=again)
        except Exception as error:  # noqa: BLE001 (nothing that a server or a disk does may stop the training)
            reason = first_line(error)
            if not self._error:
                self._notice(
                    f"MLflow at {public(self._address)} does not take runs ({reason}); "
                    "training goes on, and they follow later"
                )
            self._error = reason
            self._sender.forget()  # a run may have been deleted there
            return False
        if self._sender.name != self._name:
            self._name = self._sender.name
            self._notice(renamed(self._study, self._name))
        return True
