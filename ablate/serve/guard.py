"""The door of the service: what a request must be before any part of the service sees it.

A layer of ASGI around the whole application, so that no route can be forgotten, wherever the application is
mounted: MLflow's own server protects no routes that others add.
"""

import asyncio
import socket
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ablate.serve.problems import Problem, ProblemError
from ablate.serve.service import Service
from ablate.serve.tokens import Keys, Patience

LONGEST_BODY = 1 << 20  # bytes
BODY_SECONDS = 30.0  # for the whole of it
LONGEST_TARGET = 8192  # bytes of an address
COOKIE = "ablate-session"
OPEN = frozenset({"/login", "/api/v1/health"})
STATIC = "/static/"
"""What anybody may see: nothing of the store is in it."""
READS = frozenset({"GET", "HEAD", "OPTIONS"})
TYPES = frozenset({"application/json", "application/toml", "text/toml", "text/x-toml"})
FORM = "application/x-www-form-urlencoded"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""Of every answer that says nothing else."""


class Guard:
    """The layer around an application."""

    def __init__(self, app: ASGIApp, service: Service, keys: Keys, hosts: tuple[str, ...] = ()) -> None:
        """Take an application, its keys, and names of this machine besides the usual ones."""
        self.app, self.service, self.keys, self.patience = app, service, keys, Patience()
        self.hosts = {"localhost", *(host.lower() for host in hosts)}
        if keys.token:
            self.hosts |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        guarded = _with_headers(send)
        try:
            self._check(scope, headers)
            if not self._may(scope, headers):
                await self._refuse(scope, headers)(scope, receive, guarded)
                return
            await self.app(scope, _limited(receive, headers), guarded)
        except ProblemError as error:  # of the body, in a part that has not begun to answer
            await error.problem.response()(scope, receive, guarded)

    def close(self) -> None:
        """End the streams of events, which would go on for ever."""
        self.service.events.close()

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Raise a ProblemError for a request that no client of ours sends."""
        if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > LONGEST_TARGET:
            raise ProblemError(414, f"an address must have at most {LONGEST_TARGET} bytes")
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise ProblemError(
                421, f'this service is not "{host[:200]}": ask it by its own name, or add that to `hosts` '
                "in its configuration",
            )  # fmt: skip
        if scope["method"] in READS:
            return
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise ProblemError(403, "a page of another site must not change anything here")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise ProblemError(403, "a page of another site must not change anything here")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        is_form = kind == FORM and _path(scope) in ("/login", "/logout")
        if kind not in TYPES and not is_form:
            raise ProblemError(
                415, "what changes something must say Content-Type: application/json, or application/toml"
            )
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdecimal()) or int(length[:20]) > LONGEST_BODY:
            raise _too_long()

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this service: else another name may have been bent to its address."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            return ip_address(name).is_loopback or bool(self.keys.token)
        except ValueError:
            return name in self.hosts

    def _may(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request may be answered: by its token, by its session, or as it asks for nothing secret.

        Raises a ProblemError where a token is wrong.
        """
        path = _path(scope)
        if not self.keys.token or path in OPEN or path.startswith(STATIC):
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            self.check_token(scope, token.strip())
            return True
        return self.keys.is_session(_cookie(headers))

    def check_token(self, scope: Scope, token: str) -> None:
        """Raise a ProblemError for a wrong token, and for any from where too many wrong ones came."""
        address = (scope.get("client") or ("",))[0]
        seconds = self.patience.wait(address)
        if seconds:
            said = f"too many wrong tokens: wait for {seconds} seconds"
            raise ProblemError(429, said, headers=(("Retry-After", str(seconds)),))
        if not self.keys.fits(token):
            self.patience.note(address)
            raise ProblemError(401, "this is not the token", headers=(("WWW-Authenticate", "Bearer"),))

    def _refuse(self, scope: Scope, headers: Headers) -> Response:
        """Return the answer to somebody who has no token: the login page, or a problem for programs."""
        if "text/html" in headers.get("accept", "") and scope["method"] in READS:
            query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            there = quote(f"{_path(scope)}{query}", safe="")
            return RedirectResponse(f"{scope.get('root_path', '')}/login?next={there}", 303)
        said = "a token is needed: Authorization: Bearer TOKEN, or ABLATE_TOKEN for ablate's own commands"
        return Problem(401, (said,), (("WWW-Authenticate", "Bearer"),)).response()


def _path(scope: Scope) -> str:
    """Return the path below where the application is mounted."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return guarded


def _limited(receive: Receive, headers: Headers) -> Receive:
    """Return a `receive` that raises a ProblemError for a body that is too long, or comes too slowly."""
    read, has_body = 0, "content-length" in headers or "transfer-encoding" in headers
    end = asyncio.get_running_loop().time() + BODY_SECONDS
    is_over = not has_body

    async def limited() -> Message:
        nonlocal read, is_over
        if is_over:  # only a disconnect is left to be waited for
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise ProblemError(408, f"a body must be here within {BODY_SECONDS:g} seconds") from None
        read += len(message.get("body", b""))
        is_over = not message.get("more_body", False)
        if read > LONGEST_BODY:
            raise _too_long()
        return message

    return limited


def _too_long() -> ProblemError:
    return ProblemError(
        413, f"a body must have at most {LONGEST_BODY:,} bytes: a study file is a few kilobytes"
    )
