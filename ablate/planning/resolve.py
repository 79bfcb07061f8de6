"""A study against what its store knows: its cells as far as they are tuned, their runs and their jobs.

The one place where this pipeline stands: plan, status, report, explain and gc all start here.
"""

from dataclasses import dataclass

from ablate.planning import inputs, tuning
from ablate.planning.inputs import Inputs
from ablate.planning.tuning import Tuning
from ablate.store.layout import Store
from ablate.study import grid
from ablate.study.file import Study
from ablate.study.grid import Fingerprints, Grid, Job, Run


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a study needs; whether it is done is not asked here."""

    inputs: Inputs
    fingerprints: Fingerprints
    tuning: Tuning
    runs: tuple[Run, ...]
    jobs: tuple[Job, ...]

    @property
    def study(self) -> Study:
        """The study that is resolved."""
        return self.inputs.study

    @property
    def store(self) -> Store:
        """The store that it is resolved against."""
        return self.inputs.store

    @property
    def grid(self) -> Grid:
        """The cells, with what range tests and searches have found."""
        return self.tuning.grid


def resolve(
    study: Study, store: Store, device: str = "auto", *, seeds: tuple[int, ...] | None = None
) -> Resolved:
    """Resolve a study against its store, without reading any job. `seeds`: instead of its own."""
    return resolve_inputs(inputs.read(study, store, device), seeds=seeds)


def resolve_inputs(
    study_inputs: Inputs, fingerprints: Fingerprints | None = None, *, seeds: tuple[int, ...] | None = None
) -> Resolved:
    """Resolve what was read before. `fingerprints`: what is not to be looked up again."""
    identified = inputs.fingerprints(study_inputs, study_inputs.grid.cells, fingerprints)
    tuned = tuning.resolve(study_inputs.study, study_inputs.grid, study_inputs.store, identified)
    identified = inputs.fingerprints(
        study_inputs, tuned.grid.cells, identified
    )  # a search may choose the network
    runs, jobs = grid.runs_and_jobs(
        tuned.grid, study_inputs.study.seeds if seeds is None else seeds, identified
    )
    return Resolved(study_inputs, identified, tuned, runs, jobs)
