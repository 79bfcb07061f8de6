"""The sender: what a store has and MLflow lacks is sent to it, record by record."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from ablate.store import files as store_files
from ablate.store import job_folder, layout
from ablate.store.layout import Store
from ablate.study.file import Study
from ablate.tracking import client as clients
from ablate.tracking import experiment, sent
from ablate.tracking.addresses import is_served
from ablate.tracking.keys import LONGEST as LONGEST_KEY
from ablate.tracking.keys import shortened
from ablate.tracking.records import Record, RunSource, Source, last_sign
from ablate.tracking.sent import Sent

LONGEST = 7900  # characters of a note or tag: MLflow cuts at 8000 and only warns


def sync(address: str, study: Study, sources: Sequence[Source], store: Store) -> None:
    """Bring MLflow up to date with the store now. Raises what MLflow raises."""
    mlflow = Sender(address, study, store, frozenset(one.key for one in sources))
    for one in sources:
        mlflow.send(one, closing=True, again=True)


def log_study(address: str, study: Study, store: Store, *, note: str, files: Sequence[Path]) -> None:
    """Put the report and what belongs to it on the study's own run, with the verdicts in its note.

    Raises what MLflow raises.
    """
    Sender(address, study, store, frozenset()).log_study(note[:LONGEST], files)


@dataclass(slots=True)
class Sender:
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
            artifacts = None if served else experiment.place(self.study, self.store)
            # Two studies that start at once make one database; a server has its own, and may let us wait.
            with nullcontext() if served else FileLock(self.store.path / "mlflow.lock"):
                experiment.make_database(self.address, self.store)
                client = clients.connect(self.address)  # this, too, would make the database
                self._experiment = experiment.find_or_make(
                    client, experiment.name_of(self.address, self.study.name), artifacts, self.study
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
                clients.search(client, self._experiment, own)
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
        for run in list(clients.search(client, self._experiment, hidden, hidden=True)):
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
        clients.log_values(client, known, record, tags, was_ended=was_ended)
        if record.images is not None and not known.has_images:
            clients.log_images(client, known.run_id, record.images)
            known.has_images = True
        if state.status != "RUNNING" and not was_ended:  # its status is set last: all else is there
            clients.log_artifacts(self.address, known, record)
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
            clients.search(
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
        for run in clients.search(
            client, self._experiment, asked, order=[f"attributes.{order}"], page_size=20
        ):
            if "ablate.stale" not in run.data.tags:
                found: int | None = getattr(run.info, order.split(maxsplit=1)[0])
                return found
        return None


def _source(key: str) -> str:
    """Return the key of the source of a record: a search's, where the record is one of its trials."""
    return key.partition("/trial/")[0]
