"""Run the benchmarks: all of them, or those named. Prints one table, and writes it as JSON with machine and versions."""

import argparse
import importlib
import json
from pathlib import Path

from benchmarks.measure import Comparison, as_data, machine, table

PARTS = ("input", "step", "start", "parallel", "study")


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--out", type=Path, help="write JSON there")
    given = parser.parse_args()
    wrong = [part for part in given.parts if part not in PARTS]
    if wrong:
        parser.error(f"{', '.join(wrong)}: not one of {', '.join(PARTS)}")
    found: list[Comparison] = []
    for part in given.parts:
        print(f"{part} ...", flush=True)
        found += importlib.import_module(f"benchmarks.{part}").run()
    print(json.dumps(machine()))
    print(table(found))
    if given.out is not None:
        given.out.write_text(json.dumps({"machine": machine(), "comparisons": as_data(found)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
