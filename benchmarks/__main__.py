"""Run the benchmarks: all of them, or those named.

Prints one table, and writes it as JSON with machine and versions.
"""

import argparse
import importlib
import json
from pathlib import Path

from benchmarks.measure import Comparison, Limit, as_data, from_data, machine, page, table

PARTS = ("start", "input", "step", "parallel", "study", "many", "executors")
ASKED = ("stores",)  # a quarter of an hour, so that it is measured only where it is named


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}, all by default; {ASKED[0]}"
    )
    parser.add_argument(
        "--out", type=Path, help="write JSON there, and Markdown beside it; what was not measured now is kept"
    )
    given = parser.parse_args()
    wrong = [part for part in given.parts if part not in (*PARTS, *ASKED)]
    if wrong:
        parser.error(f"{', '.join(wrong)}: not one of {', '.join((*PARTS, *ASKED))}")
    found: list[Comparison | Limit] = []
    for part in given.parts:
        print(f"{part} ...", flush=True)
        found += importlib.import_module(f"benchmarks.{part}").run()
    print(json.dumps(machine()))
    print(table(found))
    if given.out is not None:
        before = json.loads(given.out.read_text())["comparisons"] if given.out.exists() else []
        every = {one["title"]: one for one in (*before, *as_data(found))}
        given.out.write_text(
            json.dumps({"machine": machine(), "comparisons": list(every.values())}, indent=1) + "\n"
        )
        given.out.with_suffix(".md").write_text(page([from_data(one) for one in every.values()]))


if __name__ == "__main__":
    main()
