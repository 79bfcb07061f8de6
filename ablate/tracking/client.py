"""Records to MLflow: the connection, the experiment, what it has already, and what is sent.

The only file with mlflow.
"""

import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from filelock import FileLock

from ablate.errors import StoreError
from ablate.store import files as store_files
from ablate.store import job_folder, layout
from ablate.store.layout import Store
from ablate.study.file import Study
from ablate.tracking import agreement, sent, view
from ablate.tracking.addresses import is_served, own, sqlite
from ablate.tracking.facts import Images
from ablate.tracking.keys import LONGEST as LONGEST_KEY
from ablate.tracking.keys import key as _key
from ablate.tracking.keys import shortened
from ablate.tracking.records import Line, Record, RunSource, Source, last_sign
from ablate.tracking.sent import Sent

LONGEST = 7900  # characters of a note or tag: MLflow cuts at 8000 and only warns


class MovedError(StoreError):
    """MLflow's database was made for another path."""


def sync(address: str, study: Study, sources: Sequence[Source], store: Store) -> None:
    """Bring MLflow up to date with the store now. Raises what MLflow raises."""
    mlflow = Mlflow(address, study, store, frozenset(one.key for one in sources))
    for one in sources:
        mlflow.send(one, closing=True, again=True)


def log_study(address: str, study: Study, store: Store, *, note: str, files: Sequence[Path]) -> None:
    """Put the report and what belongs to it on the study's own run, with the verdicts in its note.

    Raises what MLflow raises.
    """
    Mlflow(address, study, store, frozenset()).log_study(note[:LONGEST], files)


def shown(address: str, study: Study, store: Store) -> dict[str, Any]:
    """Return the runs that MLflow has of a study of this store, as its own objects by key.

    Nothing is made or changed there.

    Raises what MLflow raises, and a MovedError where the database was made for another path.

    """
    if not (store.path / "id").exists():
        return {}
    client = _client(address)
    found = client.get_experiment_by_name(_name(address, study.name))
    if found is None or found.lifecycle_stage == "deleted":
        return {}
    if not is_served(address):
        _check_place(found.artifact_location, _place(study, store))
    runs = _search(client, found.experiment_id, f"tags.`ablate.store` = '{layout.identity(store)}'")
    return {run.data.tags["ablate.key"]: run for run in runs if "ablate.key" in run.data.tags}


def pages(address: str, names: Sequence[str]) -> dict[str, str]:
    """Return where MLflow's page shows each of these studies, below its own address.

    Raises what MLflow raises.
    """
    client = _client(address)
    found = ((name, client.get_experiment_by_name(_name(address, name))) for name in names)
    return {
        name: view.page(one.experiment_id, one.tags)
        for name, one in found
        if one is not None and one.lifecycle_stage == "active"
    }


