"""The house rules of the code, read from its text: imports point downwards, heavy libraries have one home."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ablate"
LAYERS = [  # a room may import itself and any room below, never its own row or above
    {"__main__"},
    {"cli"},
    {"serve"},
    {"workflow"},
    {"report", "upkeep"},
    {"execution"},
    {"analysis"},
    {"planning", "tracking"},
    {"store"},
    {"training", "study"},
    {"recipe"},
    {"hardware", "places", "descriptors", "sheets"},
    {"gpus", "databases"},
    {"errors", "messages", "driver", "__init__"},
]
HOMES = {
    "click": {"cli"},
    "rich": {"cli"},
    "mlflow": {"tracking"},
    "optuna": {"execution"},
    "plotly": {"report"},
    "jinja2": {"report", "serve"},
    "fastapi": {"serve"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "torch": {"training", "execution"},
    "torchvision": {"training"},
    "sklearn": {"training"},
    "PIL": {"training"},
    "safetensors": {"training"},
    "onnxruntime": {"training"},
    "scipy": {"analysis"},
    "pandas": {"analysis"},
    "pydantic": {"recipe", "study", "store", "serve"},
    "ray": {"execution"},
}
SEALED = {  # narrower than their layer: part of a path -> the rooms and modules that it may import
    "training": {"recipe", "errors", "messages", "places", "descriptors"},
    "execution/executors": {"execution/executors", "errors", "messages", "gpus", "hardware", "places"},
    "execution": {
        "execution",
        "planning",
        "store",
        "study",
        "recipe",
        "training",
        "errors",
        "messages",
        "gpus",
        "hardware",
        "places",
        "descriptors",
        "databases",
    },
    "analysis/stats": set(),
    "analysis/pooling": {"analysis/stats"},
    "recipe/range_test": {"errors"},
}
RANK = {name: row for row, names in enumerate(LAYERS) for name in names}
FILES = sorted(ROOT.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_TEST = 400, 50, 500


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Return the dotted names imported anywhere in a file, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards_and_heavy_libraries_stay_at_home(path):
    part, place = part_of(path), path.relative_to(ROOT).with_suffix("").as_posix()
    sealed = next((allowed for start, allowed in SEALED.items() if f"{place}/".startswith(f"{start}/")), None)
    below = {other for other in RANK if RANK[other] > RANK[part]} | {part, "__init__"}
    for name in imported(path):
        package, *rest = name.split(".")
        if package == "ablate":
            target = rest[0] if rest[0] in RANK else "__init__"  # `from ablate import __version__`
            assert target in below, f"{place} must not import {name}"
            if sealed is not None and target not in (
                "__init__",
                part if place.startswith("training") else "",
            ):
                assert any("/".join([*rest, ""]).startswith(f"{one}/") for one in sealed), (
                    f"{place} is sealed, and imports {name}"
                )
        elif (package, place) == ("mlflow", "serve/mlflow_app"):
            continue  # the service inside MLflow's own server, which is imported there alone
        elif package in HOMES:
            assert part in HOMES[package], f"{package} belongs to {', '.join(HOMES[package])}, not to {part}"


def test_one_file_of_tracking_imports_mlflow():
    homes = [path.name for path in FILES if any(name.split(".")[0] == "mlflow" for name in imported(path))]
    assert homes == ["mlflow_app.py", "client.py"]  # the first is a plugin of MLflow's server


def test_ray_is_imported_late_and_by_its_executor_alone():
    for path in FILES:
        lines = [line for line in path.read_text().splitlines() if re.match(r"\s*(import|from) ray\b", line)]
        assert not lines or path.name.startswith("ray"), path.name
        assert all(line.startswith(" ") for line in lines), f"{path.name} imports Ray with itself"


def test_there_are_thirteen_rooms_and_every_module_has_a_layer():
    assert {part_of(path) for path in FILES} == set(RANK)
    assert len({part_of(path) for path in FILES if len(path.relative_to(ROOT).parts) > 1}) == 13


def test_no_test_imports_a_test():
    tests = Path(__file__).parent
    for path in tests.rglob("*.py"):
        text = path.read_text()
        assert not any(name.split(".")[0].startswith("test_") for name in imported(path)), path.name
        assert not re.search(r"^(from|import) test_", text, re.MULTILINE), (
            f"{path.name}: a child process imports a test"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{path.name}: {node.name} has {length} lines"


def test_test_files_stay_short():
    tests = sorted(Path(__file__).parent.rglob("*.py"))
    assert [path.name for path in tests if len(path.read_text().splitlines()) > LONGEST_TEST] == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_evaluates_text_or_loads_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "pickle.load", "pickle.loads"}, f"{path.name}: {called}"
            if called == "torch.load":
                assert any(k.arg == "weights_only" and k.value.value is True for k in node.keywords)
