"""One step, in a process of its own: a line of JSON for each part, as soon as it is known."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.gpu_check.part import Part, Setup
from benchmarks.gpu_check.steps import STEPS


def main() -> None:
    """Run the step that is named, on the device that is named."""
    number, device, out = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    module, _, name = STEPS[number].function.partition(":")
    function: Callable[[Setup], Iterator[Part]] = getattr(import_module(module), name)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="gpu_check") as folder, out.open("w", buffering=1) as file:
        for part in function(Setup(torch.device(device), Path(folder))):
            file.write(json.dumps(asdict(part)) + "\n")


if __name__ == "__main__":
    main()
