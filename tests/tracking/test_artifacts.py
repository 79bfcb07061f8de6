"""Where the artifacts of a run may go, and what MLflow's page may show."""

import base64
import os
import shutil
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner
from planting import forget_connections, moved

from ablate.cli import main
from ablate.errors import AblateError, StoreError
from ablate.store import layout
from ablate.tracking import artifacts, server

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # MLflow leaves connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def store(done, tmp_path):
    """Return a copy of a finished store, whose database of MLflow is for its path."""
    moved(done[0] / "store", tmp_path / "store", tmp_path / "store")
    forget_connections()
    yield layout.open_store(tmp_path / "store")
    forget_connections()


@pytest.fixture
def private(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "study.json").write_text("mine")
    return folder


def edit(store, statement, *values):
    with closing(sqlite3.connect(store.database)) as database:
        database.execute(statement, values)
        database.commit()


def sync(store):
    result = CliRunner().invoke(main, ["sync", "tiny", "--store", str(store.path)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def runs(store):
    return [path for path in (store.artifacts / "tiny").iterdir() if path.is_dir()]


def outcome(store):
    return next(store.path.glob("jobs/*/outcomes/*"))


def test_a_place_that_was_edited_in_the_database_is_not_written_to(store, private):
    edit(store, "UPDATE runs SET artifact_uri = ?, status = 'RUNNING'", private.as_uri())
    code, said = sync(store)
    assert code == 2
    assert (
        f"MLflow's database names {private.as_uri()} for the artifacts of a run, and they belong in" in said
    )
    assert "delete its mlflow.db and run ablate sync for each study" in said
    assert [path.read_text() for path in private.iterdir()] == ["mine"]


@pytest.mark.parametrize("level", ["artifacts", "run", "study", "all"])
def test_a_link_on_the_way_to_a_place_is_refused(store, private, level):
    edit(store, "UPDATE runs SET status = 'RUNNING'")
    last = max(runs(store), key=lambda run: (run / "artifacts" / "report.html").exists())
    at = {
        "artifacts": last / "artifacts", "run": last, "study": last.parent, "all": store.artifacts
    }[level]  # fmt: skip
    shutil.rmtree(at)
    at.symlink_to(private)
    code, said = sync(store)
    assert code == 2
    assert "for the artifacts of a run, and they belong in" in said or "is a link" in said
    assert [path.read_text() for path in private.iterdir()] == ["mine"]


def test_only_the_files_that_ablate_writes_become_artifacts(store):
    edit(store, "UPDATE runs SET status = 'RUNNING'")
    shutil.rmtree(store.artifacts)
    (outcome(store) / "authorized_keys").write_text("theirs")
    assert sync(store)[0] == 0
    names = {path.name for run in runs(store) for path in (run / "artifacts").iterdir()}
    assert {"outcome.json", "misclassified.png", "log.txt", "recipe.json", "model", "report.html"} <= names
    assert "authorized_keys" not in names
    assert not any(name.startswith(".") for name in names)


def test_what_a_link_leads_to_becomes_no_artifact(done, store, private):
    edit(store, "UPDATE runs SET status = 'RUNNING'")
    shutil.rmtree(store.artifacts)
    pictures = []
    for number, path in enumerate(store.path.glob("jobs/*/outcomes/*/misclassified.png")):
        pictures.append(base64.b64encode(path.read_bytes()).decode())
        path.rename(private / f"{number}.png")
        path.symlink_to(private / f"{number}.png")
    code, said = sync(store)
    assert code == 0, said
    assert not list(store.artifacts.rglob("misclassified.png"))
    page = done[0] / "store/studies/tiny/report.html"
    assert any(picture in page.read_text() for picture in pictures)
    assert not any(picture in store.report("tiny").read_text() for picture in pictures)


@pytest.mark.parametrize("ending", ["", "-journal", "-wal", "-shm"])
def test_the_database_is_no_link(store, private, ending):
    path = store.database.with_name(f"mlflow.db{ending}")
    path.unlink(missing_ok=True)
    path.symlink_to(private / "places.sqlite")
    code, said = sync(store)
    assert code == 2
    assert f"mlflow.db{ending}: is a link" in said
    with pytest.raises(AblateError, match="is a link"):
        server.serve(f"sqlite:///{store.database}", store, "127.0.0.1", 5000)
    assert [path.name for path in private.iterdir()] == ["study.json"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET artifact_uri = ? WHERE rowid = 1",
        "INSERT INTO model_versions (name, version, source, workspace) VALUES ('m', 1, ?, 'default')",
        "INSERT INTO trace_tags (key, value, request_id) VALUES ('mlflow.artifactLocation', ?, 'tr')",
    ],
)
def test_the_page_shows_nothing_from_outside_of_the_store(store, private, statement):
    address = f"sqlite:///{store.database}"
    assert server.serve(address, store, "127.0.0.1", 5000)[0][-1] == "1"
    edit(store, statement, private.as_uri())
    with pytest.raises(StoreError, match=f"mlflow.db: names {private.as_uri()}, outside of .+: delete its"):
        server.serve(address, store, "127.0.0.1", 5000)


def test_the_page_shows_nothing_that_a_link_leads_to(store, private):
    path = next(store.artifacts.glob("tiny/*/artifacts/log.txt"))  # that of the report has none
    path.unlink()
    path.symlink_to(private / "study.json")
    with pytest.raises(StoreError, match=f"{path}: is a link"):
        server.serve(f"sqlite:///{store.database}", store, "127.0.0.1", 5000)


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("file:///a/b%20c", "/a/b c"), ("file:/a", "/a"), ("/a/../b", "/b"), ("s3://bucket/a", ""),
        ("mlflow-artifacts:/1/2", ""), ("models:/m/1", ""),
    ],
)  # fmt: skip
def test_a_local_address_is_a_folder_and_one_on_a_server_is_none(address, folder):
    assert artifacts.local(address) == folder


def test_a_store_below_a_link_takes_its_artifacts(done, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "mounted").symlink_to("disk")
    there = tmp_path / "mounted" / "store"
    moved(done[0] / "store", there, there)
    forget_connections()
    store = layout.open_store(there)
    edit(store, "UPDATE runs SET status = 'RUNNING'")
    shutil.rmtree(store.artifacts)
    assert sync(store)[0] == 0
    assert list(store.artifacts.glob("tiny/*/artifacts/outcome.json"))
    forget_connections()


def test_an_upload_to_a_server_has_copies_and_no_links(tmp_path):
    (tmp_path / "log.txt").write_text("said")
    with artifacts.copied({"a.csv": "1\n"}, [(tmp_path / "log.txt", "inner")]) as held:
        there = {str(path.relative_to(held)): path for path in held.rglob("*") if not path.is_dir()}
        assert {name: path.read_text() for name, path in there.items()} == {
            "a.csv": "1\n",
            "inner/log.txt": "said",
        }
        assert not any(path.is_symlink() for path in there.values())
    assert not os.path.lexists(held)
