"""The errors that users are meant to read. Everything else is a bug and keeps its traceback."""


class AblateError(Exception):
    """A mistake that the user can mend: printed as sentences without a traceback, exit code 2.

    The message says what must hold, what was given, and what to do.
    """


class StudyError(AblateError):
    """Mistakes in a study file, all of them at once: one `file: key.path: sentence` a line."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


class DataError(AblateError):
    """A data set that is not there, or cannot be read."""


class StoreError(AblateError):
    """A store that cannot be used: not writable, held by another command, or without the study asked for."""


class RefusedError(StoreError):
    """Something in a store that is not opened: a link, a pipe, a device, a file far larger than its kind."""


class UnwritableError(StoreError):
    """A store that takes nothing more: its disk or the quota is full, or it has become read-only."""
