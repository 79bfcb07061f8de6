"""Errors as answers: problem+json (RFC 9457) that holds all mistakes, exactly as the terminal shows them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.responses import JSONResponse

from ablate import descriptors
from ablate.errors import AblateError, RefusedError, StoreError, StudyError, UnwritableError
from ablate.messages import printable
from ablate.serve.board import MissingError
from ablate.serve.children import BusyError

TYPE = "application/problem+json"
STATUSES: Mapping[type[AblateError], int] = {
    UnwritableError: 507, MissingError: 404, RefusedError: 409, StoreError: 409,
}  # fmt: skip
"""By kind; the first that fits."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a client is told instead of an answer."""

    status: int
    mistakes: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = ()

    def body(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": "\n".join(self.mistakes),
            "mistakes": list(self.mistakes),
        }

    def response(self) -> JSONResponse:
        """Return it as an answer."""
        return JSONResponse(self.body(), self.status, dict(self.headers), TYPE)


class ProblemError(Exception):
    """A problem that a part of the service itself has with a request."""

    def __init__(self, status: int, *mistakes: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__("\n".join(mistakes))
        self.problem = Problem(status, mistakes, tuple(headers))


def of(error: Exception) -> Problem:
    """Return the problem that an error stands for."""
    if isinstance(error, ProblemError):
        return error.problem
    if isinstance(error, StudyError):
        return Problem(422, tuple(printable(mistake) for mistake in error.mistakes))
    if isinstance(error, AblateError):
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 422)
        return Problem(status, tuple(printable(str(error)).splitlines()))
    if isinstance(error, BusyError):
        said = "the service has too much to compute just now: ask again in a few seconds"
        return Problem(503, (said,), (("Retry-After", "5"),))
    if isinstance(error, OSError) and error.filename is not None:
        status = 507 if error.errno in descriptors.FULL else 409
        return Problem(status, (f"{error.filename}: cannot be used: {error.strerror}",))
    return Problem(500, ("the service has failed at this, which is a mistake in ablate: its log says where",))
