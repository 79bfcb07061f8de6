"""The service as one process: the dispatcher in a thread, beside the HTTP server."""

import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType

from ablate.errors import AblateError
from ablate.messages import count
from ablate.serve import dispatcher, server, shares, tokens
from ablate.serve.app import create_app
from ablate.serve.config import Config
from ablate.serve.dispatcher import Dispatcher
from ablate.serve.notify import Notifier
from ablate.store import layout
from ablate.store.layout import Store

AGAIN = 2.0  # seconds before a lost lease is asked for again
BACKLOG = 512


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens."""

    host: str
    port: int

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a service is run."""

    store: Store
    address: Address
    config: Config
    studies: int = 1  # at once
    dispatches: bool = True
    drains: bool = False  # its end stops what runs


def serve(plan: Plan, say: Callable[[str], None]) -> None:
    """Serve a store until SIGINT or SIGTERM. What runs then goes on, unless that is to be drained."""
    layout.create(plan.store)
    desk = _desk(plan) if plan.dispatches else None
    with dispatcher.locked(plan.store) if desk else nullcontext(), _listening(plan.address) as listening:
        ended, abandoned = threading.Event(), threading.Event()
        web = _web(plan, listening, say)
        _handle_signals(web, ended, abandoned)
        given = (plan, desk, ended, abandoned, say)
        thread = threading.Thread(target=_dispatch, args=given, name="dispatcher")
        if desk is not None:
            thread.start()
        try:
            web.run(sockets=[listening])
        finally:
            ended.set()
            if desk is not None:
                if plan.drains:
                    say("waiting until the running epochs have ended; Ctrl-C leaves them running")
                thread.join()


def _desk(plan: Plan) -> Dispatcher:
    """Return the dispatcher. Raises an AblateError where the machine is too small for so many studies."""
    machine = shares.machine(plan.config.run.options)
    if machine.slots and plan.studies > len(machine.slots):
        raise AblateError(
            f"--studies must be at most {len(machine.slots)}, as this machine has "
            f"{count(len(machine.slots), 'slot')} and each study needs one, got {plan.studies}"
        )
    command = dispatcher.command(plan.store, plan.config.run.options)
    tells, restarts = Notifier(plan.store, plan.config).look, plan.config.run.restarts
    networks = plan.config.networks
    url = plan.config.url or f"http://{plan.address.host}:{plan.address.port}"
    return Dispatcher(plan.store, command, plan.studies, machine, tells, restarts, networks, url)


def _dispatch(
    plan: Plan, desk: Dispatcher, ended: threading.Event, abandoned: threading.Event,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Lead the queue until the service has `ended`, then drain it, unless that is `abandoned`."""
    while not ended.is_set():
        with dispatcher.leading(plan.store, ended, say) as held:
            if held is not None:
                desk.run(held, ended)
                if ended.is_set() and plan.drains:
                    desk.drain(abandoned)
        if not ended.wait(AGAIN if held is not None else 0):
            say("another machine serves the queue now")


def _handle_signals(web: server.Server, ended: threading.Event, abandoned: threading.Event) -> None:
    """Install handlers for before and after the server runs, which has its own and calls these at its end."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if ended.is_set():
            abandoned.set()
        ended.set()
        web.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


@contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    """Yield a socket that listens. Raises an AblateError where it cannot."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen(BACKLOG)
            yield listening
    except OSError as error:
        if error.filename is not None:
            raise
        raise AblateError(
            f"{address.host}:{address.port} cannot be listened on ({error.strerror or error}): give another "
            "--host or --port"
        ) from None


def _web(plan: Plan, listening: socket.socket, say: Callable[[str], None]) -> server.Server:
    """Return the HTTP server, and say where it answers."""
    host, port = listening.getsockname()[:2]
    token, is_new = (None, False) if _is_open(plan.address) else tokens.get(plan.store)
    shown = f"[{host}]" if ":" in host else host
    say(f"ablate serves {plan.store.path} on http://{shown}:{port}/ (Ctrl-C ends it)")
    if token is not None and is_new:
        say(f"the token, shown this once: {token} (it stays in {plan.store.path / 'token'})")
    app = create_app(plan.store, plan.config, token=token)
    return server.make(app, host=host, port=port)


def _is_open(address: Address) -> bool:
    """Whether no token is asked for: only this machine reaches the service, and nobody has chosen one."""
    return address.is_local and not os.environ.get(tokens.VARIABLE)
