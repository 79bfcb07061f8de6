"""Ctrl-C and SIGTERM: the first asks to stop in good order, the second stops at once."""

import signal
from types import FrameType
from typing import Any, Self


class Interruption:
    """Handlers, installed explicitly: a shell may have started us with SIGINT ignored, and then Python installs none."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Put back what was there."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def asked(self) -> bool:
        """Say whether somebody wants us to stop."""
        return self._asked
