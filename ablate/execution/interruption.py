"""Ctrl-C and SIGTERM: the first asks to stop in good order, the second stops at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self


class Interruption:
    """Handlers, installed explicitly: Python installs none where a shell starts it with SIGINT ignored."""

    def __init__(self) -> None:
        self._asked = self._said = self._at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers of before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked or self._at_once:
            raise KeyboardInterrupt
        self._asked = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Stop at the first signal, too, where nothing is trained that could be saved."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def asked(self, notice: Callable[[str], None] = lambda _: None) -> bool:
        """Whether somebody wants us to stop; the first time that this is seen, `notice` is called."""
        if self._asked and not self._said:
            self._said = True
            notice(
                "stopping when the running epochs have ended; once more stops at once, "
                "and loses these epochs only"
            )
        return self._asked
