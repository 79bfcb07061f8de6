"""JSON that is valid and not ours, in one study of a store: nobody else's matter, and no traceback."""

import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

import planting
import pytest
import shapes
from click.testing import CliRunner
from stores import examine

from ablate.cli import main

pytestmark = [
    pytest.mark.slow,  # its store alone takes ten seconds
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
KINDS = (
    "recipe.json", "result.json", "failure.json", "environment.json", "model.json", "attempts.jsonl",
    "journal.jsonl", "lease", "outcome.json", "trial recipe.json", "trial result.json",
    "trial journal.jsonl", "study.json", "settled.json", "origin.json", "holder.json", "sent.json",
    "began.json", "search.json", "trials.json", "optuna.jsonl", "range.json", "suggestion.json", "curve",
    "index.json", "meta.json",
)  # fmt: skip
THEIRS = {
    "status": ["status", "small"],
    "plan": ["plan", "small"],
    "check": ["check", "small"],
    "report": ["report", "small", "--format", "json"],
    "compare": ["compare", "small", "--cell", "baseline", "--cell", "batch_norm=false"],
    "logs": ["logs", "small:baseline/0"],
}
"""Commands of the study that is well: each says what it said before."""
EVERYBODYS = {
    "list": ["status"],
    "explain": ["explain", "small:baseline/0"],
    "doctor": ["doctor"],
    "gc": ["gc", "--dry-run"],
}
OWN = {
    "own status": ["status", "hunt"],
    "own plan": ["plan", "hunt"],
    "own report": ["report", "hunt", "--format", "json"],
    "own explain": ["explain", "JOB"],
    "own logs": ["logs", "JOB"],
}
WRITING = {"sync": ["sync", "hunt"], "run": ["run", "hunt", "--jobs", "1"]}


@pytest.fixture(scope="module")
def store(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with two studies that share neither jobs nor images."""
    path = tmp_path_factory.mktemp("shapes") / "store"
    planting.moved(planting.pristine(shared), path, path)
    return path


@pytest.fixture(scope="module")
def well(store: Path) -> dict[str, tuple[int, str]]:
    """Return what each command says of the store as it is."""
    return {name: ask(store, command) for name, command in (THEIRS | EVERYBODYS).items()}


def ask(store: Path, command: list[str]) -> tuple[int, str]:
    result = CliRunner().invoke(main, [*command, "--store", str(store)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return -1, "".join(traceback.format_exception(result.exception)[-4:])
    return result.exit_code, result.output


def wrongs(store: Path, place: Path, well: dict[str, tuple[int, str]]) -> Iterator[str]:
    """Return what is wrong with the commands while something is not ours."""
    job = (
        place.parts[1] if place.parts[0] == "jobs" else min(path.name for path in (store / "jobs").iterdir())
    )
    for name, command in THEIRS.items():
        if (now := ask(store, command)) != well[name]:
            yield f"{name}: {now}"
    others = EVERYBODYS | OWN
    for name, command in others.items():
        code, said = ask(store, [job if word == "JOB" else word for word in command])
        if code not in (0, 1, 2, 3) or (code == 2 and not said.strip()):
            yield f"{name}: {code} {said}"
        if name == "list" and (code != 0 or "small" not in said or "hunt" not in said):
            yield f"status does not list both studies: {said}"
        if name == "explain" and code != 0:
            yield f"explain: {said}"


def check(store: Path, kind: str, number: int | None, well: dict[str, tuple[int, str]]) -> None:
    """Try one shape in a place or, by default, three or four: each kind has others of those it may have."""
    place = shapes.places(store, "hunt", "small")[kind]
    whole, path = (store / place).read_bytes() if (store / place).exists() else None, store / place
    every = shapes.every(store, place)
    step = len(every) // 3
    some = list(every)[KINDS.index(kind) % step :: step] if number is None else [list(every)[number]]
    try:
        for name in some:
            path.write_bytes(every[name])
            assert list(wrongs(store, place, well)) == [], (kind, name)
            if name in shapes.WHOLE and name != "an empty table" and kind != "lease":
                problems = {finding.where for finding in examine(store) if finding.severity == "problem"}
                assert str(place) in problems, (kind, name)
    finally:
        if whole is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(whole)


def test_the_places_are_all_there(store: Path) -> None:
    assert set(shapes.places(store, "hunt", "small")) == set(KINDS)


@pytest.mark.parametrize(
    "number",
    range(len(KINDS)),
)
def test_what_is_not_ours_in_one_study_is_no_other_ones_matter(
    store: Path, well: dict[str, tuple[int, str]], number: int
) -> None:
    """A diagonal: one shape of every third place, each of them another one."""
    check(store, KINDS[number], number, well)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_not_ours_is_another_ones_matter(
    store: Path, well: dict[str, tuple[int, str]], kind: str
) -> None:
    check(store, kind, None, well)


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_with_what_is_not_ours_is_run_or_told_so(store: Path, kind: str, tmp_path: Path) -> None:
    place = shapes.places(store, "hunt", "small")[kind]
    every = shapes.every(store, place)
    name = list(every)[KINDS.index(kind) % len(every)]
    shutil.copytree(store, tmp_path / "store", symlinks=True)
    (tmp_path / "store" / place).write_bytes(every[name])
    planting.forget_connections()
    for command in WRITING.values():
        code, said = ask(tmp_path / "store", command)
        assert code in (0, 1, 2), (kind, name, said)
