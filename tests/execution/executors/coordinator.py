"""A coordinator of its own, to be killed: starts SLOTS workers and a task in all but the last; prints events.

A task that crashes is given out again for ever, so that only the executor can end it.

`python coordinator.py SLOTS FUNCTION DO [DEVICE]` prints one JSON object a line: the workers' process ids
first, then events.
"""

import dataclasses
import json
import sys

from calls import task as call

from ablate.execution.executors import server
from ablate.execution.executors.base import Slot
from ablate.execution.executors.local import LocalExecutor
from ablate.execution.interruption import Interruption


def main(count: int, function: str, do: str, device: str = "cpu") -> None:
    with Interruption() as interruption:
        print(json.dumps({"kind": "starting"}), flush=True)
        executor = LocalExecutor(function, tuple(Slot(f"{device}:{i}", device) for i in range(count)))
        print(
            json.dumps({"kind": "workers", "pids": [worker.process.pid for worker in executor._workers]}),
            flush=True,
        )
        names = sorted({*server.ENVIRONMENT, *server.CUDA_ENVIRONMENT, *server.SEGMENTS})
        left = max(count - 1, 1)
        tasks = {f"task {i}": call(f"task {i}", do, names=names) for i in range(left)}
        for task in tasks.values():
            executor.submit(task)
        asked = False
        while left:
            if interruption.asked() and not asked:
                asked = True
                print(json.dumps({"kind": "asked"}), flush=True)
                executor.stop()
            for event in executor.events(0.05):
                left -= event.kind in ("finished", "failed", "stopped")
                if event.kind == "crashed":
                    executor.submit(tasks[event.task])
                print(json.dumps(dataclasses.asdict(event)), flush=True)
        executor.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
