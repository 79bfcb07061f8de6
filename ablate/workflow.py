"""The story of each command as a few named steps. All wiring is here: which part is given to which."""

import os
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ablate import grid, inputs, owncode, scheduler
from ablate import plan as planning
from ablate import store as stores
from ablate import study as studies
from ablate.errors import AblateError
from ablate.executors import devices
from ablate.executors.base import Event
from ablate.interruption import Interruption
from ablate.plan import Plan
from ablate.scheduler import Ledger
from ablate.status import Status, summarise
from ablate.store import Store
from ablate.study import Study

if TYPE_CHECKING:
    from ablate.findings import Findings  # brings pandas, which `plan` and `status` can do without
    from ablate.outlook import Outlook
    from ablate.report.comparison import Comparison
    from ablate.training.models.summary import Summary  # brings torch

LONGEST_NAME = 255  # of a file; what is longer is the name of a study
WORKER, PROBE = "ablate.worker:run_job", "ablate.worker:probe"
PRELOAD = ("torch._dynamo", "torchmetrics.functional.classification", "PIL.Image", "PIL.ImageDraw", "PIL.PngImagePlugin")
"""What every worker needs, imported once in the process that they are forked from. torch's optimizers import _dynamo, for 0.9 s."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where and how to run: nothing that changes what is trained."""

    store: Store
    tracking_uri: str | None = None
    device: str = "auto"
    jobs: int | None = None
    jobs_per_gpu: int | None = 1  # none: as many as a probe finds best


@dataclass(frozen=True, slots=True)
class Ran:
    """What `ablate run` leaves behind."""

    plan: Plan
    ledger: Ledger
    findings: "Findings"
    report: Path
    late: int  # runs that MLflow does not have yet
    late_reason: str


class Screen(Protocol):
    """What a command shows while it works; display.py has the terminal's."""

    def notice(self, text: str) -> None:
        """Say something once."""

    def start(self, plan: Plan, slots: int) -> None:
        """Begin to follow jobs."""

    def event(self, event: Event) -> None:
        """Follow a job."""

    def stop(self) -> None:
        """Leave the terminal as it was."""


def load(text: str, sets: tuple[str, ...], store: Store) -> Study:
    """Read a STUDY argument: a file, with its `--set`s, or the name of a study in the store, as it was last run.

    Raises a StudyError with every mistake, or a StoreError when there is no such file or study.
    """
    path = Path(text)
    if path.suffix == ".toml" or (len(path.name) < LONGEST_NAME and path.is_file()):
        return studies.load(path, sets)
    if sets:
        raise AblateError(f'--set changes a study file, and "{text}" is a study of the store: name its file')
    return stores.recall(store, text)


def plan(study: Study, where: Where, *, retry_failed: bool = False, check: bool = False) -> Plan:
    """Say what is left to do. Only the store is read: images that were never decoded count as without finished jobs.

    `check`: build the networks of which only that shows whether the recipe can be had, which takes torch and seconds.
    """
    _refuse_search(study)
    known = inputs.read(study, where.store, where.device)
    expanded = grid.expand(study, precision=known.precision)
    if check:
        inputs.check_networks(study, expanded, where.store)
    return planning.make(study, expanded, where.store, known.fingerprint, known.code, retry_failed=retry_failed)


def outlook(todo: Plan, where: Where) -> "Outlook | None":
    """Say what a study can see, by the noise of its own finished runs, else of another study's on the same images and metric."""
    from ablate import outlook as looking
    from ablate import runs

    study, sds, basis = todo.study, [], ""
    if todo.done:
        sds, basis = looking.noise(study, todo.grid, runs.read(todo.runs, where.store)), "from the runs that are there"
    for name in () if sds else stores.names(where.store):
        try:
            other = stores.recall(where.store, name)
        except AblateError:  # of another version, or spoilt: no matter here
            continue
        if name != study.name and looking.alike(other, study):
            theirs = plan(other, where)
            sds, basis = looking.noise(other, theirs.grid, runs.read(theirs.runs, where.store)), f"from the noise of the study {name}"
        if sds:
            break
    return looking.look(study, sds, basis, inputs.test_images(todo.grid, where.store))


def networks(todo: Plan, where: Where) -> "dict[str, Summary]":
    """Describe each different network of a plan."""
    return inputs.summaries(todo.grid, where.store)


