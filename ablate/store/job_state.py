"""The one answer to "what state is this job in?", from its folder alone. Nothing here writes."""

from dataclasses import dataclass
from typing import Literal

from ablate import descriptors
from ablate.store import files, job_folder, records
from ablate.store.job_folder import Folder
from ablate.store.records import Failure, Result

Stage = Literal["not_run", "running", "stopped", "crashed", "diverged", "trained", "evaluated"]
"""The stage of a job; of several that apply, the first of this list counts:

evaluated  trained, and evaluated in the way that was asked for
diverged   its training has ended in numbers that are not finite: nothing is evaluated
running    a process holds it: it trains or evaluates
crashed    the last attempt failed
trained    trained to its end, and not yet evaluated
stopped    begun, and killed or interrupted: it can be resumed
not_run    never begun
"""


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a job, by its folder, at one moment."""

    is_running: bool  # some process trains or evaluates it
    is_begun: bool
    result: Result | None  # of its training, once that has ended
    failure: Failure | None  # of the last attempt, where no other has begun since

    @property
    def is_trained(self) -> bool:
        """Whether its training has ended and left a network."""
        return self.result is not None and self.result.status == "finished"

    def stage(self, *, is_evaluated: bool = False) -> Stage:
        """Return the stage of the job; `is_evaluated`: in the way that is asked for."""
        if self.result is not None and not self.is_trained:
            return "diverged"
        if self.is_trained and is_evaluated:
            return "evaluated"
        if self.is_running:
            return "running"
        if self.failure is not None:
            return "crashed"
        if self.is_trained:
            return "trained"
        return "stopped" if self.is_begun else "not_run"


def state(folder: Folder, *, is_evaluated: bool = False) -> JobState:
    """Return the state of a job.

    Its lock is looked at first: a job that ends meanwhile counts as running, not as never begun. Not at all
    where it `is_evaluated`, seen before this, in every way that is asked for: then nobody asks who holds it.
    """
    with descriptors.holding(folder.path):
        is_running = not is_evaluated and job_folder.is_running(folder)
        result = records.read(folder.result, Result)
        failure = None
        if not is_running and not is_evaluated and (result is None or result.status == "finished"):
            failure = records.read(folder.failure, Failure)
        is_begun = result is not None or files.is_there(folder.attempts) or files.is_there(folder.journal)
    return JobState(is_running, is_begun, result, failure)