@dataclass(slots=True)
class Mlflow:
    """A client with an experiment, connected at first use."""

    address: str
    study: Study
    store: Store
    keys: frozenset[str] | None  # of the sources that the study has now; none: they are not all known
    _client: Any = None
    _experiment: str = ""
    _known: dict[str, Sent] | None = None

    def _connect(self) -> Any:
        if self._client is None:
            served = is_served(self.address)
            artifacts = None if served else _place(self.study, self.store)
            # Two studies that start at once make one database; a server has its own, and may let us wait.
            with nullcontext() if served else FileLock(self.store.path / "mlflow.lock"):
                _make_database(self.address, self.store)
                client = _client(self.address)  # this, too, would make the database
                self._experiment = _experiment(
                    client, _name(self.address, self.study.name), artifacts, self.study
                )
            self._client = client
        return self._client

    def forget(self) -> None:
        """Look again at everything before the next send."""
        self._client = self._known = None

    def running(self) -> set[str]:
        """Return the keys of the sources of which MLflow shows anything as running."""
        return {_source(key) for key, sent in (self._known or {}).items() if sent.status == "RUNNING"}

    def send(self, source: Source, *, closing: bool, again: bool = False) -> None:
        """Send what a source has that MLflow has not.

        `closing` ends what does not go on, `again` asks of what has finished, too.
        """
        runs = self._runs()
        label = source.run.cell.label if isinstance(source, RunSource) else None

        def is_done(key: str) -> bool:
            known = runs.get(key)
            if (
                again or known is None or known.tags.get("ablate.cell") != label
            ):  # an earlier version may have called it otherwise
                return False
            return known.status == "FINISHED" and known.tags.get("ablate.layout") == sent.LAYOUT

        for record in source.records(closing=closing, is_done=is_done):
            self._send(record, runs)

    def _runs(self) -> dict[str, Sent]:
        """List the runs that MLflow has of this store, by key.

        Those that the study no longer has are put out of sight, and ended.
        """
        if self._known is None:
            client, known = self._connect(), {}
            own = f"tags.`ablate.store` = '{layout.identity(self.store)}'"
            for run in list(
                _search(client, self._experiment, own)
            ):  # all pages first: what is deleted moves those that follow
                key = run.data.tags.get("ablate.key", "")
                if not key:  # the study's own
                    continue
                if key in known:  # a server that answered too late made it although it was given up
                    client.delete_run(run.info.run_id)
                    continue
                known[key] = sent.read(run)
                if self.keys is None:
                    self._end_orphan(client, known[key], run.data.tags)
                elif _source(key) not in self.keys:
                    sent.hide(client, known.pop(key))
                elif "ablate.stale" in run.data.tags:  # of a version that only marked it, or amid a kill
                    client.delete_tag(run.info.run_id, "ablate.stale")
            if self.keys is not None:
                self._restore(client, known, f"{own} and tags.`ablate.stale` = 'true'", self.keys)
            self._known = known
        return self._known

    def _restore(self, client: Any, known: dict[str, Sent], hidden: str, keys: frozenset[str]) -> None:
        """Bring back the runs that the study has again."""
        for run in list(_search(client, self._experiment, hidden, hidden=True)):
            key = run.data.tags.get("ablate.key", "")
            if _source(key) in keys and key not in known:
                client.restore_run(run.info.run_id)
                client.delete_tag(run.info.run_id, "ablate.stale")
                known[key] = sent.read(run)

    def _end_orphan(self, client: Any, run: Sent, tags: Mapping[str, str]) -> None:
        """End a run of the grid that nobody trains any more, while the stage before the grid goes on for hours."""
        folder = self.store.job(tags.get("ablate.job", ""))
        if (
            run.status == "RUNNING"
            and tags["ablate.kind"] == "run"
            and folder.attempts.exists()
            and not job_folder.is_running(folder)
        ):
            client.set_terminated(run.run_id, "KILLED", last_sign(folder))
            run.status = "KILLED"

    def _send(self, record: Record, runs: dict[str, Sent]) -> None:
        client, known, state = self._connect(), runs.get(record.key), record.state
        tags, replaced = self._tags(record), ""
        if known is not None and sent.is_other(client, known, record, tags):
            client.delete_run(known.run_id)
            replaced, known = known.run_id, None
        was_ended = (
            known is not None
            and state.status != "RUNNING"
            and (known.status, known.ended) == (state.status, state.ended)
        )
        if known is None:
            known = runs[record.key] = self._create(client, record, tags, runs)
            for child in [
                run for run in runs.values() if replaced and run.tags.get("mlflow.parentRunId") == replaced
            ]:
                client.set_tag(child.run_id, "mlflow.parentRunId", known.run_id)
                child.tags["mlflow.parentRunId"] = known.run_id
        else:
            sent.rename(client, known, record, tags)
            if known.status not in ("RUNNING", state.status):
                client.update_run(known.run_id, status="RUNNING")
        _log_values(client, known, record, tags, was_ended=was_ended)
        if record.images is not None and not known.has_images:
            _log_images(client, known.run_id, record.images)
            known.has_images = True
        if state.status != "RUNNING" and not was_ended:  # its status is set last: all else is there
            _log_artifacts(self.address, known, record)
            client.set_terminated(known.run_id, state.status, state.ended)
        known.status, known.ended = state.status, state.ended

    def _tags(self, record: Record) -> dict[str, str]:
        """Return all tags of a run but those that people may write: its note."""
        tags = {
            "ablate.kind": record.kind, "ablate.study": self.study.name, "ablate.key": record.key,
            "ablate.store": layout.identity(self.store), "ablate.layout": sent.LAYOUT,
            "ablate.status": record.state.word, "mlflow.source.name": self.study.source,
            "mlflow.source.type": "LOCAL", **record.tags,
        } | ({"ablate.attempt": str(record.attempts)} if record.attempts else {})  # fmt: skip
        return {name: shortened(value, LONGEST) for name, value in tags.items()}

    def _create(self, client: Any, record: Record, tags: Mapping[str, str], runs: dict[str, Sent]) -> Sent:
        more = {"mlflow.parentRunId": runs[record.parent].run_id} if record.parent else {}
        if note := self._note(record):
            more["mlflow.note.content"] = note
        name = shortened(record.name, LONGEST_KEY)
        return sent.read(
            client.create_run(
                self._experiment, start_time=record.started, tags={**tags, **more}, run_name=name
            )
        )

    def _note(self, record: Record) -> str:
        """Put the link first, as what is too long is cut, behind a whole line."""
        link = (
            "[All runs of this "
            f"cell](#/experiments/{self._experiment}/runs?searchFilter={quote(record.alike, safe='')})"
        )
        note = f"{link}\n\n{record.note}" if record.alike else record.note
        return note if len(note) <= LONGEST else note[:LONGEST].rpartition("\n")[0]

    def log_study(self, note: str, files: Sequence[Path]) -> None:
        """Write the study's run, one for each study, made at its first report."""
        client = self._connect()
        identity = layout.identity(self.store)
        found = list(
            _search(
                client,
                self._experiment,
                f"tags.`ablate.kind` = 'study' and tags.`ablate.store` = '{identity}'",
            )
        )
        tags = {
            "ablate.kind": "study", "ablate.study": self.study.name, "ablate.store": identity,
            "mlflow.note.content": note, "mlflow.source.name": self.study.source,
            "mlflow.source.type": "LOCAL",
        }  # fmt: skip
        if found:
            run_id = found[0].info.run_id
            client.set_tag(run_id, "mlflow.note.content", note)
        else:
            run_id = client.create_run(
                self._experiment, start_time=self._began(client), tags=tags, run_name="report"
            ).info.run_id
        for path in files:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, end_time=self._edge(client, "end_time DESC", "status != 'RUNNING'"))

    def _began(self, client: Any) -> int | None:
        """Return the start of the study's own run, in ms, as it was when that was first made, here or in a database that was lost."""
        path = self.store.study(self.study.name) / "began.json"
        known = store_files.read_json(path)
        began: int | None = (
            known["timestamp"] if known else self._edge(client, "start_time ASC", "status != 'SCHEDULED'")
        )
        if known is None and began is not None:
            store_files.write_json(path, {"timestamp": began}, durable=False)
        return began

    def _edge(self, client: Any, order: str, condition: str) -> int | None:
        """Return the first start or the last end of what the study has in MLflow, in ms.

        None where it has nothing.
        """
        asked = (
            f"{condition} and tags.`ablate.kind` != 'study' and tags.`ablate.store` = "
            f"'{layout.identity(self.store)}'"
        )
        for run in _search(client, self._experiment, asked, order=[f"attributes.{order}"], page_size=20):
            if "ablate.stale" not in run.data.tags:
                found: int | None = getattr(run.info, order.split(maxsplit=1)[0])
                return found
        return None


