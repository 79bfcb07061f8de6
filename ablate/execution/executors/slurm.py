"""Tasks on a cluster of Slurm: job arrays of agents, which take tasks out of a mailbox in the store.

An element of an array is a place where tasks run one after another, with warm workers, for as long as there
are any and its time allows: to start a job of Slurm and to import torch takes five seconds, which short tasks
would not be worth. No more elements are asked for than there are tasks, so that each long task gets its own.

All that must outlive this process stands in the mailbox. So the same command follows what an earlier one has
left running, however that ended.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ablate.execution.executors.base import ENDS, Event, Json, Kind, Program, Task
from ablate.execution.executors.mailbox import COORDINATOR, Mailbox, Tail
from ablate.execution.executors.slurm_elements import Array, Change, Elements
from ablate.hardware import Resources

LOOK = 0.05  # seconds between two looks at the news, at least
SHARE = 0.05  # of the time that looking may take
ANSWER = 30.0  # seconds in which an agent must have killed a task
FRUITLESS = 3  # lives of a task without any progress that a time limit has ended


@dataclass(slots=True)
class _Open:
    """A task that has not ended."""

    task: str
    name: str  # in the mailbox
    who: str = ""  # the life of an element that runs it
    slot: str = ""
    progress: bool = False  # since it has started
    fruitless: int = 0
    killed: float | None = None  # when the agent was asked to kill it

    @property
    def element(self) -> str:
        """The element that runs it; empty if none."""
        return _element(self.who)


class SlurmExecutor:
    """An Executor of job arrays."""

    elements: type[Elements] = Elements

    def __init__(
        self,
        program: Program,
        array: Array,
        *,
        detach: bool = False,
        leaves: Callable[[], bool] = bool,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open the mailbox, and take up what an earlier process has left running.

        `detach`: let go of all tasks as soon as they are submitted; `leaves`: asked where a user wants to
        stop, whether what runs is left alone; `notice` hears what Slurm does, in words.
        """
        self._array, self._mailbox, self._detach = array, Mailbox(array.folder), detach
        self._leaves, self._notice = leaves, notice
        self._open: dict[str, _Open] = {}
        self._by_name: dict[str, _Open] = {}
        self._news: deque[Event] = deque()
        self._tails: dict[str, Tail] = {}
        self._history: dict[str, list[Json]] = {}  # of tasks that nobody has submitted to us yet
        self._next_look = 0.0
        self._is_left = self._is_closed = False
        self._elements = self.elements(array, program, notice)
        self._posted: dict[str, tuple[str, Json]] = {}  # by an earlier process: names and contents
        self._take_up()

    def _take_up(self) -> None:
        """Read what an earlier process has left: its tasks, if there are elements that run them."""
        if not self._elements.alive:
            self._mailbox.clear()
        self._mailbox.make()
        names = self._mailbox.names()
        self._number = int(names[-1].split("-")[0]) + 1 if names else 0
        self._listen()
        for name in names:
            if any(line["kind"] in ENDS for line in self._history.get(name, ())):
                self._mailbox.remove(name)  # nobody has asked for its result, which lies in the store
            elif (content := self._mailbox.read(name)) is not None:
                self._posted[content["id"]] = (name, content)
        if self._elements.alive:
            arrays = ", ".join(sorted({key.split("_")[0] for key in self._elements.alive}, key=int))
            self._notice(f"Slurm has array {arrays} of an earlier command: it is followed")

    def resources(self) -> Resources:
        """Return what the array is allowed to have."""
        return self._array.resources

    def free(self) -> int:
        """Count the tasks that are allowed beside those that have not ended."""
        return max(0, self._array.jobs - len(self._open))

    def submit(self, task: Task, *, exclusive: bool = False) -> None:
        """Leave a task in the mailbox, unless it lies there: then its news are heard from the beginning."""
        content = {"id": task.id, "payload": task.to_json(), "exclusive": exclusive}
        self._news.append(Event("queued", task.id, ""))
        name, before = self._posted.pop(task.id, ("", {}))
        if name and _work(before) == _work(content):
            self._adopt(_Open(task.id, name))
            return
        if name and self._mailbox.claim(name, COORDINATOR):
            self._mailbox.remove(name)
        elif name:  # it does what nobody wants any more
            self._mailbox.request(name, "stop")
        self._add(_Open(task.id, self._mailbox.post(self._number, task.id, content)))
        self._number += 1

    def _add(self, entry: _Open) -> None:
        self._open[entry.task] = self._by_name[entry.name] = entry

    def _adopt(self, entry: _Open) -> None:
        """Follow a task of an earlier process; one whose element is gone waits for another."""
        self._add(entry)
        for line in self._history.pop(entry.name, []):
            self._hear(line, line["who"])
        owner = self._mailbox.owner(entry.name)
        if entry.task in self._open and owner is not None and _element(owner) not in self._elements.alive:
            self._mailbox.release(entry.name)
            self._wait_again(entry)

    def events(self, timeout: float) -> list[Event]:
        """Submit elements for what waits, and wait for news of the agents and of Slurm."""
        until = time.monotonic() + timeout
        for change in self._elements.ask(self._listen):
            self._take_in(change)
        self._elements.provide(len(self._open))
        if self._detach:
            self._let_go()
        while True:
            if time.monotonic() >= self._next_look:
                began = time.monotonic()
                self._listen()
                now = time.monotonic()
                self._next_look = now + max(LOOK, (now - began) / SHARE)
            if self._news or time.monotonic() >= until:
                break
            time.sleep(max(0.0, min(self._next_look, until) - time.monotonic()))
        self._insist()
        heard = list(self._news)
        self._news.clear()
        return heard

    # News

    def _take_in(self, change: Change) -> None:
        """Hear what Slurm says of an element."""
        tasks = [entry for entry in self._open.values() if entry.element == change.key]
        if change.kind == "held":  # no clock runs against its tasks
            self._news += [Event("alive", entry.task, entry.slot) for entry in tasks]
        elif change.kind == "lost":
            if tasks:  # else its agent has given them back
                place = f"node {change.node}" if change.node else "its node"
                self._notice(
                    f"{change.key}: {place} was lost, or the job preempted; Slurm has it in its queue again"
                )
            for entry in tasks:
                if self._mailbox.owner(entry.name) == entry.who:  # and not its next life
                    self._mailbox.release(entry.name)
                self._wait_again(entry)
        else:
            self._end_tasks_of(change)

    def _end_tasks_of(self, change: Change) -> None:
        """End the tasks of an element that has ended; those that nobody has stay in the mailbox."""
        kind: Kind = "out_of_memory" if change.state == "OUT_OF_MEMORY" else "killed"
        where = f" on {change.node}" if change.node else ""
        reason = ", ".join(part for part in (change.state, change.reason) if part not in ("", "None"))
        for name, owner in self._mailbox.claimed():
            entry = self._by_name.get(name)
            if entry is not None and (not owner or _element(owner) == change.key):
                error = f"Slurm's job {change.key}{where} has ended: {reason}"
                self._close(entry, Event(kind, entry.task, entry.slot, error=error))

    def _listen(self) -> None:
        """Read what the agents have said."""
        for who in self._mailbox.lives():
            tail = self._tails.setdefault(who, Tail(self._mailbox.news(who)))
            for line in tail.read():
                self._elements.speaks(_element(who))
                if line["kind"] == "gone":
                    self._elements.goes(_element(who))
                elif line.get("task") in self._by_name:
                    self._hear(line, who)
                elif "task" in line:
                    self._history.setdefault(line["task"], []).append(line | {"who": who})

    def _hear(self, line: Json, who: str) -> None:
        """Take in one line about a task."""
        entry = self._by_name.get(line["task"])
        if entry is None:
            return
        if line["kind"] == "queued":
            self._give_back(entry, line["error"])
            return
        slot = f"{_element(who)}/{line['slot']}" if self._array.each > 1 else _element(who)
        event = Event(line["kind"], entry.task, slot, line.get("detail", {}), line.get("error", ""))
        entry.who, entry.slot = who, slot
        entry.progress = event.kind != "started" and (entry.progress or event.kind == "progress")
        if event.kind in ENDS:
            self._close(entry, event)
        else:
            self._news.append(event)

    def _give_back(self, entry: _Open, why: str) -> None:
        """Hear that an agent has to leave, and the task waits for another."""
        entry.fruitless = 0 if entry.progress else entry.fruitless + 1
        self._notice(f"{entry.element} gives its task back: {why}")
        self._wait_again(entry)
        if entry.fruitless >= FRUITLESS and self._mailbox.claim(entry.name, COORDINATOR):
            error = (
                f"{FRUITLESS} times its element had to leave before anything was done: "
                "ask for more time, such as --slurm time=4:00:00"
            )
            self._close(entry, Event("failed", entry.task, "", error=error))

    def _wait_again(self, entry: _Open) -> None:
        """Let a task wait for another start; no clock runs against it."""
        entry.who, entry.progress = "", False
        self._news.append(Event("queued", entry.task, ""))

    def _close(self, entry: _Open, event: Event) -> None:
        """Hear the end of a task."""
        self._news.append(event)
        self._mailbox.remove(entry.name)
        del self._open[entry.task], self._by_name[entry.name]

    # Stopping

    def cancel(self, task: str) -> None:
        """Ask one task to stop."""
        self._request(task, "stop")

    def kill(self, task: str) -> None:
        """End the process of one task."""
        self._request(task, "kill")

    def _request(self, task: str, what: str) -> None:
        entry = self._open.get(task)
        if entry is None:
            return
        if self._mailbox.claim(entry.name, COORDINATOR):
            kind: Kind = "killed" if what == "kill" else "stopped"
            self._close(entry, Event(kind, task, "", error="ended before it had begun"))
        else:
            self._mailbox.request(entry.name, what)
            entry.killed = time.monotonic() if what == "kill" else entry.killed

    def _insist(self) -> None:
        """Cancel the elements whose agents do not kill what they were asked to: they may stand still."""
        now = time.monotonic()
        for entry in self._open.values():
            if entry.killed is not None and now - entry.killed > ANSWER and entry.who:
                entry.killed = now
                self._elements.cancel(entry.element)

    def stop(self) -> None:
        """Ask every task to stop, unless the user leaves them running."""
        if self._leaves():
            self._let_go()
            return
        for task in list(self._open):
            self.cancel(task)

    def _let_go(self) -> None:
        """Follow the tasks no further: the agents go on without us."""
        for entry in self._open.values():
            self._is_left = True
            self._news.append(Event("left", entry.task, entry.slot))
        self._open.clear()
        self._by_name.clear()

    def close(self) -> None:
        """End all elements, and remove the mailbox once they have; where tasks were left, do nothing."""
        if self._is_left or self._is_closed:
            return
        self._is_closed = True
        with suppress(OSError):  # a full disk: Slurm is asked all the same
            self._mailbox.close()
        if self._elements.close():
            self._mailbox.clear()


def _element(who: str) -> str:
    """Return the element of which this is a life."""
    return who.rpartition(".")[0]


def _work(content: Json) -> Json:
    """Return what a task does; what else stands in it, such as the commit of the code, may differ."""
    payload = {name: value for name, value in content["payload"].items() if name != "context"}
    return {"payload": payload, "exclusive": content["exclusive"]}
