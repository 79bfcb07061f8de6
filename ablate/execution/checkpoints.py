"""The checkpoints of a training, written by a thread while the training goes on.

A checkpoint of ResNet-9 takes a quarter of a second to write, as long as an epoch on a fast GPU; one of a
small network some 20 ms, most of which are spent waiting for the disk. So the training copies its state and
goes on at once. Whatever is copied is written in an order that any kill or power cut may end: the best
weights, the checkpoint that speaks of them, the lines of the journal that it has. An epoch whose line is in
the journal is never trained again.

Not every epoch has a checkpoint, or tiny ones would cost more to write than to train: writing takes at most
SHARE of the time, as far as no more than MOST seconds of training are at stake. The lines of the epochs
between wait for the next one. The first epoch has one, so does the last, and one after which a job stops.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ablate.execution.weights import save
from ablate.store import records
from ablate.store.files import Line
from ablate.store.job_folder import Folder
from ablate.store.records import Epoch
from ablate.training import copies, loop
from ablate.training.copies import Copy
from ablate.training.loop import Session

SHARE = 0.05  # of the time that may go into writing checkpoints
MOST = 10.0  # seconds of finished epochs that a kill may cost


@dataclass(frozen=True, slots=True)
class _Written:
    """A checkpoint on the disk: the lines that the journal has since, and the seconds that it all took."""

    lines: tuple[Line, ...] = ()
    seconds: float = 0.0


class Checkpoints:
    """The checkpoints of one training; a context, which ends when nothing is being written any more."""

    def __init__(
        self, folder: Folder, epochs: int, check: Callable[[], None], tell: Callable[[Line], None]
    ) -> None:
        """Begin after so many epochs, which are on the disk.

        `check` is called before anything is written, by the thread, and raises where the folder is another
        process's by now. `tell` gets each line once it is in the journal, in the thread that trains.
        """
        self._folder, self._check, self._tell = folder, check, tell
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[_Written] | None = None
        self._epochs = epochs  # in the journal
        self._began, self._seconds = -math.inf, 0.0  # of the last checkpoint: when, and how long it took
        self._best: Copy | None = None  # weights of the best epoch, where they are not handed over yet

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let what is being written come to its end; raise its error unless there is another one."""
        self._thread.shutdown(wait=True)
        if error is None:
            self.wait()

    def add(self, session: Session, *, now: bool) -> None:
        """Take the epoch that has just ended; write it, with those before it, if `now` or if it is time."""
        is_best = session.best_epoch == session.epoch
        if not now and not self._is_due():
            if is_best:
                self._best = copies.copied({"network": session.network.state_dict()}, session.device)
            return
        self.wait()
        self._began = time.monotonic()
        state = copies.copied(loop.state(session), session.device)
        best, self._best = state if is_best else self._best, None
        self._writing = self._thread.submit(self._write, state, best)

    def look(self) -> None:
        """Hear how the writing goes: raise what it raised, tell which lines are in the journal."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written. No sign of life is given: a disk that hangs is a stall."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        written = writing.result()
        self._epochs += len(written.lines)
        self._seconds = written.seconds
        for line in written.lines:
            self._tell(line)

    def _is_due(self) -> bool:
        """Whether MOST seconds are at stake, or the last checkpoint took no more than SHARE of them."""
        passed = time.monotonic() - self._began
        return passed >= MOST or (self._writing is None and self._seconds <= SHARE * passed)

    def _write(self, copy: Copy, best: Copy | None) -> _Written:
        """Write a checkpoint and the lines that the journal lacks."""
        state = copy.content()
        self._check()
        if best is not None:
            # Durable: a checkpoint never outlives a power cut with the best weights of another epoch.
            save(self._folder.weights("best_validation"), best.content()["network"], durable=True)
        # Before the lines: what stands in the journal is never trained again.
        save(self._folder.checkpoint, state, keep=self._folder.previous)
        lines = tuple(state["history"][self._epochs :])
        for line in lines:
            records.append(self._folder.journal, Epoch.model_validate(line))
        return _Written(lines, time.monotonic() - self._began)
