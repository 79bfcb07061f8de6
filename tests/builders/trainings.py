"""What the tests of the worker let a worker process do with a real training: count, die, wait, print.

`how` beside the task names one of the functions below. Workers get the coordinator's sys.path, so they find
this module.
"""

import itertools
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import disks
import torch

from ablate.execution import checkpoints, worker
from ablate.store.tasks import TrainTask
from ablate.training import loop
from ablate.training.images import Batch

Json = dict[str, Any]
Report = Callable[[Json], None]
Asked = Callable[[], bool]

PATIENCE = 300.0  # seconds after which a job that waits gives up, so that a broken test leaves nothing behind


@dataclass(frozen=True)
class Call:
    """A task with more values, for the functions below."""

    id: str
    values: Json

    def to_json(self) -> Json:
        return self.values


def paced(*, rarely: bool) -> AbstractContextManager[Any]:
    """Let trainings write a checkpoint after every epoch, or only after the first and the last one."""
    most, share = (3600.0, 0.0) if rarely else (0.0, 1.0)
    return patch.multiple(checkpoints, MOST=most, SHARE=share)


def run_job(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Run the task that is in a payload, with a checkpoint after every epoch or, if `rarely`, after few."""
    with paced(rarely=payload.get("rarely", False)):
        return worker.run_job(
            TrainTask.model_validate({k: v for k, v in payload.items() if k in TrainTask.model_fields}),
            report,
            should_stop,
        )


def run(payload: Json, report: Report, should_stop: Asked) -> Json:
    return globals()[payload.get("how", "plain")](payload, report, should_stop)


def plain(payload: Json, report: Report, should_stop: Asked) -> Json:
    return run_job(payload, report, should_stop)


def on_writes(folder: str, see: Callable[[str], None]) -> None:
    """Call `see` just before this process opens a file of a folder to write, renames or removes one.

    Until its end.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        path = {"open": 0, "os.rename": 1, "os.remove": 0}.get(event)
        if path is None or not isinstance(arguments[path], str | os.PathLike):
            return
        where = {"os.rename": arguments[-1], "os.remove": arguments[-1]}.get(event, -1)
        name = os.fspath(disks.whole(arguments[path], where))
        if str(name).startswith(folder) and not (
            event == "open" and arguments[2] & os.O_ACCMODE == os.O_RDONLY
        ):
            with one_at_a_time:  # a thread writes the checkpoints
                see(
                    f"{event} {re.sub(r'[.][0-9a-f]{8}$', '', str(name).removeprefix(folder))}"
                )  # a draft's name ends in a token

    one_at_a_time = threading.Lock()
    sys.addaudithook(hook)


def counts(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Tell every write of an undisturbed job."""
    seen: list[str] = []
    on_writes(payload["folder"], seen.append)
    run_job(payload, report, should_stop)
    return {"writes": list(seen)}


def dies_at(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Be killed just before the write of the number `at`."""
    left = payload["at"]

    def see(_: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    on_writes(payload["folder"], see)
    return run_job(payload, report, should_stop)


def dies_after(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Be ended by a signal when the line of epoch `epoch` is written."""

    def see(detail: Json) -> None:
        report(detail)
        if detail.get("epoch") == payload["epoch"]:
            os.kill(os.getpid(), payload["signal"])

    return run_job(payload, see, should_stop)


def stops_after(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Be asked to stop in epoch `epoch`: whether to stop is asked at the end of each."""
    asked = itertools.count(1)
    return run_job(payload, report, lambda: next(asked) >= payload["epoch"])


def stops_when_judged(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Be asked to stop when the first way of judging is done."""
    return run_job(payload, report, lambda: any(Path(payload["folder"]).glob("outcomes/*/outcome.json")))


def pauses(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Stand still after the first epoch until a file is there."""

    def see(detail: Json) -> None:
        report(detail)
        end = time.monotonic() + PATIENCE
        while "epoch" in detail and not Path(payload["gate"]).exists():  # no sign of life
            if time.monotonic() > end:
                raise TimeoutError("the test never let this job go on")
            time.sleep(0.01)

    return run_job(payload, see, should_stop)


def tells_that_it_waits(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Report whenever run_job asks whether to stop, which it does while it waits for a lock.

    `stop` is the answer.
    """

    def asked() -> bool:
        report({"asked": True})
        return bool(payload.get("stop"))

    return run_job(payload, report, asked)


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def prints(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Print before, in and after a job, from Python, from C and from a child.

    Give what did not go to the log.
    """
    own = Path(payload["own"])
    number = os.open(own, os.O_CREAT | os.O_WRONLY)
    os.dup2(number, 1)
    os.dup2(number, 2)

    def see(detail: Json) -> None:
        if "epoch" not in detail:  # a sign of life of a slow machine
            return
        print("printed in the job")
        print("said in the job", file=sys.stderr)
        os.write(1, b"written by C\n")
        os.system("echo by a child; echo wrong in a child >&2")

    print("before")
    try:
        result = run_job(payload, see, should_stop)
    finally:
        print("after")
        print("wrong after", file=sys.stderr)
        sys.stdout.flush()
        os.system("echo after, by a child")
    return {"own": own.read_text(), "descriptors": open_files()} | result


def prints_twice(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Count what one more job leaves open."""
    first = prints(payload, report, should_stop)
    second = run_job(payload | {"folder": payload["folder"] + "2"}, report, should_stop)
    return {"opened": open_files() - first["descriptors"]} | second


def modules(payload: Json, report: Report, should_stop: Asked) -> Json:
    return run_job(payload, report, should_stop) | {"modules": sorted(sys.modules)}


BROKEN: list[str] = []  # in this process: as a CUDA context that is lost, it stays so


def loses_its_device(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Fail as CUDA does: at a file's first use, and from then on whatever runs in this process."""

    def see(detail: Json) -> None:
        report(detail)
        if "epoch" in detail and not Path(payload.get("broken", "/")).exists():
            Path(payload["broken"]).touch()
            BROKEN.append(
                "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported late"
            )
        if "epoch" in detail and BROKEN:
            raise torch.AcceleratorError(BROKEN[0])

    return run_job(payload, see, should_stop) | {"pid": os.getpid()}


def raises(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Raise what the payload says, after the first epoch."""

    def see(detail: Json) -> None:
        report(detail)
        if "epoch" in detail:
            raise RuntimeError(payload["text"])

    return run_job(payload, see, should_stop)


def lacks_memory(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Get no more memory after the first epoch than there is in use."""

    def see(detail: Json) -> None:
        report(detail)
        if detail:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used, used))

    return run_job(payload, see, should_stop)


def fills_the_device(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Train on a GPU whose memory a tensor of this process has taken."""
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(free - (64 << 20), dtype=torch.uint8, device="cuda")
    return run_job(payload, report, should_stop) | {"held": len(held)}


def breaks_the_device(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Read beyond the end of a tensor in the first step of a training: no context survives that."""
    step = loop.step

    def broken(session: loop.Session, batch: Batch) -> torch.Tensor:
        torch.zeros(4, device="cuda")[torch.tensor([99], device="cuda")].sum().item()
        return step(session, batch)

    loop.step = broken
    return run_job(payload, report, should_stop)
