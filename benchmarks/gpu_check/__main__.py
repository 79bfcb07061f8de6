"""Check what `ablate` does on a GPU, step by step; `--device cpu` tries the steps themselves, with less.

Prints a verdict a line, and writes the figures as JSON. Exit code 0 where everything held, 1 where something
did not, 2 for a wrong option, 3 where there is no GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ablate import gpus
from benchmarks.gpu_check.steps import STEPS, Step
from benchmarks.measure import machine

TOTAL = 600.0  # seconds
PATIENCE = 6.0  # times the limit of a step on a CPU, where nothing is measured
NO_GPU = 3
ROOT = Path(__file__).parents[2]


def run(number: int, device: str, limit: float) -> tuple[list[dict[str, Any]], str]:
    """Run a step in a process group of its own; return its parts, and why it did not come to its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder) / "parts", Path(folder) / "log"
        command = [sys.executable, "-m", "benchmarks.gpu_check.step", str(number), device, str(out)]
        with log.open("w") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        try:
            code, why = process.wait(limit), ""
        except subprocess.TimeoutExpired:
            code, why = 0, f"not over after {limit:.0f} s"
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what it has left
        if code:
            why = f"exit code {code}: {(log.read_text(errors='replace').strip().splitlines() or [''])[-1]}"
        text = out.read_text() if out.exists() else ""
    return [json.loads(line) for line in text.splitlines()], why


def verdict(parts: list[dict[str, Any]], why: str) -> str:
    """Return how a step ended: held, missed, or broken."""
    if why:
        return "broken"
    return "held" if all(part["held"] is not False for part in parts) else "missed"


def show(number: int, step: Step, parts: list[dict[str, Any]], why: str, seconds: float) -> None:
    """Print a line for the step, and one for each of its parts."""
    print(f"{number:2} {verdict(parts, why):7} {step.title}: {step.expected} ({seconds:.0f} s)", flush=True)
    for part in parts:
        word = {True: "held", False: "MISSED", None: "-"}[part["held"]]
        figures = json.dumps(part["figures"]) if part["figures"] and part["held"] is not True else ""
        print(f"   {word:7} {part['claim']} {figures}", flush=True)
    if why:
        print(f"   BROKEN  {why}", flush=True)


def main() -> int:
    """Run the steps that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--steps", default=",".join(map(str, STEPS)), help="such as 1,4,9; all by default")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="the figures, as JSON")
    parser.add_argument("--total", type=float, help=f"seconds for all of them; {TOTAL:.0f} on a GPU")
    given = parser.parse_args()
    wrong = [text for text in given.steps.split(",") if not text.isdecimal() or int(text) not in STEPS]
    if wrong:
        parser.error(f"--steps: {', '.join(wrong)}: must be of {', '.join(map(str, STEPS))}")
    if given.device == "cuda" and not gpus.survey().gpus:
        why = gpus.survey().trouble or "CUDA shows none"
        print(f"there is no GPU to check ({why}): --device cpu tries the steps themselves", file=sys.stderr)
        return NO_GPU
    total = given.total or TOTAL * (1 if given.device == "cuda" else PATIENCE)
    began, rows = time.monotonic(), []
    for number in dict.fromkeys(map(int, given.steps.split(","))):
        step, left = STEPS[number], total - (time.monotonic() - began)
        limit = step.limit * (1 if given.device == "cuda" else PATIENCE)
        at = time.monotonic()
        parts, why = run(number, given.device, min(limit, left)) if left > 5 else ([], "no time was left")
        seconds = time.monotonic() - at
        show(number, step, parts, why, seconds)
        rows.append(
            {"step": number, "title": step.title, "expected": step.expected, "verdict": verdict(parts, why),
             "why": why, "seconds": round(seconds, 1), "parts": parts}
        )  # fmt: skip
        content = {"device": given.device, "machine": machine(), "steps": rows}
        given.out.write_text(json.dumps(content, indent=1) + "\n")
    print(f"figures: {given.out}")
    return 0 if all(row["verdict"] == "held" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
