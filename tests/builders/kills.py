"""Random kills of a service and of what it has started, until nobody knows any more what ran when.

By hand, with the real service and real runs: `python tests/builders/kills.py FOLDER STUDIES KILLS`.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from processes import descendants

from ablate.serve.process import Child, _is_ours
from ablate.store import layout
from ablate.store import queue as submissions
from ablate.workflow import queue

MINUTES = 45


def _group(pid, folder):
    """Return the shell around a run; 0 where it is gone, and its number perhaps another process's."""
    try:
        return os.getpgid(pid) if pid is not None and _is_ours(pid, folder) else 0
    except ProcessLookupError:
        return 0


class Storm:
    """A queue, a service that is started again whenever it was killed, and who kills it."""

    def __init__(self, store, command, seed=0):
        self.store, self.command, self.random = store, command, random.Random(seed)
        self.process, self.killed = None, Counter()
        self.start()

    def start(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
        with (self.store.path.parent / "service.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def children(self):
        """Return the processes of all runs: the shell around each, the program, and what that has started."""
        running = [entry for entry in queue.entries(self.store) if entry.state == "running"]
        folders = [submissions.folder(self.store, entry.id) for entry in running]
        groups = {_group(Child(folder).pid, folder) for folder in folders}
        return [pid for root in groups if root > 1 for pid in (root, *descendants(root))]

    def kill(self):
        """Kill the service, something that it has started, or both."""
        kind = self.random.choice(("service", "child", "child", "both"))
        victims = []
        if kind != "service":
            there = self.children()
            if there:
                victims += self.random.sample(there, self.random.randint(1, len(there)))
        if kind != "child":
            victims.append(self.process.pid)
        self.random.shuffle(victims)
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.killed[kind if victims else "nobody"] += 1
        if self.process.pid in victims:
            self.start()

    def rage(self, kills, shortest, longest):
        """Kill at random times, three quarters of which are chosen while something runs."""
        for _ in range(kills):
            end = time.monotonic() + (60 if self.random.random() < 0.75 else 0)
            while time.monotonic() < end and not self.are_over() and not self.children():
                time.sleep(0.02)
            time.sleep(self.random.uniform(shortest, longest))
            self.kill()

    def are_over(self):
        return all(entry.has_ended for entry in queue.entries(self.store))

    def settle(self, seconds=60 * MINUTES):
        """Wait until everything has ended."""
        end = time.monotonic() + seconds
        while not self.are_over():
            assert self.process.poll() is None, "the service has ended by itself"
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.2)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdin.close()


STUDY = """
name   = "study {number}"
seeds  = [{number}]
metric = "test/accuracy"

[recipe]
data = {{ name = "digits", image_size = 16, train_size = 100 }}
augment = {{ crop = "none", flip = false }}
model = {{ name = "baseline_cnn", width = 0.25 }}
training = {{ epochs = 1, batch_size = 50 }}
optimizer = {{ name = "adam", lr = 0.003 }}

[factors]
training.label_smoothing = [0.0, 0.1]
"""


def by_hand(folder, studies, kills):
    """Let real runs of a real service be killed, and print what has become of everything."""
    from receivers import Receiver

    store, receiver = layout.open_store(folder / "mlruns"), Receiver()
    (folder / "ablate.toml").write_text(
        f'[run]\nrestarts = 1000\n[notify]\nallow_private = true\n[[notify.to]]\nurl = "{receiver.url}"\n'
        'events = ["finished", "failed"]\n'
    )
    for number in range(studies):
        queue.submit(store, STUDY.format(number=number), key=str(number))
    serve = [sys.executable, "-m", "ablate", "serve", "--store", store.path, "--port", "0", "--studies", "2"]
    began = time.monotonic()
    storm = Storm(store, [*map(str, serve)], seed=studies * kills)
    while storm.killed.total() < kills and not storm.are_over():
        storm.rage(1, 0.3, 3.0)
    print("kills", dict(storm.killed), "after", round(time.monotonic() - began), "s", flush=True)
    storm.settle()
    time.sleep(5)
    storm.stop()
    entries = queue.entries(store)
    print("states", dict(Counter(entry.state for entry in entries)), "of", len(entries))
    print("reasons", dict(Counter(entry.reason for entry in entries if entry.state != "done")))
    print("results", len(list(store.path.glob("jobs/*/result.json"))), "of", 2 * studies)
    lines = [len(path.read_text().splitlines()) for path in store.path.glob("jobs/*/journal.jsonl")]
    print("epochs in journals", dict(Counter(lines)), "attempts", sum(
        len(path.read_text().splitlines()) for path in store.path.glob("jobs/*/attempts.jsonl")))  # fmt: skip
    told = Counter(body["id"] for _, body, _ in receiver.came)
    print("told", len(told), "events,", told.total(), "messages", {k: n for k, n in told.items() if n > 1})
    print("whole", round(time.monotonic() - began), "s")


if __name__ == "__main__":
    by_hand(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
