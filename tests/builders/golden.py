"""The golden files, and how JSON is compared with them."""

import math
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


def same(found, golden, where="$"):
    """Compare two JSON values, numbers to the last digits that no processor changes."""
    assert type(found) is type(golden), where
    if isinstance(golden, dict):
        assert list(found) == list(golden), where
        for key, value in golden.items():
            same(found[key], value, f"{where}.{key}")
    elif isinstance(golden, list):
        assert len(found) == len(golden), where
        for i, value in enumerate(golden):
            same(found[i], value, f"{where}[{i}]")
    elif isinstance(golden, float):
        assert math.isclose(found, golden, rel_tol=1e-9, abs_tol=1e-12), where
    else:
        assert found == golden, where
