"""What is left to do of a study: its jobs less what the store has, and how long that may take."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ablate.errors import AblateError
from ablate.planning import costs
from ablate.planning import tuning as tunings
from ablate.planning.resolve import Resolved
from ablate.planning.tuning import Tuning
from ablate.recipe import identity as identities
from ablate.recipe.fields import Evaluation, Recipe
from ablate.store import files, job_folder
from ablate.store.job_folder import Folder
from ablate.store.job_state import state
from ablate.store.layout import Store
from ablate.store.records import JobRecipe
from ablate.store.tasks import Context, TrainTask
from ablate.study import grid
from ablate.study.conditions import Expression
from ablate.study.file import Study
from ablate.study.grid import Grid, Job, Run


@dataclass(frozen=True, slots=True)
class Work:
    """One task: train the job if it is not trained, then do the evaluations that are missing."""

    job: Job
    evaluations: tuple[Evaluation, ...]
    trained: bool

    @property
    def id(self) -> str:
        """The identity of the job, which is that of the task."""
        return self.job.id

    @property
    def start(self) -> str:
        """The job whose weights it is to start from; empty where it needs none any more."""
        return "" if self.trained else self.job.start

    def folder(self, store: Store) -> Folder:
        """Return the folder of the job."""
        return store.job(self.job.id)

    def prepare(self, store: Store) -> None:
        """Write what is trained into the folder of the job."""
        job_folder.create(self.folder(store), self.job)

    def task(self, store: Store, context: Context) -> TrainTask:
        """Return what a worker is handed."""
        return TrainTask(
            context=context, folder=self.folder(store).path, job=self.job.id, data=store.data / self.job.data,
            evaluations=self.evaluations, trained=self.trained,
            start=store.job(self.job.start).weights("last") if self.job.start else None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """A guess at the time of the work, in seconds of one slot, and what it goes by."""

    seconds: float
    basis: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is left to do of a resolved study."""

    resolved: Resolved
    work: tuple[Work, ...]
    failed: tuple[Job, ...]  # failed before, left alone unless asked for
    cost: Cost | None  # none: nothing to go by
    trials: int  # trainings that searches still need
    left_out: int = 0  # unfinished jobs that nobody asks for now
    renumbered: Mapping[int, int] = field(default_factory=dict)  # jobs trained under other NUMERICS, by these
    notes: tuple[str, ...] = ()  # on what works, and is hardly meant

    @property
    def study(self) -> Study:
        """The study itself."""
        return self.resolved.study

    @property
    def grid(self) -> Grid:
        """Its cells."""
        return self.resolved.grid

    @property
    def runs(self) -> tuple[Run, ...]:
        """Its runs."""
        return self.resolved.runs

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Its jobs."""
        return self.resolved.jobs

    @property
    def tuning(self) -> Tuning:
        """How far it is tuned."""
        return self.resolved.tuning

    @property
    def ready(self) -> tuple[Work, ...]:
        """The work that can be done now: not that of cells whose fields are still to be found."""
        return tuple(work for work in self.work if not work.job.pending)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipes that will be trained, as far as they are known: weights are fetched beforehand."""
        return (
            *(work.job.recipe for work in self.work if not work.trained),
            *(test.recipe for test in self.tuning.open_ranges),
            *(search.recipe for search in self.tuning.open_searches),
        )

    @property
    def precisions(self) -> frozenset[str]:
        """The precisions of what will be trained."""
        return frozenset(recipe.training.precision for recipe in self.recipes)

    @property
    def captures(self) -> bool:
        """Whether a step of what will be trained is to be a CUDA graph."""
        return any(recipe.training.compile == "graph" for recipe in self.recipes)

    @property
    def trainings(self) -> int:
        """The number of jobs that will be trained."""
        return sum(not work.trained for work in self.work)

    @property
    def done(self) -> int:
        """The number of jobs for which nothing is left to do."""
        return len(self.jobs) - len(self.work) - len(self.failed) - self.left_out

    @property
    def is_done(self) -> bool:
        """Whether every run has come to its end, and none has failed: nothing shown of them will change."""
        left = (
            self.work
            or self.failed
            or self.left_out
            or self.trials
            or self.tuning.open_ranges
            or self.tuning.open_searches
        )
        return not left

    @property
    def evaluation_only(self) -> int:
        """The number of cells that need no training of their own: they share another cell's."""
        cells = [cell for cell in self.grid.cells if not cell.pending]
        trainings = {
            tuple(identities.job_id(recipe, 0, "") for recipe in (*cell.lineage, cell.recipe))
            for cell in cells
        }
        return len(cells) - len(trainings)

    @property
    def waiting(self) -> int:
        """The number of jobs that start from the weights of another cell, and wait for it."""
        return sum(bool(work.start) for work in self.work)

    @property
    def trained_again(self) -> tuple[str, ...]:
        """A sentence for each older numerics version: its jobs are trained again, and why."""
        return tuple(
            f"{count} of the {self.trainings} jobs to train {'was' if count == 1 else 'were'} trained under "
            f"numerics {version} and {'is' if count == 1 else 'are'} trained again: "
            f"numbers of this version ({identities.NUMERICS}) differ"
            for version, count in sorted(self.renumbered.items())
        )


