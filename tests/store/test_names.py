"""Any name of a study and of a store's folder, and any home: nothing is written elsewhere or confused."""

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import TINY, start, start_anew

from ablate import places
from ablate.errors import AblateError
from ablate.execution import options
from ablate.store import layout, study_folder
from ablate.study import file as study_file
from ablate.tracking import own
from ablate.workflow import plan as planning
from ablate.workflow import tracking as tracking_workflow
from ablate.workflow import upkeep

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STUDIES = (
    "..", ".", "a/b", "../../x", "CON", "dot.", "space ", " space", "-x", "a?b#c %20", "%2E%2E",
    "it's \"q\" $HOME `id`", "a:b/0", "two\nlines", "x" * 100, "\U0001f600" * 100, "A", "a", "\u00e9",
    "e\u0301", "mlflow.db", "Default",
)  # fmt: skip
FOLDERS = (
    "a?b#c %20",
    "%41",
    "q'\"`$(id)",
    "\u00fc\u4f60 \U0001f600",
    "-dash",
    "two\nlines",
    "...",
    "x" * 200,
)


def test_the_folders_of_studies_lie_in_the_store_and_are_as_many_as_the_studies(tmp_path: Path) -> None:
    store = layout.open_store(tmp_path / "store")
    folders = [store.study(name) for name in STUDIES]
    assert {folder.resolve().parent for folder in folders} == {tmp_path / "store/studies"}
    assert len({folder.name for folder in folders}) == len(STUDIES)
    for folder, name in zip(folders, STUDIES, strict=True):
        folder.mkdir(parents=True)
        (folder / "study.json").write_text(
            json.dumps({"source": "x.toml", "text": "", "study": {"name": name}})
        )
    assert study_folder.names(store) == sorted(STUDIES)


def held(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def under(done: tuple[Path, str], folder: Path) -> options.Where:
    """Return a finished store in a folder, without MLflow's database, which is bound to its path."""
    shutil.copytree(done[0] / "store", folder)
    shutil.rmtree(folder / "artifacts")
    (folder / "mlflow.db").unlink()
    for other in (folder / "studies").iterdir():  # other tests have run other studies in that store
        if other.name != "tiny":
            shutil.rmtree(other)
    return options.Where(layout.open_store(folder))


def slow_but(*quick: str) -> list[object]:
    return [
        pytest.param(name, marks=[] if name in quick else [pytest.mark.slow])
        for name in (FOLDERS if quick[0] in FOLDERS else STUDIES)
    ]


@pytest.mark.parametrize("name", slow_but("a?b#c %20"))
def test_a_store_in_any_folder_keeps_mlflow_to_itself(
    done: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "stores").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    where = under(done, tmp_path / "stores" / name)
    assert tracking_workflow.sync(planning.load("tiny", (), where.store), where) == 8
    assert [one for one in upkeep.examine(where) if one.severity != "ok"] == []
    assert where.store.database.is_file()
    assert (held(tmp_path / "here"), held(tmp_path / "stores")) == ([], [name])
    assert len(list(where.store.artifacts.glob("tiny/*/artifacts/recipe.json"))) == 8


@pytest.mark.parametrize("name", slow_but(".."))
def test_a_study_of_any_name_is_shown_by_mlflow(done: tuple[Path, str], tmp_path: Path, name: str) -> None:
    where = under(done, tmp_path / "store")
    shutil.rmtree(where.store.path / "studies/tiny")
    (tmp_path / "tiny.toml").write_text(
        TINY.replace('"tiny"', json.dumps(name, ensure_ascii=False)), encoding="utf-8"
    )
    study = study_file.load(tmp_path / "tiny.toml", ())
    study_folder.keep(where.store, study, study_folder.settled(layout.open_store(done[0] / "store"), "tiny"))
    assert tracking_workflow.sync(study, where) == 8
    assert [one for one in upkeep.examine(where) if one.severity != "ok"] == []
    assert len(list(where.store.artifacts.glob("*/*/artifacts/recipe.json"))) == 8


def test_the_address_of_a_usual_path_is_as_it_was(tmp_path: Path) -> None:
    assert own(layout.open_store(tmp_path / "my store")) == f"sqlite:///{tmp_path}/my store/mlflow.db"
    assert "?" not in own(layout.open_store(tmp_path / "a?b")).partition("uri=true")[0].rstrip("?")


def test_the_users_own_folder_is_below_any_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert places.cache() == tmp_path / ".cache/ablate"
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")  # not absolute: to be ignored
    assert places.cache() == tmp_path / ".cache/ablate"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert places.cache() == tmp_path / "cache/ablate"


def test_where_there_is_no_home_a_temporary_folder_of_the_users_own_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(places.Path, "home", nobody)
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path))
    assert places.cache() == tmp_path / f"ablate-{os.getuid()}"
    assert held(tmp_path) == []
    if os.geteuid() == 0:
        places.cache().mkdir()
        os.chown(places.cache(), 12345, 12345)
        with pytest.raises(AblateError, match="is another user's: set HOME"):
            places.cache()


@pytest.mark.slow  # a training for each
@pytest.mark.parametrize("home", ["unset", "missing", "a file", "read-only"])
def test_a_study_is_run_under_any_home_and_writes_nothing_beside_its_store(
    study: Path, tmp_path: Path, home: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "a file").touch()
    path = "/proc" if home == "read-only" else str(tmp_path / home)
    command = ("run", study, "--store", tmp_path / "store", "--set", "seeds=1", "--set", "training.epochs=1")
    # What libraries write at their import, into a home that can be made or one that cannot: in a new Python.
    begin = start_anew if home in ("missing", "read-only") else start
    before = dict(os.environ)
    if home == "unset":
        os.environ.pop("HOME", None)
    try:
        process = begin(*command, cwd=tmp_path / "here", **({} if home == "unset" else {"HOME": path}))
    finally:
        os.environ.update(before)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert err == ""
    assert held(tmp_path / "here") == []
    made = {str(path.relative_to(tmp_path / "missing")) for path in (tmp_path / "missing").glob("*/*")}
    assert made <= {".cache/ablate"}
    assert set(held(tmp_path)) - {"missing"} == {"a file", "here", "store", "tiny.toml"}