def run(study: Study, where: Where, screen: Screen, interruption: Interruption, *, retry_failed: bool = False) -> Ran:
    """Train what is missing, keep MLflow up to date, and report. Running it again is resuming it."""
    from ablate import publishing, tracking

    _refuse_search(study)
    stores.create(where.store)
    with stores.hold(where.store, study.name):
        known = inputs.read(study, where.store, where.device)
        expanded = grid.expand(study, precision=known.precision)
        inputs.check_networks(study, expanded, where.store)
        for notice in inputs.decode(expanded, where.store):
            screen.notice(notice)
        stores.keep(where.store, study, inputs.settle(known, expanded))
        todo = planning.make(study, expanded, where.store, known.fingerprint, known.code, retry_failed=retry_failed)
        inputs.fetch_weights(work.job.recipe for work in todo.work if not work.trained)
        ledger, late, reason = _train(todo, where, screen, interruption)
        found = find(todo, where)
        path = publishing.write_page(found, where.store)
        if not late:
            reason = publishing.log(found, where.store, tracking.uri(where.store, where.tracking_uri), path)
    return Ran(todo, ledger, found, path, late, reason)


def _refuse_search(study: Study) -> None:
    if study.search is not None:
        raise AblateError(f"{study.source}: search: is read and checked, and this version cannot run it yet: take [search] out")


def _train(todo: Plan, where: Where, screen: Screen, interruption: Interruption) -> tuple[Ledger, int, str]:
    """Run the work while a thread keeps MLflow up to date; give what became of it, and what MLflow still lacks and why."""
    from ablate import tracking
    from ablate.executors.local import LocalExecutor

    shown = tracking.tracked(todo.study, todo.runs, where.store)
    writer = tracking.Writer(tracking.uri(where.store, where.tracking_uri), todo.study, shown, where.store, screen.notice)
    ledger = Ledger()
    try:
        for job in todo.jobs:
            writer.touch(job.id)  # what an earlier command, or another study, has left to send
        if todo.work:
            threads = max(work.job.recipe.training.threads for work in todo.work)
            extra = _extra(todo)
            sharing = _jobs_per_gpu(todo, where, extra, screen, interruption)
            slots = devices.slots(where.device, where.jobs, threads, sharing)[: len(todo.work)]
            extra["jobs_a_device"] = max(Counter(slot.name for slot in slots).values())
            screen.start(todo, len(slots))

            def listen(event: Event) -> None:
                screen.event(event)
                writer.touch(event.task)

            def interrupted() -> bool:
                return interruption.asked(screen.notice)

            with closing(LocalExecutor(WORKER, slots, PRELOAD)) as executor:
                ledger = scheduler.run(todo.work, where.store, executor, extra=extra, interrupted=interrupted, listen=listen)
    finally:
        screen.stop()
        sent = writer.close()
    return ledger, sent.late, sent.error


def _extra(todo: Plan) -> dict[str, Any]:
    """Give what every job's payload has besides its own."""
    from ablate import provenance

    return {
        "git": provenance.git(Path.cwd()),
        "compile_cache": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(_compiled())),
        "code": owncode.folders(todo.study.folder) if todo.study.folder else None,
    }


