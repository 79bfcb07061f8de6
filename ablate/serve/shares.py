"""Shares of the machine: studies that run at once divide its slots, and never double them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ablate import gpus
from ablate.execution.executors import devices


@dataclass(frozen=True, slots=True)
class Machine:
    """The slots of this machine: its GPUs, or one for each core; none where others place the jobs."""

    slots: tuple[str, ...]
    device: str = "cpu"

    def share(self, studies: int, taken: Iterable[str]) -> tuple[str, ...] | None:
        """Return the slots of one more study, of so many at once; None where too few are free."""
        busy = set(taken)
        free = [slot for slot in self.slots if slot not in busy]
        size = max(1, len(self.slots) // studies)
        if not self.slots:
            return ()
        return tuple(free[:size]) if len(free) >= size else None

    def options(self, share: tuple[str, ...]) -> list[str]:
        """Return the options of a run that has a share: none where it has everything."""
        return (
            ["--jobs", str(len(share))] if self.device == "cpu" and 0 < len(share) < len(self.slots) else []
        )

    def environment(self, share: tuple[str, ...]) -> dict[str, str]:
        """Return the environment of a run that has a share."""
        return {gpus.MASK: ",".join(share)} if self.device == "cuda" and len(share) < len(self.slots) else {}


EVERYWHERE = Machine(())
"""Where the studies have no share of this machine."""


def machine(options: Sequence[str] = ()) -> Machine:
    """Return this machine as runs with such options see it."""
    words = [part for option in options for part in option.split("=", maxsplit=1)]
    given = dict(pairwise([*words, ""]))
    if given.get("--executor", "local") != "local" or "--jobs" in given:
        return EVERYWHERE
    laid_out = devices.slots(given.get("--device", "auto"), None)
    if laid_out[0].device == "cuda":
        return Machine(tuple(slot.environment[gpus.MASK] for slot in laid_out), "cuda")
    return Machine(tuple(slot.name for slot in laid_out))
