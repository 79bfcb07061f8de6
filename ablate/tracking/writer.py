"""A thread that sends while training goes on."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ablate.store import Store
from ablate.study import Study
from ablate.tracking.client import Mlflow, first_line, public
from ablate.tracking.records import Source

PAUSE = 5.0  # seconds before the next try when the server is away


@dataclass(frozen=True, slots=True)
class Report:
    """What a writer leaves behind: how many of its sources are not up to date, and why."""

    late: int
    error: str


class Writer:
    """A thread that keeps MLflow up to date with the store while training goes on, and catches up after a failure."""

    def __init__(self, address: str, study: Study, sources: Sequence[Source], store: Store, notice: Callable[[str], None]) -> None:
        """Start; `notice` is called, once, when MLflow cannot be reached."""
        self._mlflow = Mlflow(address, study, store, frozenset(one.key for one in sources))
        self._address, self._notice = address, notice
        self._by_job: dict[str, list[Source]] = {}
        for one in sources:
            self._by_job.setdefault(one.job, []).append(one)
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._todo: dict[str, None] = {}  # jobs with something to send, in order
        self._error = ""
        self._thread = threading.Thread(target=self._work, name="mlflow-writer", daemon=True)
        self._thread.start()

    def touch(self, job: str) -> None:
        """Say that a job, a search or a range test, by its id, has something new; of another id there is nothing to send."""
        self._queue.put(job)

    def close(self) -> Report:
        """Send what is left, and stop. One failure now is final: `ablate sync` sends the rest later."""
        self._queue.put(None)
        self._thread.join()
        return Report(sum(len(self._by_job[job]) for job in self._todo), self._error if self._todo else "")

    def _work(self) -> None:
        closing = False
        while not closing:
            closing = self._collect(None if not self._todo else PAUSE)
            if closing:  # a run whose job was interrupted is still shown as running
                shown = self._mlflow.running()
                self._todo |= {job: None for job, sources in self._by_job.items() if any(one.key in shown for one in sources)}
            failed = 0
            for job in list(self._todo):
                if self._send(job, closing=closing):
                    del self._todo[job]
                else:
                    failed += 1
                if failed == 2:  # not one bad run: the server is away
                    break

    def _collect(self, timeout: float | None) -> bool:
        """Wait for the first touch and take all that are there; say whether it is time to close."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                job = self._queue.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
            except queue.Empty:
                return False
            if job is None:
                return True
            if job in self._by_job:
                self._todo[job] = None
            end = end if timeout is not None else time.monotonic()

    def _send(self, job: str, *, closing: bool) -> bool:
        try:
            for one in self._by_job[job]:
                self._mlflow.send(one, closing=closing)
        except Exception as error:  # noqa: BLE001 (whatever a server or a full disk does must not stop the training)
            if not self._error:
                reason = first_line(error)
                self._notice(f"MLflow at {public(self._address)} does not take runs ({reason}); training goes on, and they follow later")
            self._error = first_line(error)
            self._mlflow.forget()  # a run may have been deleted there
            return False
        return True
