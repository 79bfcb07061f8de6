"""Events: what has changed, to everybody who follows a study or the queue, by one watcher for all of them.

Each event has an id. Who comes back with the last one that he has seen gets those after it; where they are no
longer known, everything as it is now, so that nothing is missed either way. Nobody has a queue of his own:
however slowly somebody reads, what is kept for him does not grow.
"""

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ablate.analysis.status import Spot, Status
from ablate.errors import AblateError
from ablate.serve import shown
from ablate.serve.board import Board
from ablate.serve.children import BrokenError, BusyError
from ablate.serve.results import Results
from ablate.workflow.answers import plain

EVERY = 1.0  # seconds between two looks
REST = 240  # times as long as looks have taken beyond BURST: they take no more than a 240th of a core
BURST = 0.2  # seconds of looks, some 20: the first epochs are seen at once
LONGEST_REST = 10.0  # seconds: looks that take longer than 40 ms may take more than their share
LINGER = 30.0  # seconds for which a watcher goes on when nobody follows
HEARTBEAT = 15.0  # seconds: shows both ends that the other is there
KEPT = 400  # events
VERDICTS_EVERY = 4.0  # seconds
VERDICTS_REST = 120  # times the CPU that they take, while trainings want it
LONGEST_VERDICTS_REST = 300.0  # seconds
MOST_FOLLOWERS = 300

Event = tuple[str, Any]  # its name and content


class Channel:
    """The events of one thing, and those who follow it."""

    def __init__(self, look: Callable[[], Awaitable[list[Event]]], whole: Callable[[], list[Event]]) -> None:
        """Take what looks for new events, and what returns everything as it is now, as last seen."""
        self._look, self._whole = look, whole
        self._run = secrets.token_hex(4)  # of the service: its ids say nothing to another run of it
        self._first, self._frames = 0, deque[bytes](maxlen=KEPT)
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._left_at = 0.0
        self.followers = 0
        self.looks = 0
        self.is_closed = False

    async def follow(self, last: str) -> AsyncIterator[bytes]:
        """Yield events, after the one with the id `last` if it is known, until the channel is closed."""
        self.followers += 1
        try:
            if self._task is None or self._task.done():
                await self._look_once()  # before the first answer: a study that is not there is an error
                self._task = asyncio.create_task(self._watch())
            place = self._place(last)
            yield b"retry: 2000\n\n"
            while not self.is_closed:
                if place is None or place < self._first:
                    place = self._first + len(self._frames)
                    yield b"".join(self._frame(place - 1, event) for event in self._whole())
                while (at := place - self._first) < len(self._frames):
                    if at < 0:
                        break
                    place += 1
                    yield self._frames[at]
                news = self._news
                try:
                    await asyncio.wait_for(news.wait(), HEARTBEAT)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self.followers -= 1
            self._left_at = time.monotonic()

    def close(self) -> None:
        """End it for everybody."""
        self.is_closed = True
        self._tell()
        if self._task is not None:
            self._task.cancel()

    def publish(self, event: Event) -> None:
        """Publish an event to all who follow, and to those who come back."""
        number = self._first + len(self._frames)
        if len(self._frames) == KEPT:
            self._first += 1
        self._frames.append(self._frame(number, event))
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _place(self, last: str) -> int | None:
        """Return the number of the event after an id; None where that id is not known."""
        run, _, number = last.partition("-")
        if run != self._run or not number.isascii() or not number.lstrip("-").isdecimal():
            return None
        place = int(number) + 1
        return place if self._first <= place <= self._first + len(self._frames) else None

    def _frame(self, number: int, event: Event) -> bytes:
        name, content = event
        return f"id: {self._run}-{number}\nevent: {name}\ndata: {json.dumps(content)}\n\n".encode()

    async def _look_once(self) -> float:
        began = time.monotonic()
        self.looks += 1
        for event in await self._look():
            self.publish(event)
        return time.monotonic() - began

    async def _watch(self) -> None:
        began = self._left_at = time.monotonic()
        took = 0.0
        while self.followers or time.monotonic() < self._left_at + LINGER:
            with suppress(Exception):  # of a store that is being copied or repaired: the next look will tell
                took += await self._look_once()
            await asyncio.sleep(rest(took, time.monotonic() - began))


def rest(took: float, elapsed: float) -> float:
    """Return the seconds until the next look, where all looks have taken so long of the time so far."""
    return min(max(EVERY, REST * (took - BURST) - elapsed), LONGEST_REST)


