"""Tasks on a Ray cluster: an actor for each GPU, or for the CPU cores of a job, with warm workers inside.

Each actor is pinned to a node, so that nothing waits in silence for what the cluster does not have. Ray tries
nothing again: who was lost is told, and the scheduler decides. Where a node does not see the store, tasks
travel with their files, and what they write comes back with what they say.
"""

import importlib
import json
import os
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ablate.errors import AblateError, UnwritableError
from ablate.execution.executors import ray_actor, ray_cluster, ray_host
from ablate.execution.executors.base import ENDS, Event, Files, Json, Program, Task
from ablate.execution.executors.ray_actor import Actor
from ablate.execution.executors.ray_cluster import Place
from ablate.hardware import Resources
from ablate.messages import count

GRACE = 15.0  # seconds in which an actor must have ended a task's process, or all of its own
BAD_STARTS = 3  # of actors in one place, none of which came up


@dataclass(slots=True, eq=False)
class _Queued:
    task: Task
    exclusive: bool
    host: "Actor | None" = None  # that it waits for, unless another one is free before that comes up


class RayExecutor:
    """An Executor of a Ray cluster, to which this process is connected."""

    def __init__(self, program: Program, places: tuple[Place, ...], precision: str = "fp32") -> None:
        """Start an actor in every place; they come up in the background, as soon as Ray has room there."""
        self._program, self._precision = program, precision
        self._places = list(places)  # that may have a host
        self._token, self._secret = _token(program)
        self._queue: list[_Queued] = []
        self._reserved: dict[str, str] = {}  # memory -> the task that has it for itself, or waits for that
        self._told: set[str] = set()  # tasks of which it was said that another process has them
        self._news: list[Event] = []
        self._bad_starts: dict[str, int] = {}  # by slot
        self._hosts = [self._start(place) for place in places]

    def _start(self, place: Place) -> Actor:
        return ray_actor.start(place, self._as_bytes(place), self._secret)

    def _as_bytes(self, place: Place) -> bytes:
        slots = [asdict(slot) | {"environment": dict(slot.environment)} for slot in place.slots]
        start = {
            "program": asdict(self._program),
            "slots": slots,
            "token": self._token,
            "paths": _own_paths(),
        }
        return json.dumps(start).encode()

    def resources(self) -> Resources:
        """Return what the places offer that are left."""
        sees_store = not any(host.travels for host in self._hosts)
        return ray_cluster.resources(
            [host.place for host in self._hosts], self._precision, shares_store=sees_store
        )

    def free(self) -> int:
        """Count the idle slots that nobody queues for, but for those in a memory that is reserved."""
        idle = sum(host.room for host in self._hosts if host.place.memory not in self._reserved)
        return max(0, idle - sum(not queued.exclusive for queued in self._queue))

    def submit(self, task: Task, *, exclusive: bool = False) -> None:
        """Queue a task, and start it if a slot is free; an exclusive one gets the emptiest memory."""
        self._queue.append(_Queued(task, exclusive))
        self._news.append(Event("queued", task.id, ""))
        self._place()

    def _place(self) -> None:
        """Start what is queued and has a slot now, in its order."""
        for queued in list(self._queue):
            host = self._alone_for(queued) if queued.exclusive else self._beside_others(queued)
            if host is not None and host.is_up and self._give(host, queued):
                self._queue.remove(queued)

    def _beside_others(self, queued: _Queued) -> Actor | None:
        """Return the emptiest host, of those that are up if one of them has room; None where none has."""
        if queued.host is not None and queued.host.is_up:
            return queued.host
        hosts = [h for h in self._hosts if h.place.memory not in self._reserved and self._room(h, queued) > 0]
        host = min(hosts, key=lambda host: (not host.is_up, len(host.tasks)), default=queued.host)
        queued.host = host
        return host

    def _room(self, host: Actor, but: _Queued) -> int:
        """Count the tasks that a host can still take, beside those that wait for it."""
        waiting = sum(other.host is host and other is not but for other in self._queue)
        return host.room - waiting

    def _alone_for(self, queued: _Queued) -> Actor | None:
        """Reserve a memory for a task; return the only host left there once all other tasks have gone."""
        task = queued.task.id
        memories = list(dict.fromkeys(host.place.memory for host in self._hosts))
        memory = next((memory for memory in memories if self._reserved.get(memory) == task), None)
        if memory is None:
            unreserved = [memory for memory in memories if memory not in self._reserved]
            if not unreserved:
                return None
            memory = min(
                unreserved, key=lambda memory: (not self._sharing(memory)[0].is_up, self._busy(memory))
            )
            self._reserved[memory] = task
        first, *others = self._sharing(memory)
        if self._busy(memory) or not first.is_up:
            return None
        for other in others:
            self._empty(other)
        return first

    def _empty(self, host: Actor) -> None:
        """Let a host end its idle processes, and start none."""
        if not host.is_empty and host.is_up:
            host.is_empty = True
            host.tell("vacate")

    def _sharing(self, memory: str) -> list[Actor]:
        hosts = [host for host in self._hosts if host.place.memory == memory]
        return sorted(hosts, key=lambda host: not host.is_up)

    def _busy(self, memory: str) -> int:
        waiting = [queued.host for queued in self._queue if queued.host is not None]
        running = [host for host in self._hosts for _ in host.tasks]
        return sum(host.place.memory == memory for host in (*running, *waiting))

    def _give(self, host: Actor, queued: _Queued) -> bool:
        """Give a host a task, with its files if it needs them; False while another process has the task."""
        task, payload, trip = queued.task.id, queued.task.to_json(), None
        if host.travels:
            try:
                trip = importlib.import_module(self._program.travel).depart(payload)
            except (AblateError, OSError) as error:
                self._news.append(Event("failed", task, "", error=str(error)))
                return True
            if trip is None:
                if task not in self._told:
                    self._told.add(task)
                    waits = {"elsewhere": "waits for another process, which trains it"}
                    self._news.append(Event("progress", task, "", waits))
                return False
        host.tasks[task] = trip
        self._news.append(Event("started", task, host.slot))
        files = trip.files if trip is not None else {}
        host.tell("submit", files, task=task, payload=payload, exclusive=queued.exclusive)
        return True

    def events(self, timeout: float) -> list[Event]:
        """Wait for news of the actors; one that is lost is replaced, unless its node is."""
        import ray

        hosts = {host.listening: host for host in self._hosts}
        heard, self._news = self._news, []
        ready: list[Any] = []
        if hosts:
            ready, _ = ray.wait(list(hosts), timeout=0 if heard else timeout)
        else:
            time.sleep(0 if heard else timeout)
        if ready:  # all that are, now
            ready, _ = ray.wait(list(hosts), num_returns=len(hosts), timeout=0)
        for reference in ready:
            heard += self._hear(hosts[reference])
        self._look()
        over = {event.task for event in heard if event.kind in ENDS}
        for memory in [memory for memory, task in self._reserved.items() if task in over]:
            self._open(memory)
        self._place()
        return heard

    def _open(self, memory: str) -> None:
        """Let others into a memory again."""
        self._reserved.pop(memory, None)
        for host in self._sharing(memory):
            if host.is_empty:
                host.is_empty = False
                host.tell("return")

    def _hear(self, host: Actor) -> list[Event]:
        """Take in what a host has said, or its loss."""
        import ray
        from ray.exceptions import RayError

        try:
            parcels = ray.get(host.listening)
        except RayError as error:
            return self._lose(host, error)
        heard: list[Event] = []
        for content, files in parcels:
            message = json.loads(content)
            if message["kind"] == "up":
                host.is_up, host.travels = True, message["travels"]
                self._bad_starts.pop(host.slot, None)
                owner = self._reserved.get(host.place.memory)
                if any(owner in other.tasks for other in self._sharing(host.place.memory)):
                    self._empty(host)
            elif message["kind"] == "broken":
                return heard + self._give_up(host, message["error"])
            elif message["task"] in host.tasks:
                heard += self._take(host, message, files)
        host.listening = host.listen()
        return heard

    def _take(self, host: Actor, message: Json, files: Files) -> list[Event]:
        """Take in one message about a task, after the files that it speaks of."""
        task, kind = message["task"], message["kind"]
        trip = host.tasks[task]
        try:
            if trip is not None and files:
                trip.receive(files)
        except (AblateError, OSError) as error:  # a full disk, or another process has taken over the folder
            host.tell("kill", task=task)
            kind = "unwritable" if isinstance(error, UnwritableError) else "killed"
            message = {"error": str(error)}
        if kind in ("queued", "started"):  # which we have said ourselves
            return []
        if kind in ENDS:
            self._end(host, task)
        return [Event(kind, task, host.slot, message.get("detail", {}), message.get("error", ""))]

    def _end(self, host: Actor, task: str) -> None:
        trip = host.tasks.pop(task)
        host.killed.pop(task, None)
        if trip is not None:
            trip.end()

    def _lose(self, host: Actor, error: Exception) -> list[Event]:
        """Do without an actor that has died or cannot be reached: no fault of its tasks."""
        from ray.exceptions import ActorUnschedulableError, RayTaskError

        if isinstance(error, RayTaskError):  # of the host's own, in the words of whoever raised it
            return self._give_up(host, str(error).strip().splitlines()[-1])
        where = host.place.where
        is_node = isinstance(error, ActorUnschedulableError) or not ray_cluster.is_alive(host.place.node)
        why = f"the node {where} of the Ray cluster is lost" if is_node else _reason(where, str(error))
        heard = self._drop(host, "out_of_memory" if "memory monitor" in str(error) else "killed", why)
        if is_node:
            return heard + self._forget(host.place.node)
        bad = self._bad_starts[host.slot] = self._bad_starts.get(host.slot, 0) + 1
        if bad >= BAD_STARTS:
            return heard + self._without(host, f"no process of ablate comes up there: {why}")
        self._hosts.append(self._start(host.place))
        return heard

    def _drop(self, host: Actor, kind: Literal["killed", "out_of_memory"], why: str) -> list[Event]:
        """Take a host out, and end what ran there."""
        ray_actor.kill([host])
        self._hosts.remove(host)
        for queued in self._queue:
            queued.host = None if queued.host is host else queued.host
        tasks = list(host.tasks)
        for task in tasks:
            self._end(host, task)
        return [Event(kind, task, host.slot, error=why) for task in tasks]

    def _forget(self, node: str) -> list[Event]:
        """Do without a node that is lost; the others are told once. One that comes has a name of its own."""
        gone = [place for place in self._places if place.node == node]
        if not gone:
            return []
        self._places = [place for place in self._places if place.node != node]
        heard: list[Event] = []
        for host in [host for host in self._hosts if host.place.node == node]:
            heard += self._drop(host, "killed", f"the node {gone[0].where} of the Ray cluster is lost")
        slots = count(sum(len(place.slots) for place in gone), "slot")
        return heard + self._notice(f"the node {gone[0].where} of the Ray cluster is lost, with {slots}")

    def _notice(self, text: str) -> list[Event]:
        """Tell whoever still runs; raise an AblateError where nothing is left to run on."""
        if not self._hosts:
            self.close()
            raise AblateError(f"{text}, and nothing is left: the same command goes on from here")
        running = (task for host in self._hosts for task in host.tasks)
        task = next(running, next((queued.task.id for queued in self._queue), ""))
        return [Event("progress", task, "", {"notice": text})]

    def _give_up(self, host: Actor, why: str) -> list[Event]:
        """Do without a place whose workers cannot start, or whose device refuses them."""
        said = why.replace("its error stands above", f"its error stands in Ray's logs on {host.place.where}")
        return self._drop(host, "killed", said) + self._without(host, said)

    def _without(self, host: Actor, why: str) -> list[Event]:
        self._places.remove(host.place)
        return self._notice(f"the slot {host.slot} is given up: {why}")

    def _look(self) -> None:
        """Give up the actors that cannot even kill a task."""
        now = time.monotonic()
        for host in list(self._hosts):
            if any(until < now for until in host.killed.values()):
                self._news += self._drop(host, "killed", f"no answer from {host.place.where}")
                self._hosts.append(self._start(host.place))

    def cancel(self, task: str) -> None:
        """Ask one task to stop."""
        if not self._tell(task, "cancel"):
            self._withdraw(task, "stopped")

    def kill(self, task: str) -> None:
        """End the process of one task."""
        if (host := self._tell(task, "kill")) is not None:
            host.killed[task] = time.monotonic() + GRACE
        else:
            self._withdraw(task, "killed")

    def _tell(self, task: str, do: str) -> Actor | None:
        """Tell the host of a task; None where the task has none."""
        for host in self._hosts:
            if task in host.tasks:
                host.tell(do, task=task)
                return host
        return None

    def _withdraw(self, task: str, kind: Literal["stopped", "killed"]) -> None:
        """End a task that is queued."""
        for queued in [queued for queued in self._queue if queued.task.id == task]:
            self._queue.remove(queued)
            self._news.append(Event(kind, task, "", error="ended before it had begun"))

    def stop(self) -> None:
        """Ask every task to stop, running or queued."""
        running = [task for host in self._hosts for task in host.tasks]
        for task in [*running, *(queued.task.id for queued in self._queue)]:
            self.cancel(task)

    def close(self) -> None:
        """Let the actors end their processes; what does not answer in time is ended by Ray."""
        import ray

        hosts, self._hosts = self._hosts, []
        if hosts:
            closing = [host.close() for host in hosts if host.is_up]
            if closing:
                ray.wait(closing, num_returns=len(closing), timeout=GRACE)
            ray_actor.kill(hosts)
        for host in hosts:
            for task in list(host.tasks):
                self._end(host, task)
        with suppress(OSError):
            Path(self._token).unlink()


def _reason(where: str, error: str) -> str:
    """Return what a sentence can say of the death of an actor whose node lives."""
    if "unavailable" in error:
        return f"the node {where} of the Ray cluster does not answer"
    return f"Ray's process on the node {where} has ended"


def _token(program: Program) -> tuple[str, bytes]:
    """Write a file into the store that no other file is like, and return its path and its content.

    A node that finds it sees the store. Its name is that of a draft, which is removed if it is left behind.
    """
    if not program.travel:
        return "", b""
    path, secret = f"{program.store}/data/.token.{secrets.token_hex(4)}", secrets.token_bytes(ray_host.TOKEN)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return path, secret


def _own_paths() -> list[str]:
    """Return the folders that Ray adds to Python's path on every node, and where nothing of ours lies."""
    return [str(Path.cwd()), str(Path(sys.argv[0]).resolve().parent)]
