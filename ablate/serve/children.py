"""Processes beside the service that compute what would be too much for it.

They are started when asked, and ended when idle. The service itself needs neither pandas
nor torch, and a computation of seconds never holds its pages up.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ablate.errors import AblateError, StoreError, StudyError, UnwritableError
from ablate.serve import child
from ablate.store.layout import Store

IDLE = 60.0  # seconds after which a process that nobody asks is ended
PATIENCE = 180.0  # seconds for one answer
MOST_WAITING = 20  # requests
KINDS: Mapping[str, type[AblateError]] = {"StoreError": StoreError, "UnwritableError": UnwritableError}


class BusyError(Exception):
    """Too much was asked at once, or something that takes far too long: ask again later."""


class BrokenError(Exception):
    """A process beside the service has failed in a way that nobody foresaw."""


class Child:
    """A process that answers one request at a time."""

    def __init__(self, store: Store, niceness: int, *modules: str) -> None:
        """Take the store that it reads; nothing is started yet.

        `niceness`: how far others go first; `modules`: what is imported before the first answer.
        """
        self.store, self.niceness, self.modules = store, niceness, modules
        self.seconds = 0.0  # of CPU, for the last answer
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._used_at = 0.0
        self._reaper: asyncio.Task[None] | None = None

    async def ask(self, do: str, **of: Any) -> Any:
        """Return the answer to a request. Raises the error that a user is meant to read, or a BusyError."""
        if self._waiting >= MOST_WAITING:
            raise BusyError
        # Whoever asked may go away: the answer is read all the same, so that the next one gets his own.
        return await asyncio.shield(asyncio.create_task(self._ask({"do": do, "of": of})))

    async def end(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if self._reaper is not None and self._reaper is not asyncio.current_task():
            self._reaper.cancel()
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, request: object) -> Any:
        self._waiting += 1
        try:
            async with self._turn:
                reply = await self._exchange(request)
        finally:
            self._waiting -= 1
        content = await asyncio.to_thread(json.loads, reply)
        self.seconds = content["seconds"]
        return _value(content)

    async def _exchange(self, request: object) -> bytes:
        process = await self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                process.stdin.write(child.packed(request))
                await process.stdin.drain()
                size = int(await process.stdout.readline())
                return await process.stdout.readexactly(size)
        except TimeoutError:
            await self.end()
            raise BusyError from None
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            await self.end()
            raise BrokenError from error
        finally:
            self._used_at = time.monotonic()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "ablate.serve.child",
                str(self.store.path), str(self.niceness), *self.modules,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,  # Ctrl-C is the service's
            )  # fmt: skip
            self._reaper = asyncio.create_task(self._end_when_idle())
        return self._process

    async def _end_when_idle(self) -> None:
        self._used_at = time.monotonic()
        while (left := self._used_at + IDLE - time.monotonic()) > 0 or self._turn.locked():
            await asyncio.sleep(max(left, 1.0))
        await self.end()


def _value(reply: Mapping[str, Any]) -> Any:
    """Return the value of a reply, or raise its error."""
    if "error" not in reply:
        return reply["value"]
    kind, mistakes = reply["error"]["kind"], reply["error"]["mistakes"]
    if kind == "bug":
        raise BrokenError
    if kind == "StudyError":
        raise StudyError(mistakes)
    raise KINDS.get(kind, AblateError)("\n".join(mistakes))
