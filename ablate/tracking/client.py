"""Records to MLflow: the connection, the experiment, what it has already, and what is sent. The only file with mlflow."""

import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from filelock import FileLock

from ablate import journal
from ablate import store as stores
from ablate.errors import StoreError
from ablate.store import Store
from ablate.study import Study
from ablate.tracking.records import Line, Record, Source, last_sign

LONGEST_REASON = 800  # characters of an error
LONGEST = 7900  # characters of a note: MLflow cuts at 8000 and only warns
CHANGING = ("ablate.status", "ablate.attempt")  # the tags that change while a run is running
LONGEST_KEY = 250  # characters of a metric's or a param's name: MLflow refuses longer ones


class MovedError(StoreError):
    """MLflow's database was made for another path."""


def uri(store: Store, given: str | None) -> str:
    """Say where MLflow is: as given, else MLFLOW_TRACKING_URI, else the store's own SQLite file."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.database}"


def public(text: str) -> str:
    """Write an address, or a message that holds one, without its password."""
    named = re.sub(r"://([^/@\s:]*):\S*@", r"://\1:***@", text)  # up to the last @: a password may have one, and slashes
    alone = re.sub(r"://[^/@\s:]+@", "://***@", named)  # a token
    return re.sub(r"([?&][^=&\s]*(?:password|passwd|token|secret|key)[^=&\s]*=)[^&\s]*", r"\1***", alone, flags=re.IGNORECASE)


def first_line(error: Exception) -> str:
    """Shorten an error to its first line that says something; SQLAlchemy's starts with advice to programmers in brackets."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result")]
    return public((lines or [type(error).__name__])[0][:LONGEST_REASON])


def sync(address: str, study: Study, sources: Sequence[Source], store: Store) -> None:
    """Bring MLflow up to date with the store now. Raises what MLflow raises."""
    mlflow = Mlflow(address, study, store, frozenset(one.key for one in sources))
    for one in sources:
        mlflow.send(one, closing=True)


def log_study(address: str, study: Study, store: Store, *, note: str, files: Sequence[Path]) -> None:
    """Put the report and what belongs to it on the study's own run, with the verdicts in its note. Raises what MLflow raises."""
    Mlflow(address, study, store, frozenset()).log_study(note[:LONGEST], files)


def shown(address: str, study: Study, store: Store) -> dict[str, Any]:
    """Give the runs that MLflow has of a study of this store, as its own objects by key; nothing is made or changed there.

    Raises what MLflow raises, and a MovedError where the database was made for another path.
    """
    if not (store.path / "id").exists():
        return {}
    client = _client(address)
    found = client.get_experiment_by_name(study.name)
    if found is None or found.lifecycle_stage == "deleted":
        return {}
    if not address.startswith(("http://", "https://")):
        _check_place(found.artifact_location, _place(study, store))
    runs = _search(client, found.experiment_id, f"tags.`ablate.store` = '{stores.identity(store)}'")
    return {run.data.tags["ablate.key"]: run for run in runs if "ablate.key" in run.data.tags}


def latest(record: Record) -> dict[str, float]:
    """Give the last value of every metric of a record, under the name that MLflow takes."""
    said = [
        (line, _key(before + name), value) for before, each in record.lines.items() for line in each for name, value in line.metrics.items()
    ]
    said += [(record.end, _key(name), value) for name, value in record.end.metrics.items()] if record.end is not None else []
    return {name: value for _, name, value in sorted(said, key=lambda one: (one[0].step, one[0].timestamp))}


@dataclass(slots=True)
class _Sent:
    """How much of a run is in MLflow."""

    run_id: str
    params: set[str] = field(default_factory=set)  # their names: a param is written once
    status: str = "RUNNING"
    ended: int | None = None
    tags: dict[str, str] = field(default_factory=dict)  # those that change while it runs
    lines: dict[str, int] = field(default_factory=dict)  # as far as this process knows: sending more changes nothing


