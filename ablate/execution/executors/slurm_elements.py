"""The elements of job arrays that belong to one mailbox: as many as its tasks need, and what becomes of them.

Which there are is asked from Slurm, by the name of the jobs: so nothing has to be remembered, and an array
whose number was lost with the process that had submitted it is known all the same.
"""

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ablate import hardware, messages
from ablate.errors import AblateError
from ablate.execution.executors import slurm_commands
from ablate.execution.executors.base import Options, Program
from ablate.execution.executors.mailbox import Mailbox
from ablate.execution.executors.slurm_commands import ENDED, RefusedError, State
from ablate.hardware import Resources

USUAL_JOBS = 16  # at a time, where it is not known beforehand how many there will be
MISSING = 2  # times in a row that squeue lacks an element before it is taken for gone
SILENT = 2  # times in a row that squeue does not answer before that is told
BAD_STARTS = 3  # elements that have ended before they could say anything, after which more are hopeless
PAUSE = 60.0  # seconds before a user's limit is tried again
END = 60.0  # seconds for elements to end that were cancelled
USUAL_REASONS = ("None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Cleaning")
QUEUED = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})


@dataclass(frozen=True, slots=True)
class Array:
    """What an element of an array is, and how many there may be."""

    folder: Path  # of the mailbox: the same for the same work
    device: str  # cpu, cuda
    precision: str
    jobs: int  # tasks at a time, in all elements
    each: int = 1  # tasks at a time in one element
    per_gpu: int = 1
    cores: int = 1
    extra: Mapping[str, str] = field(default_factory=dict)  # options of sbatch

    @property
    def name(self) -> str:
        """The name of its jobs in Slurm, by which they are known again."""
        return Mailbox(self.folder).name

    @property
    def resources(self) -> Resources:
        """What it is allowed to have."""
        return Resources(
            slots=self.jobs,
            device=self.device,
            precision=self.precision,
            jobs_a_device=self.per_gpu,
            shares_memory=self.each > 1,
            shares_store=True,
            keeps_queue=True,
        )

    def command(self, program: Program) -> tuple[str, ...]:
        """Return what an element runs."""
        jobs = ("--jobs", str(self.each)) if self.device == "cpu" else ()
        return (
            # -P: no module is looked for in the current folder, which others may write to.
            sys.executable, "-P", "-m", "ablate.execution.executors.agent", str(self.folder),
            "--function", program.function, "--preload", ",".join(program.preload),
            "--preflight", program.preflight, "--device", self.device, "--jobs-per-gpu", str(self.per_gpu),
            *jobs,
        )  # fmt: skip


