"""Machines with GPUs that stand in: a libcuda made from `cuda.c`, and an nvidia-smi that is a script."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ablate import gpus

FIRST, SECOND = (f"GPU-{digit * 8}-0000-0000-0000-000000000001" for digit in "ab")
INSTANCES = tuple(f"MIG-{digit * 8}-0000-0000-0000-000000000001" for digit in "cde")
H100, A6000, T4 = "NVIDIA H100 80GB HBM3|9|0|80|0", "NVIDIA RTX A6000|8|6|48|0", "Tesla T4|7|5|15|0"
SLICE = "NVIDIA A100-SXM4-40GB MIG 1g.5gb|8|0|5|0"
COMPILER = next(filter(shutil.which, ("cc", "gcc", "g++")), None)
TWO = ((FIRST, H100), (SECOND, A6000))


@functools.cache
def _library(folder: Path) -> Path:
    path = folder / "libcuda.so.1"
    source = Path(__file__).with_name("cuda.c")
    subprocess.run([COMPILER, "-x", "c", "-shared", "-fPIC", "-o", path, source], check=True)
    return folder


class Machine:
    """This machine, with other GPUs; what is set holds until the test ends."""

    def __init__(self, folder, shared, monkeypatch):
        """Begin with a machine in which there is no trace of a GPU."""
        self._folder, self._shared, self._patch = folder, shared, monkeypatch
        self.trace = folder / "nvidiactl"
        for name in ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(gpus, "TRACES", (str(self.trace),))
        monkeypatch.setattr(gpus, "AMD", str(folder / "none"))
        tools = folder / "bin"
        tools.mkdir()
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")
        self.tool("")
        gpus.clear()

    def driver(self, *listed, mask=None, **faults):
        """Install a driver with these GPUs; `faults`: variables of it, as in `init="802"`."""
        if COMPILER is None:
            pytest.skip("there is no C compiler to make a libcuda with")
        self.trace.touch()
        self._patch.setenv("LD_LIBRARY_PATH", str(_library(self._shared)))
        self._patch.setenv("FAKE_GPUS", ";".join(f"{name}|{rest}" for name, rest in listed))
        for name, value in faults.items():
            self._patch.setenv(f"FAKE_{name.upper()}", value)
        self.mask(mask)

    def mask(self, mask):
        """Set CUDA_VISIBLE_DEVICES."""
        if mask is None:
            self._patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            self._patch.setenv("CUDA_VISIBLE_DEVICES", mask)
        gpus.clear()

    def tool(self, listing, instances="", *, code=0, seconds=0):
        """Install an nvidia-smi that lists cards, with `-L` also their MIG instances."""
        path = self._folder / "bin" / "nvidia-smi"
        path.write_text(
            f"#!/bin/sh\nsleep {seconds}\ncase $1 in -L) cat <<'EOF'\n{instances}\nEOF\n;;"
            f" *) cat <<'EOF'\n{listing}\nEOF\n;; esac\nexit {code}\n"
        )
        path.chmod(0o755)
        gpus.clear()

    def no_tool(self):
        """Take nvidia-smi away."""
        (self._folder / "bin" / "nvidia-smi").unlink()
        gpus.clear()
