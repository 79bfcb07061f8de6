"""Where a command works and how it goes about it: nothing here changes what is trained."""

from dataclasses import dataclass

from ablate.execution import scheduler
from ablate.store.layout import Store
from ablate.study.conditions import Expression


@dataclass(frozen=True, slots=True)
class Where:
    """The store, the devices and the servers that a command uses."""

    store: Store
    tracking_uri: str | None = None
    device: str = "auto"
    jobs: int | None = None
    jobs_per_gpu: int | None = 1  # none: as many as a probe finds best
    optuna_storage: str | None = None  # none: files of the store
    executor: str = "local"  # a row of EXECUTORS
    slurm: tuple[str, ...] = ()  # options of sbatch


@dataclass(frozen=True, slots=True)
class How:
    """What a command does first, leaves out, waits for, and when it ends."""

    retry_failed: bool = False
    fail_fast: bool = False
    only: Expression | None = None  # of the recipes that are wanted now
    budget: float | None = None  # seconds, after which nothing runs any more
    stall: float = scheduler.STALL  # seconds without a sign of life of a job
    wait: bool = False  # for another process that runs this study
    tune_only: bool = False  # end before the grid
    replace: bool = False  # a study of the same name, of another file
    detach: bool = False  # end once everything is submitted
