"""Who may: a token, sessions that stand for it in a browser, and patience with those who guess it."""

import hashlib
import hmac
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from ablate import descriptors
from ablate.errors import AblateError
from ablate.store import files
from ablate.store.layout import Store

VARIABLE = "ABLATE_TOKEN"
SHORTEST = 16  # characters of a token that somebody has chosen
SESSION = 14 * 24 * 3600  # seconds
GUESSES = 5  # wrong tokens of one address, in
WINDOW = 60.0  # seconds
ADDRESSES = 10_000  # that are remembered


def get(store: Store) -> tuple[str, bool]:
    """Return the token of a store's service, and whether it was made just now: then it is to be shown, once.

    The variable ABLATE_TOKEN goes first; else a file of the store, which only its owner can read.
    """
    chosen = os.environ.get(VARIABLE, "").strip()
    if chosen:
        if len(chosen) < SHORTEST:
            raise AblateError(
                f"{VARIABLE} must have at least {SHORTEST} characters, and has {len(chosen)}: "
                "it is all that keeps others out"
            )
        return chosen, False
    path = store.path / "token"
    if files.is_there(path):
        token = files.read(path).decode(errors="replace").strip()
        if len(token) < SHORTEST:
            raise AblateError(
                f"{path}: must hold a token of at least {SHORTEST} characters: remove it, for another"
            )
        if path.stat().st_mode & 0o077:
            raise AblateError(f"{path}: others can read it: chmod 600 it, or remove it, for another token")
        return token, False
    files.make(path.parent)
    with files.lock(path.with_name(".token.lock")):  # MLflow starts several processes at once
        if files.is_there(path):
            return files.read(path).decode().strip(), False
        token = secrets.token_urlsafe(32)
        with descriptors.new(beside := files.draft(path)) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(f"{token}\n".encode())
        descriptors.rename(beside, path.name)
    return token, True


class Keys:
    """What opens the door: the token, and the sessions made of it, which last over restarts."""

    def __init__(self, token: str, clock: Callable[[], float] = time.time) -> None:
        """Take the token; empty: the door is open."""
        self.token, self.clock = token, clock
        self._secret = hashlib.sha256(b"session of ablate\0" + token.encode()).digest()

    def fits(self, token: str) -> bool:
        """Whether a token is the right one; as long whatever the difference."""
        mine, theirs = (
            hashlib.sha256(text.encode(errors="replace")).digest() for text in (self.token, token)
        )
        return hmac.compare_digest(mine, theirs)

    def session(self) -> str:
        """Return a new session: when it ends, a random number, and a signature that only the token makes."""
        content = f"{int(self.clock()) + SESSION}.{secrets.token_urlsafe(16)}"
        return f"{content}.{self._signature(content)}"

    def is_session(self, text: str) -> bool:
        """Whether a text is a session of ours that has not ended."""
        content, _, signature = text.rpartition(".")
        if not hmac.compare_digest(self._signature(content).encode(), signature.encode(errors="replace")):
            return False
        return int(content.partition(".")[0]) > self.clock()

    def _signature(self, content: str) -> str:
        return hmac.new(self._secret, content.encode(errors="replace"), hashlib.sha256).hexdigest()


class Patience:
    """How often each address has given a wrong token of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without a memory."""
        self.clock = clock
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Return for how many seconds an address is not listened to; 0 where it is."""
        now = self.clock()
        times = [then for then in self._wrong.get(_network(address), ()) if then > now - WINDOW]
        return int(times[-GUESSES] + WINDOW - now) + 1 if len(times) >= GUESSES else 0

    def note(self, address: str) -> None:
        """Remember a wrong token."""
        key = _network(address)
        self._wrong[key] = [*self._wrong.pop(key, [])[-GUESSES:], self.clock()]
        while len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)


def _network(address: str) -> str:
    """Return what stands for one guest: an address, of IPv6 the network that a household gets."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return parsed.exploded[:19] if parsed.ipv4_mapped is None else str(parsed.ipv4_mapped)
    return address
