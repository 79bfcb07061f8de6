"""Fake jobs: what a worker's function may do, from the best to the worst.

No torch, so that a worker starts at once.

Workers find this module as `jobs`: they get the coordinator's sys.path, and pytest puts a test's folder
there.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablate.errors import AblateError, UnwritableError
from ablate.execution.executors.base import Crashed, OutOfMemory, Stopped

Json = dict[str, Any]
Report = Callable[[Json], None]
Asked = Callable[[], bool]

POLL = 0.01  # seconds
PATIENCE = 300.0  # seconds after which a job that waits gives up, so that a broken test leaves nothing behind


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the test never let this job go on")
        time.sleep(POLL)


def stands_still(pid: int) -> bool:
    """Whether a process was stopped by SIGSTOP, which takes a moment."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def run(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Do what the payload says: `do` names one of the functions below."""
    return globals()[payload["do"]](payload, report, should_stop)


def by_role(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Do what the file `role` in the folder of the job says."""
    folder = Path(payload["folder"])
    return run({"do": (folder / "role").read_text(), "folder": str(folder), "times": 3}, report, should_stop)


def ok(payload: Json, report: Report, should_stop: Asked) -> Json:
    return {"pid": os.getpid(), "payload": payload}


def reports(payload: Json, report: Report, should_stop: Asked) -> Json:
    for i in range(payload["times"]):
        report({"i": i, "says": payload.get("says", "")})
    return {}


def raises(payload: Json, report: Report, should_stop: Asked) -> Json:
    raise ValueError("zwölf Äpfel\nund eine Birne 🍐")


def is_killed(payload: Json, report: Report, should_stop: Asked) -> Json:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def is_killed_twice(payload: Json, report: Report, should_stop: Asked) -> Json:
    deaths = Path(payload["folder"]) / "deaths"
    died = len(deaths.read_text()) if deaths.exists() else 0
    if died < 2:
        deaths.write_text("x" * (died + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def segfaults(payload: Json, report: Report, should_stop: Asked) -> Json:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def leaves(payload: Json, report: Report, should_stop: Asked) -> Json:
    os._exit(3)


def exits(payload: Json, report: Report, should_stop: Asked) -> Json:
    sys.exit(4)


def talks_and_dies(payload: Json, report: Report, should_stop: Asked) -> Json:
    for i in range(100):
        report({"i": i})
    os._exit(5)


def big(payload: Json, report: Report, should_stop: Asked) -> Json:
    return {"text": "ä" * payload["size"]}


def waits_for_gate(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Wait for a file, deaf to every request."""
    report({"pid": os.getpid()})
    wait_for(Path(payload["gate"]).exists)
    return {"pid": os.getpid()}


def stops_when_asked(payload: Json, report: Report, should_stop: Asked) -> Json:
    report({"pid": os.getpid()})
    wait_for(should_stop)
    raise Stopped


def stops_once(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Stop when asked at the first attempt, and come to an end at the second."""
    report({"pid": os.getpid()})
    stopped = Path(payload["folder"]) / "stopped"
    if not stopped.exists():
        wait_for(should_stop)
        stopped.touch()
        raise Stopped
    return {}


def finishes_when_asked(payload: Json, report: Report, should_stop: Asked) -> Json:
    report({"pid": os.getpid()})
    wait_for(should_stop)
    return {"finished": "anyway"}


def dies_when_asked(payload: Json, report: Report, should_stop: Asked) -> Json:
    report({"pid": os.getpid()})
    wait_for(should_stop)
    os._exit(6)


def ignores_stop(payload: Json, report: Report, should_stop: Asked) -> Json:
    report({"pid": os.getpid()})
    wait_for(lambda: False)
    return {}


def was_asked(payload: Json, report: Report, should_stop: Asked) -> Json:
    return {"asked": should_stop()}


def environment(payload: Json, report: Report, should_stop: Asked) -> Json:
    if "gate" in payload:
        waits_for_gate(payload, report, should_stop)
    return {name: os.environ.get(name) for name in payload["names"]}


def modules(payload: Json, report: Report, should_stop: Asked) -> Json:
    return {"modules": sorted(sys.modules)}


def signals(payload: Json, report: Report, should_stop: Asked) -> Json:
    full = gc.get_stats()[-1]["collections"]
    return {"server": os.getppid(), "frozen": gc.get_freeze_count(), "full": full, "collects": gc.isenabled()}


def lacks_memory(payload: Json, report: Report, should_stop: Asked) -> Json:
    report({"pid": os.getpid()})
    raise OutOfMemory("8 GiB, and 7.5 were used")


def loses_device(payload: Json, report: Report, should_stop: Asked) -> Json:
    report({"pid": os.getpid()})
    raise Crashed("AcceleratorError: CUDA error: device-side assert triggered")


def freezes_once(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Stand still, as in a driver, at the first attempt."""
    report({"pid": os.getpid()})
    frozen = Path(payload["folder"]) / "frozen"
    if not frozen.exists():
        frozen.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def first_freezes(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Stand still in the first job of a store; the others live until they are asked to stop."""
    folder = Path(payload["folder"])
    try:
        (folder.parent / "frozen").touch(exist_ok=False)
    except FileExistsError:

        def is_asked() -> bool:
            report({})
            return should_stop()

        report({"pid": os.getpid()})
        wait_for(is_asked)
        raise Stopped from None
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def freezes_amid_a_message(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Stand still while half of a long message is on its way."""
    report({"pid": os.getpid()})
    wait_for(Path(payload["gate"]).exists)  # nobody reads from now on
    threading.Thread(target=report, args=({"long": "x" * 5_000_000},), daemon=True).start()
    time.sleep(2)
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def cannot_allocate(payload: Json, report: Report, should_stop: Asked) -> Json:
    return {"much": len(bytearray(1 << 60))}


def cannot_write(payload: Json, report: Report, should_stop: Asked) -> Json:
    raise UnwritableError("the disk is full: make room")


def lives(payload: Json, report: Report, should_stop: Asked) -> Json:
    report({})
    return {}


def lives_on(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Say that it is alive until a file is there."""

    def is_open() -> bool:
        report({})
        return (Path(payload["folder"]) / "gate").exists()

    wait_for(is_open)
    return {}


def is_sent(payload: Json, report: Report, should_stop: Asked) -> Json:
    os.kill(os.getpid(), getattr(signal, payload["signal"]))
    return {}


def eats_memory(payload: Json, report: Report, should_stop: Asked) -> Json:
    """Take more and more memory, once a file is there."""
    report({"pid": os.getpid()})
    wait_for(Path(payload["gate"]).exists)
    return {"much": len([bytearray(b"x" * (1 << 20)) for _ in range(2000)])}


def as_cuda_fails(device: str) -> None:
    """Fail as the check of a GPU does, unless the next line of the file in $PASSES is `passes`."""
    path = Path(os.environ["PASSES"])
    line, _, rest = path.read_text().partition("\n")
    path.write_text(rest)
    if line != "passes":
        raise AblateError(f"torch has no kernels for {device}")
