"""What an executor may promise beyond the least that all do, and the marks of tests that ask for it.

A test that asks for more than its executor can promise is skipped, and says which promise is lacking:

    names        an event names the slot that the test has asked for, on a device of its choice
    environment  a slot has the environment that the test has asked for
    warm         a process takes task after task, and is replaced at once
    memory       slots of a device share its memory, and `exclusive` keeps the others out of it
    here         processes are on this machine, where the test looks for them and sends them signals
    streams      nothing that a process says is lost, however much of it and however soon the process dies
    signals      it is told which signal has ended a process, and that somebody else has brought it about
"""

from collections.abc import Callable
from typing import TypeVar

import pytest

from ablate.execution.executors.base import Executor

ALL = frozenset({"names", "environment", "warm", "memory", "here", "streams", "signals"})
Start = Callable[..., Executor]
Test = TypeVar("Test", bound=Callable[..., None])


def promised(*names: str) -> Callable[[Test], Test]:
    """Mark a test of what not every executor can promise."""
    assert set(names) <= ALL

    def mark(test: Test) -> Test:
        test.__dict__["promised"] = names
        return test

    return mark


class Promising:
    """Tests of an executor, of which some are skipped: those of promises that it leaves out."""

    promises: frozenset[str] = ALL

    @pytest.fixture(autouse=True)
    def _is_promised(self, request: pytest.FixtureRequest) -> None:
        lacking = set(getattr(request.function, "promised", ())) - self.promises
        if lacking:
            pytest.skip(f"no promise of this executor: {', '.join(sorted(lacking))}")
