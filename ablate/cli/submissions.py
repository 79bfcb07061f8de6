"""What the commands of the queue share: where it is, and how a submission is shown."""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
from rich.console import Console

from ablate.cli import options, remote
from ablate.cli.terminal import escape, show_table
from ablate.messages import count, printable

if TYPE_CHECKING:
    from ablate.serve.client import Client
    from ablate.store.layout import Store
    from ablate.store.queue import Entry

ID = click.argument("identity", metavar="ID")
SHOWN = 10  # submissions that have ended, in a table


class Queue(Protocol):
    """A queue: that of a store here, or that of a service."""

    def submit(
        self, path: Path, *, sets: tuple[str, ...], priority: int, after: tuple[str, ...], key: str | None,
        replaces: bool,
    ) -> "Entry":  # fmt: skip
        """Put a study file into the queue."""

    def entries(self) -> "Sequence[Entry]":
        """Return all submissions."""

    def change(self, action: str, identity: str, **how: Any) -> "Entry":
        """Cancel, pause, resume or move a submission."""

    def is_served(self) -> bool:
        """Whether a service runs what is submitted."""


class LocalQueue:
    """The queue of a store on this machine."""

    def __init__(self, store: "Store") -> None:
        """Take a store."""
        self.store = store

    def submit(self, path: Path, **options: Any) -> "Entry":
        """Put a study file into the queue."""
        from ablate.workflow import argument, queue

        return queue.submit(self.store, argument.read(str(path)), path=path, by=_user(), **options)

    def entries(self) -> "Sequence[Entry]":
        """Return all submissions."""
        from ablate.workflow import queue

        return queue.entries(self.store)

    def change(self, action: str, identity: str, **how: Any) -> "Entry":
        """Cancel, pause, resume or move a submission."""
        from ablate.workflow import queue

        changes: dict[str, Callable[..., Entry]] = {
            "cancel": queue.cancel, "pause": queue.pause, "resume": queue.resume, "move": queue.move,
        }  # fmt: skip
        return changes[action](self.store, identity, **how)

    def is_served(self) -> bool:
        """Whether a service runs on the store."""
        from ablate.workflow import queue

        return queue.is_served(self.store)


class RemoteQueue:
    """The queue of a service."""

    def __init__(self, service: "Client") -> None:
        """Take a service."""
        self.service = service
        self.entries, self.change = service.entries, service.change

    def submit(self, path: Path, **options: Any) -> "Entry":
        """Put a study file into the queue."""
        from ablate.workflow import argument

        return self.service.submit(argument.read(str(path)), by=_user(), **options)

    def is_served(self) -> bool:
        """Return True: else nobody would answer."""
        return True


def _user() -> str | None:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in containers
        return None


def queued(command: Callable[..., None]) -> Callable[..., None]:
    """Add --store and --server to a command, which is called with the queue that they mean."""

    @functools.wraps(command)
    def called(*, store_path: str, server: str | None, **given: Any) -> None:
        service = remote.client(server, store_path)
        queue = LocalQueue(options.where(store_path).store) if service is None else RemoteQueue(service)
        command(queue, **given)

    return options.STORE(remote.SERVER(called))


def change(queue: Queue, action: str, identity: str, *, as_json: bool, **how: Any) -> None:
    """Change a submission, and print what it is then."""
    entry = queue.change(action, identity, **how)
    show(entry, as_json=as_json)
    note_missing(queue, entry)


def note_missing(queue: Queue, entry: "Entry") -> None:
    """Note on the error stream that nobody runs a submission."""
    if entry.state in ("waiting", "running") and not queue.is_served():
        click.echo("note: no service runs on this store: ablate serve starts one", err=True)


def show(entry: "Entry", *, as_json: bool) -> None:
    """Print a submission, in a line or as JSON."""
    from ablate.workflow import answers

    if as_json:
        click.echo(answers.text(entry.model_dump(mode="json")))
    else:
        click.echo(printable(f"{entry.id}  {entry.study}: {words(entry)}"))


def words(entry: "Entry") -> str:
    """Return how far a submission is, in words."""
    wishes = {"cancel": "is being cancelled", "pause": "is being paused"}
    state = wishes[entry.wish] if entry.wish else entry.state
    after = f" for {', '.join(entry.after)}" if entry.state == "waiting" and entry.after else ""
    return f"{state}{after}{f' ({entry.reason})' if entry.reason else ''}"


def show_all(console: Console, entries: "Iterable[Entry]", *, whole: bool) -> None:
    """Print a queue as a table; unless `whole`, only the latest of those that have ended."""
    there = list(entries)
    open_ones = [entry for entry in there if not entry.has_ended]
    ended = [entry for entry in there if entry.has_ended]
    shown = [*open_ones, *(ended if whole else ended[:SHOWN])]
    if not shown:
        console.print("nothing was submitted yet: ablate submit STUDY.toml")
        return
    rows = [(one.id, one.study, _state(one), str(one.priority), one.by or "", _time(one)) for one in shown]
    show_table(console, ("id", "study", "state", "priority", "by", "submitted"), rows)
    for one in shown:
        if one.reason:
            console.print(f"{one.id}: {escape(one.reason)}", soft_wrap=True)
    if len(shown) < len(there):
        console.print(f"and {count(len(there) - len(shown), 'older one')}: --all lists them")


def _state(entry: "Entry") -> str:
    return words(entry.model_copy(update={"reason": ""}))


def _time(entry: "Entry") -> str:
    return f"{entry.submitted.astimezone():%Y-%m-%d %H:%M}"
