"""The HTTP server of the service: bounded in connections, in time and in memory, whoever asks."""

import asyncio
import socket
from collections import OrderedDict
from typing import Any, ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for a request's first line and headers
KEEP_ALIVE = 20  # seconds
MOST_CONNECTIONS = 500
GRACE = 3  # seconds in which answers are finished when the service ends


class Connection(H11Protocol):
    """A connection that is closed where no request comes, and makes room for newer ones while it has none."""

    idle: ClassVar[OrderedDict["Connection", None]] = OrderedDict()  # oldest first: without a request yet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock, and drop the oldest connection without a request where there are too many."""
        super().connection_made(transport)
        self._clock = self.loop.call_later(HEAD_SECONDS, self._expire)
        self.idle[self] = None
        if len(self.connections) > MOST_CONNECTIONS:
            self.idle.popitem(last=False)[0].transport.abort()

    def data_received(self, data: bytes) -> None:
        """Stop the clock once a request has come; a next one on the same connection has a time of its own."""
        super().data_received(data)
        if self.cycle is not None:
            self.idle.pop(self, None)
            self._clock.cancel()
            if self.cycle.response_complete:  # the beginning of another request
                self._clock = self.loop.call_later(HEAD_SECONDS, self._expire)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._clock.cancel()
        self.idle.pop(self, None)
        super().connection_lost(exc)

    def _expire(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


class Server(uvicorn.Server):
    """A server that ends what follows events before it waits for the answers under way."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, the streams first: they would go on for ever."""
        self.config.app.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def make(app: ASGIApp, *, host: str, port: int, **options: Any) -> Server:
    """Return a server of an application that `create_app` has made; port 0 is a free one."""
    config = uvicorn.Config(
        app, host=host, port=port, http=Connection, ws="none", loop="asyncio", lifespan="on",
        timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=GRACE,
        limit_concurrency=2 * MOST_CONNECTIONS, log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, h11_max_incomplete_event_size=64 << 10, **options,
    )  # fmt: skip
    return Server(config)
