"""The service from elsewhere: its HTTP interface as functions that return what the store itself would."""

import json
import os
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from pydantic import TypeAdapter, ValidationError

from ablate.analysis.status import Status
from ablate.errors import AblateError
from ablate.serve.addresses import segment
from ablate.serve.tokens import VARIABLE
from ablate.store import files
from ablate.store.queue import Entry
from ablate.workflow.inspect import Listed

SECONDS = 60.0  # for an answer to begin
WAIT = 15  # seconds that the service waits for more of a log
FILE = "ABLATE_TOKEN_FILE"
STATUS: TypeAdapter[Status] = TypeAdapter(Status)
LISTED: TypeAdapter[list[Listed]] = TypeAdapter(list[Listed])


class Still(HTTPRedirectHandler):
    """Follows no redirect: the token is for the service that was named."""

    def redirect_request(self, *_: Any, **_more: Any) -> None:
        """Return no other request."""
        return


class Client:
    """A service, asked by whoever has its token."""

    def __init__(self, server: str, token: str | None = None) -> None:
        """Take the address of a service. Raises an AblateError where it is none."""
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AblateError(f"--server must be an address such as http://127.0.0.1:8080, got {server}")
        self.server, self.host, self._token = server.rstrip("/"), parts.hostname, token
        proxies = [ProxyHandler({})] if is_here(self.host) else []
        self._opener: OpenerDirector = build_opener(Still, *proxies)

    def submit(
        self, text: str, *, sets: tuple[str, ...] = (), priority: int = 0, after: tuple[str, ...] = (),
        key: str | None = None, by: str | None = None, replaces: bool = False,
    ) -> Entry:  # fmt: skip
        """Put a study into the queue."""
        query = {"set": sets, "priority": priority, "after": after, "replace": str(replaces).lower()}
        query |= {"by": by} if by else {}
        headers = {"Idempotency-Key": key} if key else {}
        return _entry(self._json("POST", "/queue", query, text.encode(), "application/toml", **headers))

    def entries(self) -> Sequence[Entry]:
        """Return all submissions."""
        return [_entry(one) for one in self._json("GET", "/queue")]

    def change(self, action: str, identity: str, **how: Any) -> Entry:
        """Cancel, pause, resume or move a submission."""
        body = json.dumps(how).encode() if how else b""
        return _entry(self._json("POST", f"/queue/{segment(identity)}/{action}", body=body))

    def studies(self) -> list[Listed]:
        """Return the studies of the store."""
        return LISTED.validate_python(self._json("GET", "/studies"))

    def status(self, study: str) -> Status:
        """Return how far a study is."""
        return STATUS.validate_python(self._json("GET", f"/studies/{segment(study)}/status"))

    def report(self, study: str, form: str, metric: str | None = None) -> str:
        """Return the report of a study in a form of text."""
        query = {"format": form} | ({"metric": metric} if metric else {})
        return self._ask("GET", f"/api/v1/studies/{segment(study)}/report", query).decode()

    def page(self, study: str) -> bytes:
        """Return the page of a study's report."""
        return self._ask("GET", f"/studies/{segment(study)}/report.html")

    def check(self, study: str, *, strict: bool) -> dict[str, Any]:
        """Return the answers to a study's claims, as text, and as an exit code."""
        answer: dict[str, Any] = self._json(
            "GET", f"/studies/{segment(study)}/check", {"strict": str(strict).lower()}
        )
        return answer

    def log(self, job: str, *, follow: bool) -> Iterator[str]:
        """Return the log of a job as it is, or as it grows until the job has ended."""
        offset = 0
        while True:
            query = {"job": job, "offset": offset, "wait": WAIT if follow else 0}
            part = self._json("GET", "/logs", query)
            if not (part["text"] or part["ended"] or offset or follow):
                raise AblateError(f"{job} has no log: it was not started yet; --follow waits for it")
            yield part["text"]
            is_whole = part["next"] == offset
            offset, job = part["next"], part.get("job", job)
            if is_whole and (part["ended"] or not follow):
                return

    def _json(
        self, method: str, path: str, query: dict[str, Any] | None = None, body: bytes | None = None,
        kind: str = "application/json", **headers: str,
    ) -> Any:  # fmt: skip
        answer = self._ask(method, f"/api/v1{path}", query, body, kind, **headers)
        try:
            return json.loads(answer)
        except ValueError:
            raise AblateError(f"{self.server}: must be a service of ablate, and answers otherwise") from None

    def _ask(
        self, method: str, path: str, query: dict[str, Any] | None = None, body: bytes | None = None,
        kind: str = "application/json", **headers: str,
    ) -> bytes:  # fmt: skip
        """Return the answer to a request. Raises an AblateError where there is none, or a refusal."""
        address = f"{self.server}{path}{f'?{urlencode(query, doseq=True)}' if query else ''}"
        headers |= {"Content-Type": kind} if body is not None else {}
        headers |= {"Authorization": f"Bearer {self._token}"} if self._token else {}
        request = Request(address, body, headers, method=method)  # noqa: S310 (http or https, see above)
        try:
            with self._opener.open(request, timeout=SECONDS) as answer:
                content: bytes = answer.read()
                return content
        except HTTPError as error:
            with error:
                raise AblateError(self._refusal(error.code, error.read())) from None
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            raise AblateError(f"{self.server} cannot be reached: {said}: is the service up?") from None

    def _refusal(self, code: int, body: bytes) -> str:
        """Return what a service says in place of an answer: all mistakes, as the terminal shows them."""
        if code == 401:
            return f"{self.server}: needs its token: set {VARIABLE}, or {FILE} to a file that has it"
        try:
            mistakes = json.loads(body)["mistakes"]
            return "\n".join(str(mistake) for mistake in mistakes) or f"{self.server}: answered with {code}"
        except (ValueError, KeyError, TypeError):
            return f"{self.server}: answered with {code}: is it a service of ablate?"


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def connect(server: str, store: Path) -> Client:
    """Return a service, with its token: of the environment, or of a store here, for a service here."""
    token = os.environ.get(VARIABLE, "").strip()
    named = os.environ.get(FILE, "").strip()
    host = urlsplit(server).hostname or ""
    path = Path(named).expanduser() if named else store / "token" if is_here(host) else None
    if not token and path is not None and (named or files.is_there(path)):
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            if named:
                raise AblateError(f"{FILE}: {path} cannot be read: {error}") from None
    return Client(server, token or None)


def _entry(content: Any) -> Entry:
    try:
        return Entry.model_validate_json(json.dumps(content))
    except ValidationError:
        raise AblateError("the service answers with a submission of another version of ablate") from None