@dataclass(slots=True)
class Mlflow:
    """A client with an experiment, connected at first use."""

    address: str
    study: Study
    store: Store
    keys: frozenset[str] | None  # of the sources that the study has now; none: they are not all known
    _client: Any = None
    _experiment: str = ""
    _known: dict[str, _Sent] | None = None

    def _connect(self) -> Any:
        if self._client is None:
            served = self.address.startswith(("http://", "https://"))  # then the server says where artifacts go
            artifacts = None if served else _place(self.study, self.store)
            # Two studies that start at once make one database; a server has its own, and may let us wait.
            with nullcontext() if served else FileLock(self.store.path / "mlflow.lock"):
                _make_database(self.address, self.store)
                client = _client(self.address)  # this, too, would make the database
                self._experiment = _experiment(client, self.study.name, artifacts)
            self._client = client
        return self._client

    def forget(self) -> None:
        """Look again at everything before the next send."""
        self._client = self._known = None

    def running(self) -> set[str]:
        """Give the keys of the sources of which MLflow shows anything as running."""
        return {_source(key) for key, sent in (self._known or {}).items() if sent.status == "RUNNING"}

    def send(self, source: Source, *, closing: bool) -> None:
        """Send what a source has that MLflow has not; `closing` ends what does not go on."""
        runs = self._runs()
        for record in source.records(closing=closing, is_done=lambda key: key in runs and runs[key].status == "FINISHED"):
            self._send(record, runs)

    def _runs(self) -> dict[str, _Sent]:
        """List the runs that MLflow has of this store, by key; those that the study no longer has are marked and ended."""
        if self._known is None:
            client, known = self._connect(), {}
            for run in _search(client, self._experiment, f"tags.`ablate.store` = '{stores.identity(self.store)}'"):
                tags, info = run.data.tags, run.info
                key, is_stale = tags.get("ablate.key", ""), "ablate.stale" in tags
                if not key:  # the study's own
                    continue
                if key in known:  # a server that answered too late made it although it was given up
                    client.delete_run(info.run_id)
                    continue
                kept = {name: tags[name] for name in CHANGING if name in tags}
                known[key] = _Sent(info.run_id, set(run.data.params), info.status, info.end_time, kept)
                if self.keys is None:
                    self._end_orphan(client, known[key], tags)
                    continue
                if _source(key) not in self.keys and not is_stale:
                    client.set_tag(info.run_id, "ablate.stale", "true")
                    if info.status == "RUNNING":
                        client.set_terminated(info.run_id, "KILLED")
                elif _source(key) in self.keys and is_stale:
                    client.delete_tag(info.run_id, "ablate.stale")
            self._known = known
        return self._known

    def _end_orphan(self, client: Any, run: _Sent, tags: Mapping[str, str]) -> None:
        """End a run of the grid that nobody trains any more, while the stage before the grid goes on for hours."""
        folder = self.store.job(tags.get("ablate.job", ""))
        if run.status == "RUNNING" and tags["ablate.kind"] == "run" and folder.attempts.exists() and not journal.is_running(folder):
            client.set_terminated(run.run_id, "KILLED", last_sign(folder))
            run.status = "KILLED"

    def _send(self, record: Record, runs: dict[str, _Sent]) -> None:
        client, known, state = self._connect(), runs.get(record.key), record.state
        tags = {"ablate.status": state.word} | ({"ablate.attempt": str(record.attempts)} if record.attempts else {})
        if known is not None and record.attempts and tags != known.tags and _is_set_back(client, known.run_id, record):
            client.delete_run(known.run_id)
            known = None
        if known is None:
            known = runs[record.key] = _Sent(self._create(client, record, tags, runs), tags=tags)
        elif state.status != "RUNNING" and (known.status, known.ended, known.tags) == (state.status, state.ended, tags):
            return  # its status is set last: all else is there
        elif known.status not in ("RUNNING", state.status):
            client.update_run(known.run_id, status="RUNNING")
        _log_values(client, known, record, tags)
        if state.status != "RUNNING":
            _log_artifacts(client, known.run_id, record)
            client.set_terminated(known.run_id, state.status, state.ended)
        known.status, known.ended = state.status, state.ended

    def _create(self, client: Any, record: Record, changing: Mapping[str, str], runs: dict[str, _Sent]) -> str:
        tags = {
            "ablate.kind": record.kind, "ablate.study": self.study.name, "ablate.key": record.key,
            "ablate.store": stores.identity(self.store), **changing, **record.tags,
        }  # fmt: skip
        if note := self._note(record):
            tags["mlflow.note.content"] = note
        if record.parent:
            tags["mlflow.parentRunId"] = runs[record.parent].run_id
        run = client.create_run(self._experiment, start_time=record.started, tags=tags, run_name=record.name)
        return str(run.info.run_id)

    def _note(self, record: Record) -> str:
        """Put the link first, as what is too long is cut, behind a whole line."""
        link = f"[All runs of this cell](#/experiments/{self._experiment}/runs?searchFilter={quote(record.alike, safe='')})"
        note = f"{link}\n\n{record.note}" if record.alike else record.note
        return note if len(note) <= LONGEST else note[:LONGEST].rpartition("\n")[0]

    def log_study(self, note: str, files: Sequence[Path]) -> None:
        """Write the study's run, one for each study, made at its first report."""
        client = self._connect()
        identity = stores.identity(self.store)
        found = list(_search(client, self._experiment, f"tags.`ablate.kind` = 'study' and tags.`ablate.store` = '{identity}'"))
        tags = {"ablate.kind": "study", "ablate.study": self.study.name, "ablate.store": identity, "mlflow.note.content": note}
        if found:
            run_id = found[0].info.run_id
            client.set_tag(run_id, "mlflow.note.content", note)
        else:
            run_id = client.create_run(self._experiment, start_time=self._began(client), tags=tags, run_name="report").info.run_id
        for path in files:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, end_time=self._edge(client, "end_time DESC", "status != 'RUNNING'"))

    def _began(self, client: Any) -> int | None:
        """Give the start of the study's own run, in ms, as it was when that was first made, here or in a database that was lost."""
        path = self.store.study(self.study.name) / "began.json"
        known = journal.read_json(path)
        began: int | None = known["timestamp"] if known else self._edge(client, "start_time ASC", "status != 'SCHEDULED'")
        if known is None and began is not None:
            journal.write_json(path, {"timestamp": began})
        return began

    def _edge(self, client: Any, order: str, condition: str) -> int | None:
        """Give the first start or the last end of what the study has in MLflow, in ms; none where it has nothing."""
        asked = f"{condition} and tags.`ablate.kind` != 'study' and tags.`ablate.store` = '{stores.identity(self.store)}'"
        for run in _search(client, self._experiment, asked, order=[f"attributes.{order}"], page_size=20):
            if "ablate.stale" not in run.data.tags:
                found: int | None = getattr(run.info, order.split(maxsplit=1)[0])
                return found
        return None


