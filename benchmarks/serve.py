"""The service measured: its start and memory, a page of a large store, what browsers cost a run.

python benchmarks/stores.py DIR && python benchmarks/serve.py pages DIR
python benchmarks/serve.py followers [--seeds 6]
python benchmarks/serve.py submitted
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOKS = 30
PAIRS = 3
BROWSERS = 20
QUICKSTART = Path(__file__).parents[1] / "studies" / "quickstart.toml"


@contextmanager
def service(store: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Yield the address of a service, its process, and the seconds until it answered."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "ablate",
        "serve",
        "--port",
        str(port),
        "--store",
        str(store),
        *options,
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/api/v1/health").read()  # noqa: S310 (ours)
                break
            time.sleep(0.02)
        yield address, process, time.monotonic() - began
    finally:
        process.terminate()
        process.wait()


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the megabytes that a process has in memory."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def look(address: str) -> float:
    """Return the milliseconds that a page takes."""
    began = time.monotonic()
    urllib.request.urlopen(urllib.request.Request(address, headers={"Accept": "text/html"})).read()  # noqa: S310
    return 1000 * (time.monotonic() - began)


def pages(store: Path) -> None:
    """Print how long the pages of a store take, the first time and then."""
    with service(store, "--no-dispatch") as (address, process, seconds):
        print(f"answers after {seconds:.2f} s, with {memory(process):.0f} MB")
        named = json.loads(urllib.request.urlopen(f"{address}/api/v1/studies").read())  # noqa: S310
        first_two = (f"/studies/{urllib.parse.quote(study['study'])}" for study in named[:2])
        for path in ("/", *first_two, "/api/v1/studies"):
            first = look(address + path)
            again = [look(address + path) for _ in range(LOOKS)]
            print(f"{path}: first {first:.0f} ms, then {statistics.median(again):.0f} ms at the median")
        print(f"{memory(process):.0f} MB after all of them")


def run(store: Path, followed_at: str, seeds: int) -> float:
    """Return the seconds of a run of the quickstart; browsers follow it where there is an address."""
    began = time.monotonic()
    command = [sys.executable, "-m", "ablate", "run", str(QUICKSTART), "--store", str(store)]
    command += ["--set", f"seeds={seeds}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if followed_at:
        while process.poll() is None and not is_there(followed_at):
            time.sleep(0.1)
        for _ in range(BROWSERS):
            threading.Thread(target=follow, args=(followed_at,), daemon=True).start()
    process.wait()
    return time.monotonic() - began


def is_there(address: str) -> bool:
    """Whether the service knows the study: a browser that is too early waits seconds before it asks again."""
    with urllib.request.urlopen(f"{address}/api/v1/studies") as answer:  # noqa: S310
        return "quickstart" in answer.read().decode()


def follow(address: str) -> None:
    """Read the events of a study until they end."""
    path = f"{address}/api/v1/studies/quickstart/events"
    while True:
        try:
            with urllib.request.urlopen(path) as stream:  # noqa: S310
                while stream.readline():
                    pass
            return
        except OSError:
            time.sleep(0.3)


def measure(store: Path, *, is_followed: bool, seeds: int) -> float:
    """Return the seconds of a run beside a service, and print them with what the service has used."""
    with service(store, "--no-dispatch") as (address, process, _):
        before, children_before = cpu(process)
        seconds = run(store, address if is_followed else "", seeds)
        own, children = cpu(process)
        own, children = own - before, children - children_before
        machine = 100 / (seconds * (os.cpu_count() or 1))
        head = f"{BROWSERS if is_followed else 0} browsers: {seconds:.1f} s, {memory(process):.0f} MB"
        used = f"of the machine's CPU {own * machine:.2f} % ({own:.2f} s)"
        last = f"after all others, for verdicts, {children * machine:.2f} % ({children:.2f} s)"
        print(f"{head}; {used}, and {last}", flush=True)
    return seconds


def followers(seeds: int) -> None:
    """Print how long a run takes with and without browsers that follow it, side by side."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for pair in range(PAIRS):
        for is_followed in (False, True) if pair % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                seconds = measure(Path(folder) / "store", is_followed=is_followed, seeds=seeds)
            times[is_followed].append(seconds)
    without, followed = (statistics.median(times[key]) for key in (False, True))
    print(f"medians {without:.1f} s and {followed:.1f} s: {100 * (followed / without - 1):+.1f} %")


def submitted() -> None:
    """Print how long it takes to the first epoch, by `ablate run` and through the service, side by side."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for pair in range(PAIRS):
        for is_submitted in (False, True) if pair % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                seconds = (first_seen if is_submitted else first_written)(Path(folder) / "store")
            times[is_submitted].append(seconds)
            print("submitted" if is_submitted else "run", f"{seconds:.1f} s to the first epoch", flush=True)
    plain, served = (statistics.median(times[key]) for key in (False, True))
    print(f"medians {plain:.1f} s and {served:.1f} s: {served - plain:+.1f} s")


def first_written(store: Path) -> float:
    """Return the seconds from the start of a run to the first line of a journal."""
    began = time.monotonic()
    command = [sys.executable, "-m", "ablate", "run", str(QUICKSTART), "--store", str(store)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any(path.stat().st_size for path in store.glob("jobs/*/journal.jsonl")):
        time.sleep(0.02)
    seconds = time.monotonic() - began
    process.send_signal(signal.SIGINT)
    process.wait()
    return seconds


def first_seen(store: Path) -> float:
    """Return the seconds from a submission to the event that shows a browser the first epoch."""
    with service(store, "--drain") as (address, _, _):
        time.sleep(2)  # it has long been up
        began = time.monotonic()
        ask = urllib.request.Request(  # noqa: S310
            f"{address}/api/v1/queue", QUICKSTART.read_bytes(), {"Content-Type": "application/toml"}
        )
        urllib.request.urlopen(ask).read()  # noqa: S310
        while True:  # the page of a study that waits asks again each second
            with (
                suppress(OSError),
                urllib.request.urlopen(f"{address}/api/v1/studies/quickstart/events") as stream,  # noqa: S310
            ):
                for line in stream:
                    if line.startswith(b"data: ") and has_epoch(json.loads(line[6:])):
                        return time.monotonic() - began
            time.sleep(0.5)


def has_epoch(content: object) -> bool:
    """Whether an event shows that an epoch has ended."""
    running = content.get("running", ()) if isinstance(content, dict) else ()
    return any(job["epoch"] for job in running)


def cpu(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Return the CPU seconds of a process, and of what it has started, ended or not."""
    own, *children = (_ticks(pid) for pid in _family(process.pid))
    ticks = os.sysconf("SC_CLK_TCK")
    return own[0] / ticks, (own[1] + sum(map(sum, children))) / ticks


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def _ticks(pid: int) -> tuple[int, int]:
    """Return the ticks of a process, and of its children that have ended."""
    fields = [int(field) for field in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]
    return fields[0] + fields[1], fields[2] + fields[3]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pages", "followers", "submitted"))
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=6, help="of the study that is followed")
    asked = parser.parse_args()
    {
        "pages": lambda: pages(asked.store),
        "followers": lambda: followers(asked.seeds),
        "submitted": submitted,
    }[asked.what]()
