"""What the store says of each study: its progress from the board, all else computed beside the service, once.

A result is kept as long as no run of its study has ended since, however many ask for it.
"""

import asyncio
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ablate.analysis.status import Status
from ablate.execution.options import Where
from ablate.serve import shown
from ablate.serve.board import Board, Boards
from ablate.serve.children import Child
from ablate.store.files import SPOILT
from ablate.store.layout import Store
from ablate.workflow.inspect import Listed

KEPT = 32  # results
KEPT_PAGES = 6  # of 5 MB, on the disk


class Results:
    """The results of a store."""

    def __init__(self, store: Store) -> None:
        """Take a store; nothing is read or started yet."""
        self.store, self.where = store, Where(store)
        self.boards = Boards(store)
        self.background = Child(store, 19, "ablate.report.publish", "ablate.workflow.report", "scipy.special")
        self.reader, self.checker = Child(store, 0), Child(store, 0)
        """One for verdicts that nobody waits for, after all trainings; where these take all processors it may
        wait for minutes. And for people: one for what was run, and one for texts of studies."""
        self._kept: OrderedDict[tuple[object, ...], asyncio.Task[Any]] = OrderedDict()
        self._begun: set[asyncio.Task[Any]] = set()
        self._folder: Path | None = None

    async def close(self) -> None:
        """End the processes beside the service, and remove the pages."""
        for each in (self.background, self.reader, self.checker):
            await each.end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def board(self, name: str) -> Board:
        """Return the board of a study."""
        return await asyncio.to_thread(self.boards.of, name)

    async def status(self, name: str) -> Status:
        """Return how far a study is."""
        return await asyncio.to_thread(self._status, name)

    def _status(self, name: str) -> Status:
        return self.boards.of(name).look()

    async def studies(self) -> list[Listed]:
        """Return the studies of the store, and how far each is; of one that cannot be read, why."""
        return await asyncio.to_thread(self._studies)

    def _studies(self) -> list[Listed]:
        return [self._list(name) for name in self.boards.names()]

    def _list(self, name: str) -> Listed:
        from ablate.planning.references import first_line

        try:
            board = self.boards.of(name)
            now = board.look()
        except OSError as error:
            reason = f"{error.filename or 'a file of it'} cannot be read: {error.strerror}"
        except SPOILT as error:
            reason = first_line(error)
        else:
            return Listed(name, board.resolved.study.question, now.total, now.being_run)
        return Listed(name, "", {}, being_run=False, unreadable=reason)

    async def report(self, name: str, form: str = "json", metric: str | None = None) -> str:
        """Return the report of a study in a form of text."""
        ask = self.reader.ask
        text: str = await self._once(
            name, ("report", form, metric), lambda: ask("report", study=name, form=form, metric=metric)
        )
        return text

    async def standing(self, name: str) -> dict[str, Any]:
        """Return how the questions of a study stand: the effects and claims of its report."""
        ask = self.reader.ask
        stand: dict[str, Any] = await self._once(name, ("standing",), lambda: ask("standing", study=name))
        return stand

    async def standing_in_background(self, name: str) -> Any:
        """Return the same where nobody waits for it: it is computed after all trainings."""
        ask = self.background.ask
        return await self._once(name, ("standing in background",), lambda: ask("standing", study=name))

    async def verdicts(self, name: str) -> shown.Verdicts:
        """Return how the questions of a study stand; they are computed after all trainings."""
        drawn: shown.Verdicts = await self._once(name, ("verdicts",), lambda: self._draw(name))
        return drawn

    async def _draw(self, name: str) -> shown.Verdicts:
        return shown.verdicts(await self.standing_in_background(name))

    def verdicts_so_far(self, name: str, version: int) -> shown.Verdicts | None:
        """Return the verdicts where they are there already; where not, have them computed meanwhile."""
        task = self._kept.get((name, version, "verdicts"))
        if task is None:
            self._begun.add(begun := asyncio.create_task(self.verdicts(name)))
            begun.add_done_callback(self._forget)
            return None
        return task.result() if task.done() and task.exception() is None else None

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._begun.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever asks next

    async def check(self, name: str) -> Any:
        """Return the answers to the claims of a study."""
        return await self._once(name, ("check",), lambda: self.reader.ask("check", study=name))

    async def plan(self, name: str) -> Any:
        """Return what is left to do of a study."""
        return await self.checker.ask("plan", study=name)

    async def compare(self, first: str, second: str, metric: str | None = None) -> Any:
        """Return two studies side by side."""
        for name in (first, second):
            await self.status(name)  # raises where there is none
        return await self.reader.ask("compare", studies=[first, second], metric=metric)

    async def page(self, name: str) -> Path:
        """Return the path of the page of a study's report, as of now."""
        path: Path = await self._once(name, ("page",), lambda: self._write_page(name))
        return path

    async def _write_page(self, name: str) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ablate-pages-"))
        pages = sorted(self._folder.glob("*.html"), key=lambda path: path.stat().st_mtime)
        for old in pages[: -KEPT_PAGES + 1]:
            old.unlink(missing_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".html", delete=False) as file:
            path = Path(file.name)
        await self.reader.ask("page", study=name, path=str(path))
        return path

    async def _once(self, name: str, what: tuple[object, ...], compute: Callable[[], Awaitable[Any]]) -> Any:
        """Return a result of a study: one that is there, or is being computed, or a new one."""
        await self.status(name)
        key = (name, (await self.board(name)).version, *what)
        for old in [other for other in self._kept if other[0] == name and other[2:] == what and other != key]:
            del self._kept[old]
        if key not in self._kept or (what == ("page",) and not _is_there(self._kept[key])):
            self._kept[key] = asyncio.create_task(_awaited(compute))
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        try:
            return await asyncio.shield(self._kept[key])
        except Exception:
            self._kept.pop(key, None)
            raise


async def _awaited(compute: Callable[[], Awaitable[Any]]) -> Any:
    return await compute()


def _is_there(task: "asyncio.Task[Any]") -> bool:
    """Whether a page that was written is still there, or is being written."""
    return not task.done() or (task.exception() is None and task.result().exists())