def make(resolved: Resolved, *, retry_failed: bool = False, only: Expression | None = None) -> Plan:
    """Compare what a study needs with what its store has.

    `only`: what the recipes of the cells must hold whose work is wanted now; the others are left out.
    """
    study, store = resolved.study, resolved.store
    if only is not None:
        restricted = tunings.restrict(resolved.tuning, study.search.per if study.search else "cell", only)
        resolved = replace(resolved, tuning=restricted)
    runs, jobs = resolved.runs, resolved.jobs
    every: dict[str, dict[str, Evaluation]] = {}
    wanted: dict[str, dict[str, Evaluation]] = {}
    ids = grid.evaluation_ids(runs)
    for run in runs:
        for ways in (every, wanted) if only is None or grid.holds(run.cell, only) else (every,):
            ways.setdefault(run.job_id, {})[ids[run.cell.id]] = run.cell.recipe.evaluation
    work, failed, left_out = [], [], 0
    for job in jobs:
        folder = store.job(job.id)
        is_evaluated = not _missing(folder, every[job.id])
        standing = state(folder, is_evaluated=is_evaluated)
        if standing.stage() == "diverged" or (standing.is_trained and is_evaluated):
            continue
        missing = _missing(folder, wanted.get(job.id, {}))
        if job.id not in wanted or (standing.is_trained and not missing):
            left_out += 1
        elif standing.stage() == "crashed" and not retry_failed:
            failed.append(job)
        else:
            work.append(Work(job, missing, trained=standing.is_trained))
    trials = tunings.left(resolved.tuning, study.search, store)
    todo = [(item.job.recipe, item.job.data, 0 if item.trained else 1, item.evaluations) for item in work]
    cost = _cost([*todo, *((recipe, data, count, ()) for recipe, data, count in trials)], store, study)
    left = sum(count for _, _, count in trials)
    renumbered = _renumbered({item.job.id for item in work if not item.trained}, store)
    return Plan(resolved, tuple(work), tuple(failed), cost, left, left_out, renumbered)


def _missing(folder: Folder, wanted: dict[str, Evaluation]) -> tuple[Evaluation, ...]:
    return tuple(e for identity, e in wanted.items() if not job_folder.is_evaluated(folder, identity))


def _renumbered(wanted: set[str], store: Store) -> dict[int, int]:
    """Return how many of these jobs were trained under another numerics version, by that version."""
    versions: dict[str, int] = {}
    for path in (store.path / "jobs").glob("*/recipe.json") if wanted else ():
        try:
            text = files.read(path).decode()
            if f'"numerics": {identities.NUMERICS},' in text:  # nearly all of them: a glance is enough
                continue
            job = JobRecipe.model_validate_json(text)
            identity = identities.job_id(job.parsed(), job.seed, job.data, job.code, job.start)
        except (
            AblateError,
            OSError,
            KeyError,
            TypeError,
            ValueError,
        ):  # gone meanwhile, spoilt, or of another version
            continue
        is_older = identity in wanted and job.numerics != identities.NUMERICS
        if is_older and Folder(path.parent).result.exists():
            versions[identity] = max(job.numerics, versions.get(identity, 0))
    return dict(Counter(versions.values()))


def _cost(
    todo: list[tuple[Recipe, str, int, tuple[Evaluation, ...]]], store: Store, study: Study
) -> Cost | None:
    """Return the cost of recipes on images, so many trainings of each, and evaluations.

    None where nothing is known of one of the networks.
    """
    if not todo:
        return None
    pace, total, is_guess = costs.read(store, study), 0.0, False
    for recipe, fingerprint, count, evaluations in todo:
        trained = costs.training(pace, recipe, fingerprint) if count else costs.NOTHING
        if trained is None:
            return None
        evaluated = [costs.evaluating(pace, recipe, fingerprint, evaluation) for evaluation in evaluations]
        total += count * trained.seconds + sum(time.seconds for time in evaluated if time is not None)
        is_guess |= trained.is_guess
    if not total:
        return None
    return Cost(
        total, "a rough guess; the first jobs will tell" if is_guess else "from finished jobs like these"
    )
