"""The benchmarks' parts: each that can be asked for is there. What they measure is no matter for tests."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def parts():
    """Return the names of all parts, without importing what they measure."""
    tree = ast.parse((FOLDER / "__main__.py").read_text())
    named = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("PARTS", "ASKED")
    }
    return (*named["PARTS"], *named["ASKED"])


@pytest.mark.parametrize("part", parts())
def test_a_part_that_can_be_asked_for_has_what_runs_it(part):
    tree = ast.parse((FOLDER / f"{part}.py").read_text())
    assert "run" in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
