"""A process on a node of a cluster: it takes tasks out of a mailbox and runs them, as on one machine.

It is one element of a job array. Its workers are those of `local`, warm from task to task, with all that is
known there of crashes, kills and want of memory. It ends when nothing is left to do. A signal before its time
limit, or one that comes with a preemption, lets the tasks save their work: they go back into the mailbox, and
the element into Slurm's queue.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from ablate.errors import AblateError, UnwritableError
from ablate.execution.executors import devices
from ablate.execution.executors.base import ENDS, Event, Json, Options, Program
from ablate.execution.executors.local import LocalExecutor
from ablate.execution.executors.mailbox import Mailbox, Tail

TICK = 0.1  # seconds between two looks at the mailbox
IDLE = 10.0  # seconds for which an agent that had something to do waits for more
BEAT = 5.0  # seconds between two signs of life of one task
FULL_DISK = 5.0  # seconds between two tries to say something on a disk that takes nothing


@dataclass(frozen=True, slots=True)
class Posted:
    """A task of the mailbox, under the name that it has there."""

    id: str
    payload: Json

    def to_json(self) -> Json:
        """Return what the worker's function gets."""
        return self.payload


@dataclass(slots=True)
class Agent:
    """What an agent has taken and said."""

    mailbox: Mailbox
    who: str  # the element and its life, as Slurm counts them: 17_3.0
    executor: LocalExecutor
    held: set[str] = field(default_factory=set)  # tasks
    asked: dict[str, str] = field(default_factory=dict)  # what was done about them
    beats: dict[str, float] = field(default_factory=dict)
    leaves: str = ""  # why it takes no more tasks
    is_hurried: bool = False  # there is no time to wait for the tasks
    must_return: bool = False  # its time is up: it goes back into the queue

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Hear of the time limit, or of Slurm's wish to end it: the second time there is no time left."""
        self.is_hurried = bool(self.leaves)
        self.must_return |= number == signal.SIGUSR1
        self.leaves = self.leaves or (
            "its time limit is near" if number == signal.SIGUSR1 else "Slurm ends or preempts it"
        )

    def run(self) -> None:
        """Take task after task until there is nothing to do, or until it must leave."""
        has_stopped, since = False, time.monotonic()
        while not self.mailbox.is_closed and not self.is_hurried:
            if self.leaves and not has_stopped:
                has_stopped = True
                self.executor.stop()
            if not self.leaves:
                self._take()
            if self.held:
                since = time.monotonic()
                self._obey()
            elif self.leaves or time.monotonic() - since > IDLE:
                break
            for event in self.executor.events(TICK):
                self._pass_on(event)
        for name in self.held if self.is_hurried else ():
            self._give_back(name)
        if not self.leaves:  # else it may come back
            self._say({"kind": "gone"})

    def resume(self, names: list[str]) -> None:
        """Go on with what an earlier life of this element has left."""
        for name in names:
            self.mailbox.inherit(name, self.who)
            self._run(name)

    def _take(self) -> None:
        if self.executor.free():
            for name in self.mailbox.unclaimed():
                if self.mailbox.claim(name, self.who):
                    self._run(name)
                if not self.executor.free():
                    return

    def _run(self, name: str) -> None:
        content = self.mailbox.read(name)
        if content is None:
            self.mailbox.release(name)
            return
        self.held.add(name)
        self.executor.submit(Posted(name, content["payload"]), exclusive=content["exclusive"])

    def _obey(self) -> None:
        """Do what the coordinator asks, once."""
        for name, what in self.mailbox.requests().items():
            if name in self.held and self.asked.get(name) != what:
                self.asked[name] = what
                (self.executor.kill if what == "kill" else self.executor.cancel)(name)

    def _pass_on(self, event: Event) -> None:
        """Report what is heard of a task; one that has stopped only since this agent leaves is given back."""
        if event.kind == "queued" or (event.kind == "alive" and not self._is_due(event.task)):
            return
        if event.kind in ENDS:
            self.held.discard(event.task)
            self.beats.pop(event.task, None)
        if event.kind == "stopped" and event.task not in self.asked and self.leaves:
            self._give_back(event.task)
            return
        line = {"kind": event.kind, "task": event.task, "slot": event.slot}
        self._say(
            line | ({"detail": event.detail} if event.detail else {})
            | ({"error": event.error} if event.error else {})
        )  # fmt: skip

    def _is_due(self, task: str) -> bool:
        now = time.monotonic()
        if now - self.beats.get(task, -BEAT) < BEAT:
            return False
        self.beats[task] = now
        return True

    def _give_back(self, name: str) -> None:
        """Report that a task waits again, and let any agent have it."""
        self._say({"kind": "queued", "task": name, "error": self.leaves})
        self.mailbox.release(name)

    def _say(self, line: Json) -> None:
        """Append a line; on a full disk, wait for room unless there is no time: an end must not get lost."""
        content = (json.dumps(line) + "\n").encode()
        while True:
            try:
                with self.mailbox.news(self.who).open("ab", buffering=0) as file:
                    file.write(content)
                return
            except FileNotFoundError:  # the mailbox was removed: nobody listens
                return
            except OSError:
                if self.is_hurried or line["kind"] in ("alive", "progress", "gone"):
                    return
                time.sleep(FULL_DISK)


def _left_behind(mailbox: Mailbox, element: str, who: str) -> list[str]:
    """Return the tasks that an element had when it was ended, and that have not ended."""
    names = [
        name for name, owner in mailbox.claimed() if owner != who and owner.rpartition(".")[0] == element
    ]
    if not names:
        return []
    ended = {
        line.get("task")
        for life in mailbox.lives()
        if life.rpartition(".")[0] == element
        for line in Tail(mailbox.news(life)).read()
        if line["kind"] in ENDS
    }
    return [name for name in names if name not in ended]


def serve(mailbox: Mailbox, program: Program, options: Options, element: str, life: str) -> bool:
    """Work as this life of an element; return whether it has to go back into the queue."""
    mailbox.check()
    who = f"{element}.{life}"
    left = _left_behind(mailbox, element, who)
    if mailbox.is_closed or not (left or mailbox.unclaimed()):
        return False
    slots = devices.slots_of(options)
    executor = LocalExecutor(program.function, slots, program.preload, program.preflight)
    with closing(executor):
        agent = Agent(mailbox, who, executor)
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, agent.handle)
        agent.resume(left)
        agent.run()
    return agent.must_return


def main(arguments: list[str]) -> int:
    """Run an agent; the numbers of the element come from Slurm."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--function", required=True)
    parser.add_argument("--preload", default="")
    parser.add_argument("--preflight", default="")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--jobs-per-gpu", type=int, default=1)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is something to save
    element = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    life = os.environ.get("SLURM_RESTART_COUNT", "0")
    print(f"{time.strftime('%F %T')} {element} on {socket.gethostname()}, start {life}", flush=True)
    program = Program(given.function, tuple(filter(None, given.preload.split(","))), given.preflight)
    options = Options(given.device, given.jobs, jobs_per_gpu=given.jobs_per_gpu)
    try:
        must_return = serve(Mailbox(given.folder), program, options, element, life)
    except (AblateError, UnwritableError, RuntimeError) as error:
        print(f"error: {error}", flush=True)
        return 2
    if must_return:
        with suppress(OSError):  # where it is not allowed, the coordinator submits another element
            requeue = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
            subprocess.run(requeue, check=False)  # noqa: S603 (Slurm's own words)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
