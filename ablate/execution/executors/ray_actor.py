"""An actor of Ray, as the coordinator sees it: what it is told, what is heard of it, what runs there."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ablate.execution.executors import ray_cluster, ray_host
from ablate.execution.executors.base import Files, Trip
from ablate.execution.executors.ray_cluster import Place

CALLS = 4  # at a time: one listens, another one may close, and none of the others takes long


@dataclass(slots=True, eq=False)
class Actor:
    """An actor, as its coordinator sees it."""

    place: Place
    actor: Any
    listening: Any  # what the next news will be
    is_up: bool = False
    travels: bool = False  # it does not see the store
    is_empty: bool = False  # of processes: another actor's task has its memory
    tasks: dict[str, Trip | None] = field(default_factory=dict)
    sent: int = 0  # messages: calls may overtake each other
    killed: dict[str, float] = field(default_factory=dict)  # tasks, and until when they must have ended

    @property
    def slot(self) -> str:
        """The name of its slots."""
        return self.place.slots[0].name

    @property
    def room(self) -> int:
        """The number of tasks that it can still take."""
        return 0 if self.is_empty else len(self.place.slots) - len(self.tasks)

    def tell(self, do: str, files: Files | None = None, **values: Any) -> None:
        """Send it a message; that it has just died is seen elsewhere."""
        message = json.dumps({"do": do, "number": self.sent} | values).encode()
        self.sent += 1
        self.actor.tell.remote(message, files or {})

    def listen(self) -> Any:
        """Ask for its news; return what they will be."""
        return self.actor.listen.remote()

    def close(self) -> Any:
        """Ask it to end its processes; return what will be there once it has."""
        return self.actor.close.remote()


def start(place: Place, content: bytes, secret: bytes) -> Actor:
    """Start an actor; Ray does so once there is room, and tries nothing a second time."""
    import ray

    remote: Any = ray.remote
    host = remote(ray_host.Host)
    actor = host.options(
        num_cpus=place.cpus, num_gpus=place.gpus, scheduling_strategy=ray_cluster.on(place.node),
        max_restarts=0, max_task_retries=0, max_concurrency=CALLS,
    ).remote(content, secret)  # fmt: skip
    return Actor(place, actor, actor.listen.remote())


def kill(hosts: Iterable[Actor]) -> None:
    """Let Ray end actors at once."""
    import ray

    for host in hosts:
        with suppress(Exception):  # whatever Ray says of one that is dead
            ray.kill(host.actor, no_restart=True)
