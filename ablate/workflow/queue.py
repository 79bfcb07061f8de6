"""The queue of a store: what `submit`, `queue`, `cancel`, `pause`, `resume` and `move` do, and the service.

All of it is idempotent: done twice, it changes nothing the second time. What a running submission is asked
for, it is left as a wish, which the dispatcher of the service carries out.
"""

import json
import os
from collections.abc import Collection
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from ablate.errors import AblateError, StoreError, StudyError
from ablate.execution.options import Where
from ablate.messages import printable
from ablate.planning import inputs, network_checks
from ablate.recipe import user_code
from ablate.store import files, layout, lease, origin, study_folder
from ablate.store import queue as submissions
from ablate.store.layout import Store
from ablate.store.origin import Origin
from ablate.store.queue import Entry, Wish
from ablate.study import file as study_file
from ablate.study.file import Study
from ablate.workflow import plan as planning
from ablate.workflow.plan import Preview

SENT = "the study"  # names a text without a file in messages
MOST_PRIORITY = 1_000_000


def check(
    store: Store, text: str, sets: tuple[str, ...] = (), *, path: Path | None = None,
    networks: Collection[str] = (),
) -> Preview:  # fmt: skip
    """Return what a run of a study would do. Raises the program's errors, with all mistakes.

    `path`: its file. Without one, code of the study's own must be among the `networks`, which are installed
    or lie in the current directory. A network of which only building it shows whether it can be trained is
    built, which takes torch.
    """
    study = _read(store, text, sets, path, networks)
    return planning.preview(study, Where(store))


def submit(
    store: Store, text: str, *, sets: tuple[str, ...] = (), priority: int = 0, after: tuple[str, ...] = (),
    key: str | None = None, by: str | None = None, path: Path | None = None, replaces: bool = False,
    networks: Collection[str] = (),
) -> Entry:  # fmt: skip
    """Put a study into the queue, and return its submission. Raises the program's errors, with all mistakes.

    For `path` and `networks` see `check`. `replaces`: it may take the place of another file's study
    of its name. With the `key` of an earlier submission, that one is returned.
    """
    _check_priority(priority)
    sets = tuple(_absolute(one) for one in sets) if path is not None else sets
    if key is not None and (earlier := _with_key(store, key, text, sets)):
        return earlier
    study = _read(store, text, sets, path, networks)
    if not replaces and (others := study_folder.taken(store, study)):
        raise StoreError(others.replace("ablate run --replace", "ablate submit --replace"))
    study_inputs = inputs.read(study, store)
    inputs.check_images(study_inputs)
    network_checks.check(study_inputs)
    kept = json.dumps(asdict(origin.of(study, store.path) or Origin())).encode() + b"\n"
    contents = {"study.toml": text.encode(), "origin.json": kept, **_code(study)}
    layout.create(store)
    with submissions.changing(store):
        if key is not None and (earlier := _with_key(store, key, text, sets)):
            return earlier
        ids = tuple(dict.fromkeys(entry(store, one).id for one in after))
        new = Entry(
            id="", study=study.name, sets=sets, priority=priority, after=ids, by=by, key=key,
            submitted=datetime.now(UTC), place=0.0, replaces=replaces,
        )  # fmt: skip
        return submissions.add(store, new, contents)


def entries(store: Store) -> tuple[Entry, ...]:
    """Return all submissions: those that run, those to come in the order in which they will, those ended."""
    return tuple(submissions.read_all(store))


def entry(store: Store, identity: str) -> Entry:
    """Return a submission by its id, with or without zeros in front. Raises a StoreError without it."""
    full = f"{int(identity):05d}" if identity.isascii() and identity.isdecimal() else identity
    there = submissions.read(store, full) if submissions.ID.fullmatch(full) else None
    if there is None:
        raise StoreError(f'there is no submission "{printable(identity)}" in the queue of {store.path}')
    return there


def refusal(store: Store, one: Entry, networks: Collection[str]) -> str:
    """Return why the code of a submission must not run as this user; empty where it may.

    Whoever can write to a store can submit, and with it choose what runs. So code that another user has
    handed in is taken as if it came over HTTP.
    """
    folder, own = submissions.folder(store, one.id), (os.getuid(), 0)
    if all((folder / name).lstat().st_uid in own for name in (".", "study.toml", "origin.json")):
        return ""
    try:
        study = study_file.parse(study_file.normal(submissions.read_text(store, one.id)), SENT, one.sets)
    except StudyError:  # its run says what is wrong, and trains nothing
        return ""
    refused = [name for name in origin.networks_of(study) if name not in networks]
    return "" if not refused else (
        f"another user has submitted it, with code of his own ({', '.join(refused)}), which runs only where "
        "the configuration allows it by name"
    )  # fmt: skip


def is_served(store: Store) -> bool:
    """Whether a service runs what is submitted."""
    return files.is_held(store.queue / "dispatcher.lock") or lease.is_held_elsewhere(store.queue)


def cancel(store: Store, identity: str) -> Entry:
    """End a submission for good, as far as it is not done; of a running one what has ended is kept."""
    return _stop(store, identity, "cancel")


def pause(store: Store, identity: str) -> Entry:
    """Let a submission wait until it is resumed; of a running one what has ended is kept."""
    return _stop(store, identity, "pause")


