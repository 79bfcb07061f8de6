"""The service measured: its start and memory, a page of a large store, what browsers cost a run.

python benchmarks/studies.py DIR && python benchmarks/serve.py pages DIR
python benchmarks/serve.py followers [--seeds 90]
python benchmarks/serve.py submitted
"""

import argparse
import json
import math
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

from scipy import stats

LOOKS = 30
PAIRS = 3
BROWSERS = 20
AFTER, UNDISTURBED = 20, 60  # seconds: when the first verdicts are there, and of following
STRETCH = 4  # seconds with browsers that follow, or without
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


def followers(seeds: int) -> None:
    """Print what 20 browsers that follow a run cost it: of CPU, and by turns with none within one run.

    Two runs of the same study differ by several percent for other reasons. So after the first minute all of
    the service stands still in every other stretch: nobody follows then, and there is no service. What it
    would have done meanwhile it does in the next stretch, so that this shows more than it costs.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        with service(store, "--no-dispatch") as (address, process, _):
            run = start(store, seeds)
            while not is_there(address):
                time.sleep(0.1)
            for _ in range(BROWSERS):
                threading.Thread(target=follow, args=(address,), daemon=True).start()
            time.sleep(AFTER)
            before = sum(cpu(process))
            time.sleep(UNDISTURBED)
            share = (sum(cpu(process)) - before) / UNDISTURBED / (os.cpu_count() or 1)
            print(f"{BROWSERS} browsers: the service takes {share:.2%} of the machine's CPU")
            stretches: list[tuple[float, float, bool]] = []
            while run.poll() is None:
                is_followed = len(stretches) % 2 == 0
                signal_all(process, signal.SIGCONT if is_followed else signal.SIGSTOP)
                began = time.time()
                with suppress(subprocess.TimeoutExpired):
                    run.wait(STRETCH)
                stretches.append((began, time.time(), is_followed))
            signal_all(process, signal.SIGCONT)
        show(stretches[:-1], epochs(store))


def start(store: Path, seeds: int) -> subprocess.Popen[bytes]:
    """Start a run of the quickstart."""
    command = [sys.executable, "-m", "ablate", "run", str(QUICKSTART), "--store", str(store)]
    command += ["--set", f"seeds={seeds}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def epochs(store: Path) -> list[tuple[float, float, float]]:
    """Return when each epoch began and ended, and its seconds as a multiple of its recipe's median."""
    of_recipe: dict[str, list[tuple[float, float]]] = {}
    for journal in store.glob("jobs/*/journal.jsonl"):
        recipe = json.dumps(json.loads((journal.parent / "recipe.json").read_text())["recipe"])
        lines = map(json.loads, journal.read_text().splitlines()[1:])  # the first has what is done but once
        each = [(line["timestamp"] / 1000, line["seconds"]) for line in lines]
        of_recipe.setdefault(recipe, []).extend(each)
    usual = {recipe: statistics.median(seconds for _, seconds in each) for recipe, each in of_recipe.items()}
    return [
        (end - seconds, end, seconds / usual[recipe])
        for recipe, each in of_recipe.items()
        for end, seconds in each
    ]


def show(stretches: list[tuple[float, float, bool]], trained: list[tuple[float, float, float]]) -> None:
    """Print how much longer epochs take, and how much less is trained, where browsers follow."""
    longer, less = [], []
    for with_them, without in zip(stretches[::2], stretches[1::2], strict=False):
        seconds, work = [], []
        for start, over, _ in (with_them, without):
            whole = [relative for began, end, relative in trained if start <= began and end <= over]
            seconds.append(statistics.fmean(whole))
            parts = ((min(end, over) - max(began, start)) / relative for began, end, relative in trained)
            work.append(sum(part for part in parts if part > 0) / (over - start))
        longer.append(math.log(seconds[0] / seconds[1]))
        less.append(math.log(work[1] / work[0]))
    print(f"{len(longer)} pairs of stretches of {STRETCH} s, with them and without")
    for what, logs in (("an epoch takes longer by", longer), ("pauses included, less is trained by", less)):
        error = statistics.stdev(logs) / math.sqrt(len(logs)) * float(stats.t.ppf(0.975, len(logs) - 1))
        mean = statistics.fmean(logs)
        low, middle, high = (100 * math.expm1(x) for x in (mean - error, mean, mean + error))
        print(f"{what} {middle:+.2f} % [{low:+.2f}, {high:+.2f}]")


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


def signal_all(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process and to all that it has started."""
    for pid in _family(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


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
    parser.add_argument("--seeds", type=int, default=90, help="of the study that is followed")
    asked = parser.parse_args()
    {
        "pages": lambda: pages(asked.store),
        "followers": lambda: followers(asked.seeds),
        "submitted": submitted,
    }[asked.what]()
