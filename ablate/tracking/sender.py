"""The sender: what a store has and MLflow lacks is sent to it, record by record."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ablate.errors import StoreError
from ablate.store import files as store_files
from ablate.store import job_folder, layout
from ablate.store import records as store_records
from ablate.store.layout import Store
from ablate.store.queue import FOLLOWED
from ablate.store.records import Began
from ablate.study.file import Study
from ablate.tracking import artifacts, experiment, sent
from ablate.tracking import client as clients
from ablate.tracking.addresses import is_served, own
from ablate.tracking.keys import LONGEST as LONGEST_KEY
from ablate.tracking.keys import shortened
from ablate.tracking.records import Record, RunSource, Source, last_sign, plain
from ablate.tracking.sent import Sent

LONGEST = 7900  # characters of a note or tag: MLflow cuts at 8000 and only warns
LONGEST_LINE = 900  # characters of one line of it, before it is escaped


def sync(address: str, study: Study, sources: Sequence[Source], store: Store) -> str:
    """Bring MLflow up to date with the store now; return the name of the experiment where it is another one.

    Raises what MLflow raises.
    """
    sender = Sender(address, study, store, frozenset(source.key for source in sources))
    wrong: StoreError | None = None
    for source in sources:
        try:
            sender.send(source, closing=True, again=True)
        except StoreError as error:  # of this one job, whose files are not ours: the others are sent
            wrong = wrong or error
    if wrong is not None:
        raise wrong
    return sender.name


def renamed(study: str, name: str) -> str:
    """Return the note that the experiment of a study has another name than the study."""
    return f"MLflow has an experiment {study} that is not this store's: the runs of this one are in {name}"


def log_study(
    address: str, study: Study, store: Store, *, lines: Sequence[str], files: Sequence[Path]
) -> None:  # fmt: skip
    """Log the report and its files to the study's own run, with the lines of its verdicts as its note.

    Raises what MLflow raises.
    """
    page = os.environ.get(FOLLOWED, "")
    link = [f"[The study in ablate]({page})"] if page.startswith(("http://", "https://")) else []
    note = "\n\n".join([*link, *(plain(line, LONGEST_LINE) for line in lines)])
    Sender(address, study, store, frozenset()).log_study(_cut(note), files)


def _cut(note: str) -> str:
    """Return a note that MLflow takes: one that is too long is cut after a whole line."""
    return note if len(note) <= LONGEST else note[:LONGEST].rpartition("\n")[0]


@dataclass(slots=True)
class Sender:
    """A client with an experiment, connected at first use, and what it knows that MLflow has."""

    address: str
    study: Study
    store: Store
    keys: frozenset[str] | None  # of the sources that the study has now; None: not all are known
    _client: Any = None
    name: str = ""  # of the experiment where it has not the study's
    _experiment: str = ""
    _place: Path | None = None  # of the artifacts in the store; none where they go elsewhere
    _known: dict[str, Sent] | None = None
    _store: str = ""  # its id, once it was read

    def _identity(self) -> str:
        """Return the id of the store, which every run has: read once."""
        self._store = self._store or layout.identity(self.store)
        return self._store

    def _connect(self) -> Any:
        if self._client is None:
            # Two studies that start at once make one database; a server has its own, and may be slow.
            served = is_served(self.address)
            with nullcontext() if served else store_files.lock(self.store.path / "mlflow.lock"):
                experiment.make_database(self.address, self.store)
                client = clients.connect(self.address)  # this, too, would make the database
                there = experiment.find_or_make(client, self.address, self.study, self.store)
            self._experiment = str(there.experiment_id)
            self.name = "" if there.name == self.study.name or self.address == own(self.store) else there.name
            place = experiment.folder(self.study, self.store)
            is_here = artifacts.local(there.artifact_location) == os.path.realpath(place)
            self._place = place if is_here and not served else None
            self._client = client
        return self._client

    def forget(self) -> None:
        """Forget what MLflow has: it is looked up again before the next send."""
        self._client = self._known = None

    def look(self) -> None:
        """Look up what MLflow has; a run that it has twice is removed."""
        self.forget()
        self._runs()

    def running(self) -> set[str]:
        """Return the keys of the sources of which MLflow shows anything as running."""
        return {_source(key) for key, sent in (self._known or {}).items() if sent.status == "RUNNING"}

    def send(self, source: Source, *, closing: bool, again: bool = False) -> None:
        """Send what a source has and MLflow lacks.

        `closing` ends runs that no process trains; `again` includes finished ones.
        """
        runs = self._runs()
        label = source.run.cell.label if isinstance(source, RunSource) else None

        def is_done(key: str, ended: int) -> bool:
            run = runs.get(key)
            if again or run is None or run.tags.get("ablate.cell") != label:  # the cell may have been renamed
                return False
            is_same = (run.status, run.ended) == ("FINISHED", ended)  # else the job was trained again
            return is_same and run.tags.get("ablate.layout") == sent.LAYOUT

        for record in source.records(closing=closing, is_done=is_done):
            self._send(record, runs)

    def _runs(self) -> dict[str, Sent]:
        """Return the runs that MLflow has of this store, by key.

        Those that the study no longer has are hidden.
        """
        if self._known is None:
            client, runs = self._connect(), {}
            ours = f"tags.`ablate.store` = '{self._identity()}'"
            # All pages first: deleting a run shifts those that follow. Of two of a key the ended one stays.
            every = list(clients.search(client, self._experiment, ours))
            for run in sorted(every, key=lambda run: run.info.status == "RUNNING"):
                key = run.data.tags.get("ablate.key", "")
                if not key:  # the study's own
                    continue
                if key in runs:  # a request whose answer was late or lost made it twice
                    client.delete_run(run.info.run_id)
                    continue
                runs[key] = sent.read(run)
                if self.keys is None:
                    self._end_orphan(client, runs[key], run.data.tags)
                elif _source(key) not in self.keys:
                    sent.hide(client, runs.pop(key))
                elif "ablate.stale" in run.data.tags:  # of a version that only marked it, or of a kill
                    client.delete_tag(run.info.run_id, "ablate.stale")
            if self.keys is not None:
                self._restore(client, runs, f"{ours} and tags.`ablate.stale` = 'true'", self.keys)
            self._known = runs
        return self._known

    def _restore(self, client: Any, runs: dict[str, Sent], hidden: str, keys: frozenset[str]) -> None:
        """Restore the runs that the study has again."""
        for run in list(clients.search(client, self._experiment, hidden, hidden=True)):
            key = run.data.tags.get("ablate.key", "")
            if _source(key) in keys and key not in runs:
                client.restore_run(run.info.run_id)
                client.delete_tag(run.info.run_id, "ablate.stale")
                runs[key] = sent.read(run)

    def _end_orphan(self, client: Any, run: Sent, tags: Mapping[str, str]) -> None:
        """End a run of the grid that no process trains, as the stage before the grid may take hours."""
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
        client, run, state = self._connect(), runs.get(record.key), record.state
        tags, replaced = self._tags(record), ""
        if run is not None and sent.is_other(client, run, record, tags):
            client.delete_run(run.run_id)
            replaced, run = run.run_id, None
        was_ended = (
            run is not None
            and state.status != "RUNNING"
            and (run.status, run.ended) == (state.status, state.ended)
        )
        if run is None:
            run = runs[record.key] = self._create(client, record, tags, runs)
            for child in runs.values() if replaced else ():
                if child.tags.get("mlflow.parentRunId") == replaced:
                    client.set_tag(child.run_id, "mlflow.parentRunId", run.run_id)
                    child.tags["mlflow.parentRunId"] = run.run_id
        else:
            sent.rename(client, run, record, tags)
            if run.status not in ("RUNNING", state.status):
                client.update_run(run.run_id, status="RUNNING")
        clients.log_values(client, run, record, tags, was_ended=was_ended)
        if record.images is not None and not run.has_images:
            clients.log_images(client, run.run_id, record.images)
            run.has_images = True
        if state.status != "RUNNING" and not was_ended:  # its status is set last: all else is there
            parts = record.artifacts()
            clients.log_artifacts(self.address, run, parts.texts, parts.files, self._place)
            client.set_terminated(run.run_id, state.status, state.ended)
        run.status, run.ended = state.status, state.ended

    def _tags(self, record: Record) -> dict[str, str]:
        """Return all tags of a run except its note, which people may edit."""
        tags = {
            "ablate.kind": record.kind, "ablate.study": self.study.name, "ablate.key": record.key,
            "ablate.store": self._identity(), "ablate.layout": sent.LAYOUT,
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
        """Return the note with the link first, as a note that is too long is cut."""
        experiment, condition = (quote(part, safe="") for part in (self._experiment, record.alike))
        page = f"#/experiments/{experiment}/runs?searchFilter={condition}"
        note = f"[All runs of this cell]({page})\n\n{record.note}" if record.alike else record.note
        return _cut(note)

    def log_study(self, note: str, files: Sequence[Path]) -> None:
        """Write the study's own run, which is made at its first report."""
        client = self._connect()
        identity = self._identity()
        own = f"tags.`ablate.kind` = 'study' and tags.`ablate.store` = '{identity}'"
        runs = list(clients.search(client, self._experiment, own))
        tags = {
            "ablate.kind": "study", "ablate.study": self.study.name, "ablate.store": identity,
            "mlflow.note.content": note, "mlflow.source.name": self.study.source,
            "mlflow.source.type": "LOCAL",
        }  # fmt: skip
        if runs:
            run = runs[0]
            client.set_tag(run.info.run_id, "mlflow.note.content", note)
        else:
            began = self._began(client)
            run = client.create_run(self._experiment, start_time=began, tags=tags, run_name="report")
        run_id, placed = run.info.run_id, [(path, "") for path in files]
        clients.log_artifacts(self.address, sent.read(run), {}, placed, self._place)
        client.set_terminated(run_id, end_time=self._edge(client, "end_time DESC", "status != 'RUNNING'"))

    def _began(self, client: Any) -> int | None:
        """Return the start of the study's own run, in ms: the same in a database that is made again."""
        path = self.store.study(self.study.name) / "began.json"
        kept = store_records.read_or_empty(path, Began).timestamp
        began = self._edge(client, "start_time ASC", "status != 'SCHEDULED'") if kept is None else kept
        if kept is None and began is not None:
            store_records.write(path, Began(timestamp=began), durable=False)
        return began

    def _edge(self, client: Any, order: str, condition: str) -> int | None:
        """Return the first start or the last end of what the study has in MLflow, in ms.

        None where it has nothing.
        """
        own = f"tags.`ablate.kind` != 'study' and tags.`ablate.store` = '{self._identity()}'"
        where, order_by = f"{condition} and {own}", [f"attributes.{order}"]
        for run in clients.search(client, self._experiment, where, order=order_by, page_size=20):
            if "ablate.stale" not in run.data.tags:
                edge: int | None = getattr(run.info, order.split(maxsplit=1)[0])
                return edge
        return None


def _source(key: str) -> str:
    """Return the key of the source of a record: a search's, where the record is one of its trials."""
    return key.partition("/trial/")[0]