def array(options: Options) -> Array:
    """Return the arrays that a user's options ask for.

    Raises an AblateError where they do not fit together, or this machine does not submit to Slurm.
    """
    if not slurm_commands.is_here():
        raise AblateError(
            "--executor slurm needs sbatch: run it on a machine that submits to Slurm, such as its login node"
        )
    extra = slurm_commands.options(options.slurm)
    slurm_commands.check(tuple(extra.items()))
    gpus = slurm_commands.gpus(extra)
    if options.device == "cuda" and not gpus:
        raise AblateError("--device cuda needs a GPU in each element of the array: --slurm gres=gpu:1")
    device = "cuda" if gpus and options.device != "cpu" else "cpu"
    asked = extra.get("cpus-per-task", "")
    if asked and not asked.isdecimal():
        raise AblateError(f"--slurm cpus-per-task must be a number, got {asked}")
    each = gpus * options.jobs_per_gpu if device == "cuda" else max(1, int(asked or 1) // options.threads)
    jobs = options.jobs or options.most or USUAL_JOBS
    return Array(
        folder=options.folder or Path(),
        device=device,
        # No GPU of the cluster is here to be asked: those before Ampere need the precision in the study.
        precision="bf16" if device == "cuda" else hardware.precision("cpu"),
        jobs=jobs if options.most is None else min(jobs, options.most),
        each=each,
        per_gpu=options.jobs_per_gpu if device == "cuda" else 1,
        cores=int(asked or each * options.threads),
        extra=extra,
    )


@dataclass(slots=True)
class Element:
    """An element that has not ended."""

    state: str = "PENDING"
    node: str = ""
    missing: int = 0
    speaks: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What Slurm says is new of an element."""

    key: str  # 17_3
    kind: str  # lost: it is queued again; ended; held: it is neither queued nor running
    state: str
    node: str
    reason: str


class Elements:
    """All elements of one mailbox that have not ended."""

    every: float = 5.0  # seconds between two questions to Slurm

    def __init__(self, array: Array, program: Program, notice: Callable[[str], None]) -> None:
        """Ask Slurm which there are. Raises an AblateError where it does not answer."""
        self._array, self._program, self._notice = array, program, notice
        self._ours: set[str] = set()  # that we have cancelled
        self._reasons = set(USUAL_REASONS)  # to wait, that need not be told
        self._told: set[str] = set()
        self._asked = self._not_before = 0.0
        self._cancelled = self._bad_starts = self._silent = 0
        known = slurm_commands.states(array.name)
        if known is None:
            raise AblateError("Slurm does not answer: squeue fails; is its controller up?")
        self.alive = {
            key: Element(now.state, now.node) for key, now in known.items() if now.state not in ENDED
        }
        self._has_submitted = bool(self.alive)

    def speaks(self, key: str) -> None:
        """Hear that an element works: those after it can start, too."""
        if key in self.alive:
            self.alive[key].speaks, self._bad_starts = True, 0

    def goes(self, key: str) -> None:
        """Hear that an element ends, as there was nothing to do."""
        self.alive.pop(key, None)

    def provide(self, tasks: int) -> None:
        """Submit as many elements as so many open tasks lack."""
        each = self._array.each
        most = -(-self._array.jobs // each) - self._cancelled
        if tasks and most <= 0 and not self.alive:
            raise AblateError(
                "all elements of the job array were cancelled, with scancel or by an administrator: "
                "the same command submits what is left"
            )
        wanted = min(-(-tasks // each), most) - len(self.alive)
        while wanted > 0 and time.monotonic() >= self._not_before:
            count = min(wanted, slurm_commands.longest_array())
            try:
                self._submit(count)
            except RefusedError as error:
                wanted = count // 2 if error.is_limit else 0
                if wanted:
                    continue
                if not self._has_submitted:
                    raise
                self._not_before = time.monotonic() + PAUSE
                elements = messages.count(len(self.alive), "element")
                self._tell_once(f"{error}: the tasks take turns on {elements}; more are asked for later")
                return
            wanted -= count

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._notice(text)

    def _submit(self, count: int) -> None:
        array = self._array
        log = str(array.folder).replace("%", "%%") + "/logs/%A_%a.txt"
        number = slurm_commands.submit(
            shlex.join(array.command(self._program)),
            count, name=array.name, log=log, extra=dict(array.extra), cores=array.cores,
        )  # fmt: skip
        self._has_submitted = True
        self.alive |= {f"{number}_{index}": Element() for index in range(count)}
        self._notice(f"Slurm has array {number}, of {messages.count(count, 'element')}")

    def ask(self, listen: Callable[[], None]) -> list[Change]:
        """Ask Slurm about all elements, from time to time; return what has changed.

        `listen` reads what they have said themselves, which comes before what is heard of their ends.
        """
        if time.monotonic() < self._asked + self.every or not self.alive:
            return []
        known = slurm_commands.states(self._array.name)
        self._asked = time.monotonic()
        self._silent = self._silent + 1 if known is None else 0
        if self._silent == SILENT:
            self._notice("Slurm does not answer: its controller may be down; what runs goes on")
        listen()
        changes = [] if known is None else [self._judge(key, known.get(key)) for key in list(self.alive)]
        return [change for change in changes if change is not None]

    def _judge(self, key: str, now: State | None) -> Change | None:
        """Compare what Slurm says of an element with what it said before."""
        element = self.alive[key]
        if now is None:
            element.missing += 1
            if element.missing < MISSING:
                return None
            now = State("", element.node, "Slurm does not know it any more")
        else:
            element.missing = 0
        if now.state == "PENDING" and now.reason not in self._reasons:
            self._reasons.add(now.reason)
            self._tell_once(f"{key} waits in Slurm's queue: {now.reason}")
        before, node, element.state = element.state, element.node, now.state
        element.node = now.node or node
        if not now.state or now.state in ENDED:
            self._bury(key, now.state)
            return Change(key, "ended", now.state, element.node, now.reason)
        if before not in QUEUED and now.state in QUEUED:
            return Change(key, "lost", now.state, node, now.reason)
        is_held = now.state not in {"RUNNING", "COMPLETING", "CONFIGURING", *QUEUED}  # such as SUSPENDED
        return Change(key, "held", now.state, node, now.reason) if is_held else None

    def _bury(self, key: str, state: str) -> None:
        """Do without an element; raise an AblateError where another one is hopeless."""
        element = self.alive.pop(key)
        self._cancelled += state == "CANCELLED" and key not in self._ours
        if not element.speaks and state in ("FAILED", "BOOT_FAIL"):
            self._bad_starts += 1
            if self._bad_starts >= BAD_STARTS:
                raise AblateError(f"no element of the job array can start: {self._last_words(key)}")

    def _last_words(self, key: str) -> str:
        path = self._array.folder / "logs" / f"{key}.txt"
        try:
            lines = path.read_text(errors="replace").strip().splitlines()
        except OSError:
            return f"{path} was not written: is the store mounted under the same path on the nodes?"
        return f"{lines[-1] if lines else 'it says nothing'} ({path})"

    def cancel(self, key: str) -> None:
        """End an element, which nobody else has wished."""
        self._ours.add(key)
        with suppress(AblateError):  # Slurm does not answer, and is asked again
            slurm_commands.cancel([key])

    def close(self) -> bool:
        """End all elements; return whether that was seen."""
        with suppress(AblateError):
            slurm_commands.cancel(sorted({key.split("_")[0] for key in self.alive}))
        until = time.monotonic() + END
        while time.monotonic() < until:
            known = slurm_commands.states(self._array.name)
            if known is None:
                return False
            if all(now.state in ENDED for now in known.values()):
                return True
            time.sleep(0.2)
        return False