class StudyEvents:
    """What changes of one study: its status, as far as it has changed, and its verdicts."""

    def __init__(self, results: Results, name: str, entry: Callable[[str], Any]) -> None:
        """Take a study, and what returns its submission; nothing is read yet."""
        self.results, self.name, self._entry = results, name, entry
        self.channel = Channel(self.look, self.whole)
        self._status: Status | None = None
        self._values: shown.Values = {}
        self._metric = ""
        self._submission: Any = None
        self._verdicts: Any = None
        self._computed = -1  # of which version of the board
        self._next = 0.0
        self._computing: asyncio.Task[None] | None = None

    async def look(self) -> list[Event]:
        """Return what has changed since the last look."""
        board, now, entry = await asyncio.to_thread(self._look)  # at once: a turn of a thread costs as much
        self._metric = board.resolved.study.metric
        self._compute_verdicts(board.version, now)
        events: list[Event] = [] if entry == self._submission else [("submission", entry)]
        self._submission = entry
        last, self._status = self._status, now
        if now is not last:
            self._values = board.values()
            events.append(("status", self._content(now, last)))
        return events

    def _look(self) -> tuple[Board, Status, Any]:
        board = self.results.boards.of(self.name)
        return board, board.look(), self._entry(self.name)

    def whole(self) -> list[Event]:
        """Return everything as last seen."""
        events: list[Event] = [("submission", self._submission)]
        if self._status is not None:
            events.append(("status", self._content(self._status, None)))
        return events if self._verdicts is None else [*events, ("verdicts", self._verdicts)]

    def _content(self, now: Status, last: Status | None) -> dict[str, Any]:
        """Return a status as JSON, and beside it what a page shows of it."""
        metric = self._metric
        if last is None or now.runs.keys() != last.runs.keys():
            changed, is_whole = now, True
        else:
            runs = {
                label: {
                    seed: spot for seed, spot in spots.items() if _moves(spot, last.runs[label].get(seed))
                }
                for label, spots in now.runs.items()
            }
            runs = {label: spots for label, spots in runs.items() if spots}
            changed, is_whole = (
                replace(now, runs=runs, cells={label: now.cells[label] for label in runs}),
                False,
            )
        fields = shown.fields(changed, self._values, metric)
        page = {"progress": shown.progress(now), "fields": fields}
        return {**plain(changed), "whole": is_whole, "shown": plain(page)}

    def _compute_verdicts(self, version: int, now: Status) -> None:
        """Have the verdicts computed where a run has ended since, beside all else and not all the time."""
        is_computing = self._computing is not None and not self._computing.done()
        rests = now.moves and time.monotonic() < self._next
        if version == self._computed or is_computing or rests or not shown.progress(now).ended:
            return
        self._computing = asyncio.create_task(self._verdicts_of(version))

    async def _verdicts_of(self, version: int) -> None:
        wait = 0.0
        try:
            standing = await self.results.standing_in_background(self.name)
            drawn = await self.results.verdicts(self.name)
            shades = shown.shades(self._values, standing["direction"])
            verdicts = {**standing, "shown": plain(drawn), "shades": plain(shades)}
            self._computed = version
            if verdicts != self._verdicts:
                self._verdicts = verdicts
                self.channel.publish(("verdicts", verdicts))
            wait = VERDICTS_REST * self.results.background.seconds
        except BusyError:  # they take too long, and would again
            wait = LONGEST_VERDICTS_REST
        except (AblateError, BrokenError):  # tried again after a rest
            pass
        self._next = time.monotonic() + min(max(VERDICTS_EVERY, wait), LONGEST_VERDICTS_REST)


class Events:
    """The channels of a store: one for each study that somebody follows, and one of its queue."""

    def __init__(self, results: Results, queue: Callable[[], list[Any]]) -> None:
        """Take the results of a store, and what returns its queue."""
        self.results, self._queue = results, queue
        self._studies: dict[str, StudyEvents] = {}
        self._entries: list[Any] | None = None
        self.queue = Channel(self._look_at_queue, lambda: [("queue", self._entries or [])])

    async def study(self, name: str) -> Channel:
        """Return the channel of a study. Raises a StoreError where there is none."""
        await self.results.status(name)
        if name not in self._studies:
            self._studies[name] = StudyEvents(self.results, name, self.submission)
        return self._studies[name].channel

    def submission(self, name: str) -> Any:
        """Return the submission of a study that is to come or runs, else the last one; None without one."""
        own = [entry for entry in self._queue() if entry["study"] == name]
        return own[0] if own else None

    @property
    def followers(self) -> int:
        """How many follow anything."""
        return self.queue.followers + sum(study.channel.followers for study in self._studies.values())

    def close(self) -> None:
        """End all channels."""
        for channel in (self.queue, *(study.channel for study in self._studies.values())):
            channel.close()

    async def _look_at_queue(self) -> list[Event]:
        now = await asyncio.to_thread(self._queue)
        last, self._entries = self._entries, now
        return [] if now == last else [("queue", now)]


def _moves(spot: Spot, last: Spot | None) -> bool:
    """Whether a field of the grid may be another: one that runs counts its epochs."""
    return spot != last or spot.status == "running"