def _source(key: str) -> str:
    """Give the key of the source of a record: a search's, where the record is one of its trials."""
    return key.partition("/trial/")[0]


def _client(address: str) -> Any:
    """Import MLflow, quietly, and connect. Its telemetry is off unless the user has decided otherwise."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        # 7 by default: minutes of silence when a server is away. The writer tries again by itself, and first looks at what has
        # arrived: MLflow would repeat a request whose answer was late, and so make a run twice.
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),  # seconds; 120 by default
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),  # two lines for every run, each with a request of its own
    ):
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for noisy in ("alembic", "mlflow"):  # after the import, which sets levels of its own
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # what fails is said in a sentence
    return MlflowClient(tracking_uri=address)


def _make_database(address: str, store: Store) -> None:
    """Make the store's own database whole or not at all: a kill amid MLflow's migrations would leave one that nobody can use."""
    database = store.database
    if address != f"sqlite:///{database}" or database.exists():
        return
    for left in database.parent.glob(f".{database.name}.*"):
        left.unlink()
    draft = database.with_name(f".{database.name}.{os.getpid()}")
    _client(f"sqlite:///{draft}").search_experiments(max_results=1)
    stores.identity(store)  # a file as the umask wants it: SQLite makes its own for one user alone
    draft.chmod(stat.S_IMODE((store.path / "id").stat().st_mode))
    draft.replace(database)


def _place(study: Study, store: Store) -> str:
    """Say where the artifacts of a study belong, where no server says so."""
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


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """Find or make the experiment of a study; one that was deleted in the UI is brought back.

    Raises a MovedError when its artifacts would go elsewhere: MLflow fixes their absolute place when it makes an experiment.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if artifacts is not None:
        _check_place(found.artifact_location, artifacts)
    return str(found.experiment_id)


def _search(client: Any, experiment: str, condition: str, *, order: Sequence[str] = (), page_size: int = 1000) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], condition, max_results=page_size, page_token=token, order_by=list(order))
        yield from page
        token = page.token
        if not token:
            return


def _is_set_back(client: Any, run_id: str, record: Record) -> bool:
    """Say whether MLflow has epochs that the journal has not: a spoilt checkpoint let them be trained anew, at other times.

    MLflow forgets no point, so that such a run is made anew. Asked where a run is taken up and where it ends.
    """
    for before, lines in record.lines.items():
        points = client.get_metric_history(run_id, _key(f"{before}time/epoch_seconds"))  # every epoch has it
        if not {(one.step, one.timestamp) for one in points} <= {(line.step, line.timestamp) for line in lines}:
            return True
    return False


def _log_values(client: Any, known: _Sent, record: Record, tags: dict[str, str]) -> None:
    """Send what is not there of params, metrics and tags, all at once: each request takes the database three transactions.

    A killed process may have left no params, and some are known only at the end.
    """
    from mlflow.entities import Param, RunTag

    missing = {_key(name): value for name, value in record.params.items() if _key(name) not in known.params}
    new = [
        metric for before, each in record.lines.items() for line in each[known.lines.get(before, 0) :] for metric in _metrics(before, line)
    ]
    if record.end is not None:
        new += _metrics("", record.end)
    changed = [RunTag(name, value) for name, value in tags.items() if known.tags.get(name) != value]
    if missing or new or changed:
        client.log_batch(known.run_id, metrics=new, params=[Param(name, value) for name, value in missing.items()], tags=changed)
    known.params |= missing.keys()
    known.lines = {before: len(each) for before, each in record.lines.items()}
    known.tags = tags


def _log_artifacts(client: Any, run_id: str, record: Record) -> None:
    """Log texts and files in one go, through a folder of links: one by one they took the writer a fifth of its time."""
    if not record.texts and not record.files:
        return
    with tempfile.TemporaryDirectory() as name:
        held = Path(name)
        for file, text in record.texts.items():
            (held / file).write_text(text, encoding="utf-8")
        for path, folder in record.files:
            (held / folder).mkdir(exist_ok=True)
            (held / folder / path.name).symlink_to(path)
        client.log_artifacts(run_id, str(held))


def _metrics(before: str, line: Line) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(_key(before + name), value, line.timestamp, line.step) for name, value in line.metrics.items()]


def _key(name: str) -> str:
    """Write a metric's or a param's name as MLflow takes it."""
    return "".join(c if c.isalnum() or c in "/._- :" else "_" for c in name[:LONGEST_KEY])