def _source(key: str) -> str:
    """Return the key of the source of a record: a search's, where the record is one of its trials."""
    return key.partition("/trial/")[0]


def _client(address: str) -> Any:
    """Import MLflow, quietly, and connect. Its telemetry is off unless the user has decided otherwise."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        # 7 by default: minutes of silence when a server is away. The writer tries again by itself, and first
        # looks at what has arrived: MLflow would repeat a request whose answer was late, and so make a run
        # twice.
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),  # seconds; 120 by default
        (
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT",
            "true",
        ),  # two lines for every run, each with a request of its own
    ):
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for noisy in ("alembic", "mlflow"):  # after the import, which sets levels of its own
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # what fails is said in a sentence
    return MlflowClient(tracking_uri=address)


def _make_database(address: str, store: Store) -> None:
    """Make the store's own database whole or not at all: a kill amid MLflow's migrations would leave one that nobody can use."""
    database = store.database
    if address != own(store) or database.exists():
        return
    for left in database.parent.glob(f".{database.name}.*"):
        left.unlink()
    draft = database.with_name(f".{database.name}.{os.getpid()}")
    _client(sqlite(draft)).search_experiments(max_results=1)
    layout.identity(store)  # a file as the umask wants it: SQLite makes its own for one user alone
    draft.chmod(stat.S_IMODE((store.path / "id").stat().st_mode))
    draft.replace(database)


def _place(study: Study, store: Store) -> str:
    """Return where the artifacts of a study belong, where no server says so."""
    return (store.artifacts / store.study(study.name).name).as_uri()


def _folder(address: str) -> str:
    """Return the folder that an address of artifacts names, links followed."""
    return os.path.realpath(unquote(address.removeprefix("file://")))


def _check_place(found: str, wanted: str) -> None:
    if found != wanted and _folder(found) != _folder(wanted):  # a store may be seen by several paths
        raise MovedError(
            f"MLflow's database was made for {found}, and this study's artifacts belong in {wanted}: "
            "where the store was moved or copied, delete its mlflow.db and run ablate sync for each study"
        )


def _name(address: str, study: str) -> str:
    """Return the name of a study's experiment: its own, but that MLflow itself makes one called Default, with artifacts elsewhere."""
    is_taken = not is_served(address) and re.fullmatch(r"Default( \(study\))*", study)
    return f"{study} (study)" if is_taken else study