def _stop(store: Store, identity: str, wish: Wish) -> Entry:
    with submissions.changing(store):
        now = entry(store, identity)
        if now.state == "running":
            return now if now.wish in (wish, "cancel") else _write(store, now, wish=wish)
        if wish == "pause" and now.state == "waiting":
            return _write(store, now, state="paused", reason="")
        if wish == "cancel" and now.state in ("waiting", "paused"):
            return _write(store, now, state="cancelled", reason="", ended=datetime.now(UTC))
        return now


def resume(store: Store, identity: str) -> Entry:
    """Let a submission go on that was paused, cancelled or has failed; what has crashed is tried again."""
    with submissions.changing(store):
        now = entry(store, identity)
        if now.state == "running":
            return now if now.wish is None else _write(store, now, wish=None)
        if now.state in ("waiting", "done"):
            return now
        before = (submissions.read(store, one) for one in now.after)
        left = tuple(one.id for one in before if one is not None and not one.has_ended)
        return _write(
            store, now, state="waiting", after=left, wish=None, reason="", exit_code=None, ended=None,
            attempts=0, is_signalled=False, retries=now.retries or now.state == "failed",
        )  # fmt: skip


def move(
    store: Store, identity: str, *, before: str | None = None, after: str | None = None,
    priority: int | None = None,
) -> Entry:  # fmt: skip
    """Put a submission right before or after another one, whose priority it then has, or give it a priority.

    It concerns those that wait or are paused: the others keep their turn, which has come.
    """
    if [before, after, priority].count(None) != 2:
        raise AblateError("move needs one of: before another submission, after one, or a priority")
    if priority is not None:
        _check_priority(priority)
    with submissions.changing(store):
        now = entry(store, identity)
        if priority is not None:
            return now if now.priority == priority else _write(store, now, priority=priority)
        other = entry(store, before or after or "")
        if other.id == now.id:
            raise AblateError(f"a submission cannot be moved before or after itself, got {now.id} twice")
        for one in (now, other):
            if one.state not in ("waiting", "paused"):
                raise AblateError(f"only what waits can be moved, and {one.id} ({one.study}) is {one.state}")
        return _beside(store, now, other, is_before=before is not None)


def _beside(store: Store, now: Entry, other: Entry, *, is_before: bool) -> Entry:
    """Put a submission between another one and its neighbour."""
    row = [one for one in submissions.read_all(store) if one.id != now.id and one.priority == other.priority]
    row = [one for one in row if one.state in ("waiting", "paused")]
    at = [one.id for one in row].index(other.id) + (0 if is_before else 1)
    low = row[at - 1].place if at else row[0].place - 2
    high = row[at].place if at < len(row) else row[-1].place + 2
    place = (low + high) / 2
    if not low < place < high:  # after some 50 moves into one gap
        for number, one in enumerate(row):
            _write(store, one, place=float(number))
        place = at - 0.5
    return _write(store, now, place=place, priority=other.priority)


def _write(store: Store, now: Entry, **changes: object) -> Entry:
    return submissions.write(store, now.model_copy(update=changes))


def _check_priority(priority: int) -> None:
    if abs(priority) > MOST_PRIORITY:
        raise AblateError(f"a priority must be within +-{MOST_PRIORITY:,}, got {priority:,}")


def _with_key(store: Store, key: str, text: str, sets: tuple[str, ...]) -> Entry | None:
    """Return the submission of a key. Raises a StoreError where that was another study."""
    for one in submissions.read_all(store):
        if one.key == key:
            if one.sets != sets or submissions.read_text(store, one.id) != text:
                raise StoreError(
                    f"the idempotency key must be a new one for each study, and {printable(key)!r} is that "
                    f"of {one.id} ({one.study}), which says otherwise"
                )
            return one
    return None


def _absolute(pair: str) -> str:
    """Return a `key=value` that means the same in every directory."""
    key, _, value = pair.partition("=")
    if key.strip() != "data.root" or not value.strip() or value.strip().startswith(("/", "~", '"', "'", "[")):
        return pair
    return f"{key}={Path.cwd() / value.strip()}"


def _read(
    store: Store, text: str, sets: tuple[str, ...], path: Path | None, networks: Collection[str]
) -> Study:  # fmt: skip
    """Return the study of a submission, whose code may be looked for."""
    if path is not None:
        return study_file.parse(study_file.normal(text), str(path), sets, str(path.absolute().parent))
    study = study_file.parse(study_file.normal(text), SENT, sets)
    wrong = [
        f'{SENT}: model.name: "{name}" is code of your own, which a service runs only where its '
        f'configuration allows it by name: networks = ["{name}"] under [submit] of its ablate.toml'
        for name in origin.networks_of(study)
        if name not in networks
    ]
    wrong += [
        f'{SENT}: data.root: must be a whole path on the machine of the service, got "{root}"'
        for root in (*origin.roots_beside(study), *(one for one in sets if _absolute(one) != one))
    ]
    if wrong:
        raise StudyError(wrong)
    folder = str(origin.sent(store.path))
    return replace(study, folder=folder, relative_to=folder)


def _code(study: Study) -> dict[str, bytes]:
    """Return the files of a study's own networks, by their place beside it."""
    folders = user_code.folders(study.folder)
    sources: dict[str, Path] = {}
    for name in origin.networks_of(study):
        user_code.fingerprint(name, folders)  # raises where it is nowhere
        sources |= user_code.sources(name, folders)
    return {place: path.read_bytes() for place, path in sources.items()}