def _compiled() -> Path:
    """Name the folder of what torch has compiled: the user's own, as torch unpickles what it finds there and a store may be shared."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ablate" / "compiled"


def _jobs_per_gpu(todo: Plan, where: Where, extra: dict[str, Any], screen: Screen, interruption: Interruption) -> int:
    """Say how many jobs share a GPU; where that is to be measured, by the first job that is left to train."""
    work = next((work for work in todo.work if not work.trained), None)
    first = devices.slots(where.device, 1)[0]
    if where.jobs_per_gpu is not None or where.jobs is not None or work is None:
        return where.jobs_per_gpu or 1
    if first.device == "cpu":
        screen.notice("--jobs-per-gpu auto: there is no GPU to probe; jobs get a CPU core each")
        return 1
    from ablate import capacity

    payload = extra | {
        "recipe": work.job.recipe.model_dump(mode="json"), "seed": work.job.seed, "data": str(where.store.data / work.job.data),
        "device_wide": True, "log": str(where.store.path / "probe.log"),
    }  # fmt: skip
    jobs, said = capacity.probe(PROBE, first, PRELOAD, payload, lambda: interruption.asked(screen.notice))
    screen.notice(said)
    return jobs


def report(study: Study, where: Where, metric: str | None = None, cells: tuple[str, ...] = ()) -> "Findings":
    """Compute the findings of a study from what its store has; `cells`: labels of those that are shown from inside."""
    from ablate import metrics
    from ablate.mistakes import unknown

    if metric is not None and metric != study.metric and metrics.direction(metric) is None:
        raise AblateError(f"--metric: {unknown(metric, 'a known metric', metrics.METRICS)}")
    todo = plan(study, where)
    _check_cells(todo, cells)
    return find(todo, where, metric, cells)


def _check_cells(todo: Plan, labels: tuple[str, ...]) -> None:
    from ablate.mistakes import unknown

    known = [cell.label for cell in todo.grid.cells]
    for label in labels:
        if label not in known:
            raise AblateError(f"--cell: {unknown(label, 'a cell of this study', known)}")


def compare(studies: tuple[Study, ...], cells: tuple[str, ...], where: Where, metric: str | None = None) -> "Comparison":
    """Put two studies, or two cells of one, side by side. Raises an AblateError where there are not two of either."""
    from ablate.report import comparison

    found = [report(study, where, metric) for study in studies]
    if len(found) == 2 and not cells:
        return comparison.of_studies(*found)
    if len(found) != 1 or len(cells) != 2 or cells[0] == cells[1]:
        raise AblateError("compare needs two studies, or one study and two different cells: --cell LABEL --cell LABEL")
    return _compare_cells(studies[0], found[0], cells, where)


def _compare_cells(study: Study, found: "Findings", labels: tuple[str, ...], where: Where) -> "Comparison":
    from ablate import effects, runs
    from ablate.report import comparison

    todo = plan(study, where)
    _check_cells(todo, labels)
    known = {cell.cell.label: cell for cell in found.cells}
    table = effects.tabulate(study, todo.grid, runs.read(todo.runs, where.store), found.metric, found.direction)
    one, other = (known[label] for label in labels)
    return comparison.of_cells(found, one, other, effects.between(table, one.cell, other.cell))


def status(study: Study, where: Where) -> Status:
    """Say how far a study is."""
    from ablate import runs

    return summarise(runs.read(plan(study, where).runs, where.store))


def ui(where: Where, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Give the command that serves MLflow's page on the store, and its environment."""
    from ablate import tracking

    address = tracking.uri(where.store, where.tracking_uri)
    if address.startswith(("http://", "https://")):
        raise AblateError(f"MLflow is served at {tracking.public(address)} already: open that address")
    if address == f"sqlite:///{where.store.database}" and not where.store.database.exists():
        raise AblateError(f"{where.store.path} has no runs yet: start a study with ablate run, or name another store with --store DIR")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port), "--workers", "1"]
    environment = {
        "MLFLOW_BACKEND_STORE_URI": address,  # not an argument, which `ps` would show with its password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 8 processes for GenAI features that nobody needs here
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return command, os.environ | environment


def find(todo: Plan, where: Where, metric: str | None = None, cells: tuple[str, ...] = ()) -> "Findings":
    """Read the runs of a plan, and compute what they say."""
    from ablate import findings, runs

    return findings.find(todo.study, todo.grid, runs.read(todo.runs, where.store), metric=metric, looked_into=cells)


def sync(study: Study, where: Where) -> int:
    """Bring MLflow up to date with the journals of a study; give the number of its runs.

    Raises an AblateError with the reason when MLflow cannot take them.
    """
    from ablate import publishing, tracking

    todo, address = plan(study, where), tracking.uri(where.store, where.tracking_uri)
    stores.create(where.store)
    with stores.hold(where.store, study.name):
        try:
            tracking.sync(address, study, tracking.tracked(study, todo.runs, where.store), where.store)
        except Exception as error:  # whatever a server does: one sentence says it
            reason = tracking.first_line(error)
            raise AblateError(f"MLflow at {tracking.public(address)} does not take the runs: {reason}") from error
        found = find(todo, where)
        reason = publishing.log(found, where.store, address, publishing.write_page(found, where.store))
    if reason:
        raise AblateError(f"MLflow has the runs, and did not take the report: {reason}")
    return len(todo.runs)