def _experiment(client: Any, name: str, artifacts: str | None, study: Study) -> str:
    """Find or make the experiment of a study, with what its page shows.

    One that was deleted in the UI is brought back.

    Raises a MovedError when its artifacts would go elsewhere: MLflow fixes their absolute place when it makes
    an experiment.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        found = client.get_experiment(client.create_experiment(name, artifact_location=artifacts))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if artifacts is not None:
        _check_place(found.artifact_location, artifacts)
    for tag, value in view.tags(study, found.creation_time or 0).items():
        if found.tags.get(tag) != value:
            client.set_experiment_tag(found.experiment_id, tag, value)
    return str(found.experiment_id)


def _search(
    client: Any,
    experiment: str,
    condition: str,
    *,
    order: Sequence[str] = (),
    page_size: int = 1000,
    hidden: bool = False,
) -> Iterator[Any]:
    from mlflow.entities import ViewType

    token, kind = None, ViewType.DELETED_ONLY if hidden else ViewType.ACTIVE_ONLY
    while True:
        page = client.search_runs(
            [experiment], condition, kind, max_results=page_size, page_token=token, order_by=list(order)
        )
        yield from page
        token = page.token
        if not token:
            return


def _log_values(client: Any, known: Sent, record: Record, tags: dict[str, str], *, was_ended: bool) -> None:
    """Send what is not there of params, metrics and tags, all at once: each request takes the database three transactions.

    A killed process may have left no params, some are known only at the end, and one of an older version lacks some.
    """
    from mlflow.entities import Param, RunTag

    missing = {name: value for name, value in agreement.params(record).items() if name not in known.params}
    new = [
        metric
        for before, each in record.lines.items()
        for line in each[known.lines.get(before, 0) :]
        for metric in _metrics(before, line)
    ]
    new += [metric for line in record.end for metric in _metrics("", line)]
    if was_ended:
        new = [metric for metric in new if metric.key not in known.metrics]
    changed = [RunTag(name, value) for name, value in tags.items() if known.tags.get(name) != value]
    if missing or new or changed:
        client.log_batch(
            known.run_id,
            metrics=new,
            params=[Param(name, value) for name, value in missing.items()],
            tags=changed,
        )
    known.params |= missing
    known.metrics |= {metric.key: metric.value for metric in new}
    known.lines = {before: len(each) for before, each in record.lines.items()}
    known.tags |= tags


def _log_images(client: Any, run_id: str, images: Images) -> None:
    """Log the data set that a run was trained on: its name and digest, none of its images."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    described = Dataset(images.name, images.digest, images.kind, images.source, profile=images.profile)
    client.log_inputs(run_id, [DatasetInput(described, tags=[InputTag("mlflow.data.context", "training")])])


def _log_artifacts(address: str, known: Sent, record: Record) -> None:
    """Log texts and files in one go, through a folder of links: one by one they took the writer a fifth of its time.

    Not by the client, which would ask for the run again to know where they go.
    """
    if not record.texts and not record.files:
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with tempfile.TemporaryDirectory() as name:
        held = Path(name)
        for file, text in record.texts.items():
            (held / file).write_text(text, encoding="utf-8")
        for path, folder in record.files:
            (held / folder).mkdir(exist_ok=True)
            (held / folder / path.name).symlink_to(path)
        get_artifact_repository(known.artifacts, tracking_uri=address).log_artifacts(str(held))  # type: ignore[no-untyped-call]


def _metrics(before: str, line: Line) -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(_key(before + name), value, line.timestamp, line.step) for name, value in line.metrics.items()
    ]
