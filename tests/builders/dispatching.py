"""A dispatcher whose runs are a small program, that ends when and how a test says."""

import os
import time
from contextlib import suppress
from pathlib import Path

from processes import kill

from ablate.serve.dispatcher import Dispatcher
from ablate.serve.process import Child
from ablate.store import queue as submissions
from ablate.workflow import queue

STAND_IN = Path(__file__).with_name("stand_in.sh")


class Desk:
    """A store's queue, the dispatcher that serves it now, and what its runs have done."""

    def __init__(self, store, **options):
        self.store, self.options = store, options
        self.dispatchers = []
        self.restart()

    def restart(self):
        """Let a dispatcher that knows nothing take the place of this one, which is left where it is."""
        self.dispatcher = Dispatcher(self.store, self.command, **self.options)
        self.dispatchers.append(self.dispatcher)

    def command(self, entry):
        path = submissions.study_file(self.store, entry.id)
        return ["/bin/sh", str(STAND_IN), str(path), str(os.getpid())]

    def submit(self, text, **options):
        return queue.submit(self.store, text, **options).id

    def child(self, identity):
        return Child(submissions.folder(self.store, identity))

    def look(self, identity=None):
        """Look at the queue once; return the state of a submission."""
        self.dispatcher.look()
        return None if identity is None else queue.entry(self.store, identity).state

    def states(self):
        self.look()
        return {entry.id: entry.state for entry in queue.entries(self.store)}

    def begun(self, identity, times=1):
        """Look until a run has begun so many times."""
        self.until(lambda: self.ran(identity).count("started") >= times)

    def until(self, condition):
        end = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < end, [*map(str, queue.entries(self.store))]
            self.look()
            time.sleep(0.02)

    def ran(self, identity):
        """List what the runs of a submission have done."""
        path = submissions.folder(self.store, identity) / "ran"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def let_end(self, identity, code=0):
        go = submissions.folder(self.store, identity) / "go"
        go.with_name("draft").write_text(str(code))
        go.with_name("draft").rename(go)  # whole at once: the program looks every 20 ms

    def settle(self, identity, code=0):
        """Let a run end, and look until that is seen."""
        self.let_end(identity, code)
        self.until(lambda: queue.entry(self.store, identity).state != "running")
        return queue.entry(self.store, identity)

    def kill(self, identity):
        kill(self.child(identity).pid)

    def close(self):
        for process in [process for one in self.dispatchers for process in one._processes]:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
