"""An executor without processes, whose jobs end as a script says, and the scheduler on it."""

from collections import deque
from collections.abc import Callable
from typing import Any

from plans import make, read

from ablate.execution import scheduler
from ablate.execution.executors.base import Event, Executor, Task
from ablate.execution.scheduler import Ledger, Policy
from ablate.hardware import Resources
from ablate.planning.plan import Work
from ablate.store.layout import Store
from ablate.store.tasks import Context


def work(here: Store, seeds: int) -> tuple[Work, ...]:
    """One job a seed, judged in two ways."""
    return make(read(seeds=seeds, factors={"evaluation": {"mc_dropout": [0, 20]}}), here).work


class Scripted:
    """An executor without processes: `script` says how each attempt at a job ends.

    A job that is not in it finishes.

    An end `asked` comes only after a request to stop. Every call is noted.

    """

    starts_at_once = True

    def __init__(self, slots: int, script: dict[str, list[str]] | None = None) -> None:
        self.slots = slots
        self.script = {job: deque(ends) for job, ends in (script or {}).items()}
        self.running: dict[str, Task] = {}
        self.calls: list[tuple[str, str]] = []
        self.most = 0
        self.asked = False
        self.news: list[Event] = []

    def resources(self) -> Resources:
        return Resources(self.slots, "cpu", "fp32")

    def free(self) -> int:
        return self.slots - len(self.running)

    def submit(self, task: Task, *, exclusive: bool = False) -> None:
        assert self.free() > 0, "there is no slot"
        assert task.id not in self.running, "it runs already"
        self.calls.append(("submit", task.id))
        self.running[task.id] = task
        self.news.append(Event("queued", task.id, ""))
        if self.starts_at_once:
            self.news.append(Event("started", task.id, "s"))
        self.most = max(self.most, len(self.running))

    def events(self, timeout: float) -> list[Event]:
        for job in list(self.running):
            ends = self.script.get(job, deque())
            end = ends[0] if ends else "finished"
            if end == "asked" and not self.asked:
                continue
            if ends:
                ends.popleft()
            del self.running[job]
            kind: Any = "stopped" if end == "asked" else end
            news = [Event("progress", job, "s", {"epoch": 1}), Event(kind, job, "s", error=f"because {end}")]
            return self.told() + news
        return self.told()

    def told(self) -> list[Event]:
        news, self.news = self.news, []
        return news

    def stop(self) -> None:
        self.calls.append(("stop", ""))
        self.asked = True

    def kill(self, task: str) -> None:
        self.calls.append(("kill", task))

    def cancel(self, task: str) -> None:
        self.calls.append(("cancel", task))

    def close(self) -> None:
        self.calls.append(("close", ""))

    def submitted(self) -> list[str]:
        return [job for call, job in self.calls if call == "submit"]


def run(
    todo: tuple[Work, ...],
    here: Store,
    executor: Executor,
    interrupted: Callable[[], bool] = lambda: False,
    is_trained: Callable[[str], bool] = lambda _: True,
    **policy: Any,
) -> tuple[Ledger, list[Event]]:
    heard: list[Event] = []
    ledger = scheduler.run(
        scheduler.Listed(todo, is_trained),
        here,
        executor,
        context=Context(git={"commit": "abc"}),
        interrupted=interrupted,
        listen=heard.append,
        policy=Policy(**policy),
    )
    return ledger, heard


def ids(todo: tuple[Work, ...]) -> list[str]:
    return [item.job.id for item in todo]
