"""One message to one receiver: its form, and a connection to public addresses only.

An address may be chosen by somebody who knows what else answers near the service. So each address that a name
stands for is judged, and the one that was judged is connected to; redirects are not followed, nor proxies
asked.
"""

import http.client
import ipaddress
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from ablate import __version__

SECONDS = 10.0
LONGEST = 1900  # characters of a text: Discord takes 2,000
MOST_READ = 64 << 10  # bytes of an answer
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Kind = Literal["webhook", "slack", "discord"]
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class PostError(Exception):
    """A message that did not arrive, and why; without the address, which is a secret."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is told."""

    id: str  # the same each time that it is sent
    event: str
    study: str
    submission: str
    state: str
    reason: str
    text: str
    time: str
    url: str | None = None


def body(kind: Kind, message: Message) -> bytes:
    """Return a message in the form that a receiver takes. Names in it call nobody and link nowhere."""
    text = message.text[:LONGEST]
    content: dict[str, Any]
    match kind:
        case "slack":
            safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            content = {"text": safe + (f"\n<{message.url}>" if message.url else "")}
        case "discord":
            link = f"\n{message.url}" if message.url else ""
            content = {"content": text + link, "allowed_mentions": {"parse": []}}
        case _:
            content = {name: getattr(message, name) for name in Message.__slots__}
    return json.dumps(content, ensure_ascii=False).encode()


def is_public(address: str) -> bool:
    """Whether an address is one of the whole internet: not this machine's, nor of a private network."""
    ip: IpAddress = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


def send(address: str, kind: Kind, message: Message, *, allow_private: bool) -> None:
    """Send a message. Raises a PostError where it did not arrive."""
    parts = urlsplit(address)
    headers = {
        "Content-Type": "application/json", "User-Agent": f"ablate/{__version__}", "Connection": "close",
        "Idempotency-Key": message.id,
    }  # fmt: skip
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    try:
        connection = _connect(parts, allow_private=allow_private)
        try:
            connection.request("POST", target, body(kind, message), headers)
            answer = connection.getresponse()
            answer.read(MOST_READ)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PostError(f"{parts.hostname}: {error.strerror or error}" if isinstance(error, OSError)
                        else f"{parts.hostname}: {type(error).__name__}") from None  # fmt: skip
    if not 200 <= answer.status < 300:
        more = ", and redirects are not followed" if 300 <= answer.status < 400 else ""
        raise PostError(f"{parts.hostname}: answered with {answer.status}{more}")


def _connect(parts: SplitResult, *, allow_private: bool) -> http.client.HTTPConnection:
    """Return a connection to an address that was judged. Raises a PostError where none may be used."""
    host, is_safe = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_safe else 80)
    reason: object = "has no address"
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not allow_private and not is_public(str(place[0])):
            reason = "is of a private network: allow_private = true under [notify] allows that"
            continue
        raw = socket.socket(family, kind, protocol)
        try:
            raw.settimeout(SECONDS)
            raw.connect(place)
            secured = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if is_safe else raw
        except OSError as error:
            raw.close()
            reason = error.strerror or error
            continue
        connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        connection.sock = secured
        return connection
    raise PostError(f"{host}: {reason}")
