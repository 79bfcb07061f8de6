"""What is said to Slurm, and what it answers: sbatch, squeue, scancel, scontrol. No accounting is needed."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from ablate.errors import AblateError

PATIENCE = 120.0  # seconds for an answer: sbatch itself tries again where the controller is busy
LONGEST_ARRAY = 1001  # MaxArraySize where Slurm does not tell
OURS = frozenset({
    "array", "chdir", "clusters", "dependency", "error", "export", "help", "input", "job-name", "no-requeue",
    "ntasks", "open-mode", "output", "parsable", "requeue", "signal", "test-only", "wait", "wrap",
})  # fmt: skip
"""Options of sbatch that the executor sets, or that would break it."""
FLAGS = frozenset({"contiguous", "exclusive", "overcommit", "oversubscribe", "spread-job", "use-min-nodes"})
"""Options that may stand without a value, in the middle of a list."""
LIMITS = re.compile(r"QOSM|AssocM|submit limit|quota|MaxSubmit", re.IGNORECASE)
"""What Slurm says where a user has submitted too much, such as QOSMaxSubmitJobPerUserLimit."""
LEAD, LEAST_LEAD = 120, 10
"""Seconds before the time limit at which a job is told; less where the limit itself is short."""
ENDED = frozenset({
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT",
})  # fmt: skip


class RefusedError(AblateError):
    """Slurm does not take a job."""

    @property
    def is_limit(self) -> bool:
        """Whether it would take fewer, or take it later."""
        return bool(LIMITS.search(str(self)))


@dataclass(frozen=True, slots=True)
class State:
    """An element of an array, as squeue shows it."""

    state: str
    node: str
    reason: str


def options(texts: Iterable[str]) -> dict[str, str]:
    """Read `partition=gpu,time=2:00:00,nodelist=n1,n2,exclusive`: options of sbatch, by name.

    A part without a name belongs to the value before it, unless it is one of the FLAGS.
    """
    chosen: dict[str, str] = {}
    last = ""
    for part in (part for text in texts for part in text.split(",")):
        name, equals, value = part.partition("=")
        name = name.strip().removeprefix("--")
        if not equals and last and name not in FLAGS:
            chosen[last] += f",{part}"
            continue
        if not re.fullmatch(r"[a-z][a-z-]*", name):
            raise AblateError(
                "--slurm must be options of sbatch such as partition=gpu,time=2:00:00,gres=gpu:1, "
                f"got {part!r}"
            )
        if name in OURS:
            raise AblateError(f"--slurm {name}: ablate sets that itself: leave it out")
        if equals and not value:
            raise AblateError(f"--slurm {name} must have a value after the =, or no =")
        chosen[name], last = value, name if equals else ""
    return chosen


def gpus(chosen: dict[str, str]) -> int:
    """Return the number of GPUs that these options give to an element."""
    for name in ("gpus", "gpus-per-node", "gpus-per-task", "gres"):
        for part in chosen.get(name, "").split(","):
            words = part.split(":")
            if part and (name != "gres" or words[0] in ("gpu", "gres/gpu")):
                return int(words[-1]) if words[-1].isdecimal() else 1
    return 0


def is_here() -> bool:
    """Whether this machine submits to Slurm."""
    return shutil.which("sbatch") is not None


def submit(command: str, elements: int, *, name: str, log: str, extra: dict[str, str], cores: int) -> str:
    """Submit an array that runs a shell's command; return its id. Raises a RefusedError with the reason."""
    arguments = {
        "job-name": name, "array": f"0-{elements - 1}", "output": log, "open-mode": "append",
        "signal": f"B:USR1@{lead(extra.get('time', ''))}", "cpus-per-task": str(cores),
    } | extra  # fmt: skip
    said = [f"--{option}={value}" if value else f"--{option}" for option, value in arguments.items()]
    script = f"#!/bin/sh\nexec {command}\n"
    answer = _call("sbatch", "--parsable", "--requeue", *said, stdin=script)
    if answer.returncode:
        raise RefusedError(f"Slurm refuses the job array: {_reason(answer.stderr)}")
    return answer.stdout.strip().split(";")[0]


@cache
def check(extra: tuple[tuple[str, str], ...]) -> None:
    """Raise a RefusedError where Slurm would not take a job with these options, limits aside."""
    said = [f"--{option}={value}" if value else f"--{option}" for option, value in extra]
    answer = _call("sbatch", "--test-only", *said, stdin="#!/bin/sh\n")
    refusal = RefusedError(f"Slurm refuses the job array: {_reason(answer.stderr)}")
    if answer.returncode and not refusal.is_limit:
        raise refusal


def states(name: str) -> dict[str, State] | None:
    """Return the elements of all arrays of this name that Slurm knows; None where it does not answer."""
    try:
        shown = ("--array", "--states=all", "--noheader", f"--name={name}")
        answer = _call("squeue", *shown, "--format=%i|%T|%N|%r")
    except AblateError:
        return None
    if answer.returncode:
        return None
    lines = (line.strip().split("|", 3) for line in answer.stdout.splitlines())
    return {line[0]: State(*line[1:]) for line in lines if len(line) == 4}


def cancel(elements: Iterable[str], *signal: str) -> None:
    """End elements, or whole arrays."""
    if names := list(elements):
        _call("scancel", "--quiet", *signal, *names)


@cache
def longest_array() -> int:
    """Return the most elements that one array may have."""
    answer = _call("scontrol", "show", "config")
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE)
    return max(1, (int(match[1]) if match else LONGEST_ARRAY) - 1)


def lead(time: str) -> int:
    """Return how long before a time limit a job is to be told, in seconds."""
    seconds = limit(time)
    return LEAD if seconds is None else max(LEAST_LEAD, min(LEAD, seconds // 4))


def limit(time: str) -> int | None:
    """Read a time limit as sbatch does: minutes, minutes:seconds, hours:minutes:seconds, days-hours[...]."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if match is None:
        return None
    days, first, second, third = match.groups()
    if days is not None or third is not None:  # hours come first
        hours, minutes, seconds = (int(part or 0) for part in (first, second, third))
    else:
        hours, minutes, seconds = 0, int(first), int(second or 0)
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _reason(stderr: str) -> str:
    """Return what sbatch says, in one line."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in stderr.splitlines() if line]
    for words in ("Batch job submission failed: ", "allocation failure: "):
        lines = [line.removeprefix(words) for line in lines]
    said = dict.fromkeys(line for line in lines if not line.startswith("Try "))
    return "; ".join(said) or "it gives no reason"


def _call(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of Slurm, with arguments that no shell reads."""
    try:
        return subprocess.run(  # noqa: S603 (Slurm's own programs)
            command, input=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE,
            start_new_session=True,  # Ctrl-C is for us
        )  # fmt: skip
    except FileNotFoundError:
        raise AblateError(
            f"--executor slurm needs {command[0]}: run it on a machine that submits to Slurm"
        ) from None
    except subprocess.TimeoutExpired:
        raise RefusedError(f"Slurm does not answer: {command[0]} took more than {PATIENCE:.0f} s") from None
