"""The web application on a store: the interface for programs, events, and pages, behind one door."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ablate import __version__
from ablate.errors import AblateError
from ablate.serve import api, pages, problems
from ablate.serve.children import BrokenError, BusyError
from ablate.serve.config import Config
from ablate.serve.guard import Guard
from ablate.serve.problems import Problem, ProblemError
from ablate.serve.service import Service
from ablate.serve.tokens import Keys
from ablate.store.layout import Store


def create_app(store: Store, config: Config, *, token: str | None = None) -> Guard:
    """Return the application on a store, an ASGI one.

    `token`: what everybody must know; None where nobody but this machine's users can reach it.
    """
    service = Service(store, config.networks)
    app = FastAPI(
        title="ablate", version=__version__, lifespan=_lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        description="Ablation studies: submit them, follow them, read their verdicts.",
    )  # fmt: skip
    app.state.service, app.state.keys = service, Keys(token or "")
    app.state.mlflow = config.mlflow or ""
    app.include_router(api.router)
    app.include_router(pages.router)
    for kind in (AblateError, OSError, ProblemError, BusyError, BrokenError, Exception):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _refused)
    guard = Guard(app, service, app.state.keys, config.hosts)
    app.state.guard = guard
    return guard


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await app.state.service.close()


def _answer(request: Request, trouble: Problem) -> Response:
    return pages.problem(request, trouble) if pages.wants_page(request) else trouble.response()


async def _told(request: Request, error: Exception) -> Response:
    return _answer(request, problems.of(error))


async def _unreadable(request: Request, error: Exception) -> Response:
    """Answer a request whose parameters are wrong."""
    assert isinstance(error, RequestValidationError)
    mistakes = tuple(
        f"{' '.join(str(part) for part in wrong['loc'])}: {wrong['msg']}" for wrong in error.errors()
    )
    return _answer(request, Problem(422, mistakes))


async def _refused(request: Request, error: Exception) -> Response:
    """Answer a request for what is not there, or in a way that is not."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ProblemError):  # of the guard, while the body was read
        return _answer(request, error.__cause__.problem)
    headers = tuple((error.headers or {}).items())
    return _answer(request, Problem(error.status_code, (str(error.detail),), headers))
