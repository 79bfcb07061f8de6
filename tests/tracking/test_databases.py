"""A database of MLflow that others use, too: taken as it is, and what is in it stays as it is."""

import sys

import pytest
from commands import ablate
from mlflow import MlflowClient
from mlflow.entities import ViewType
from shown import runs_of
from sqlalchemy.exc import OperationalError
from tracked import begun, read

from ablate import databases, tracking
from ablate.errors import AblateError
from ablate.store import layout
from ablate.tracking import addresses
from ablate.tracking import client as clients

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies, at import
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def address(tmp_path):
    """Return a database with an experiment of another tool, which has a run with an artifact."""
    made = f"sqlite:///{tmp_path}/team.db"
    api = clients.connect(made)
    elsewhere = (tmp_path / "elsewhere").as_uri()
    other = api.create_experiment("other tool", artifact_location=elsewhere, tags={"owner": "somebody"})
    run = api.create_run(other, start_time=1000, tags={"kind": "theirs"}, run_name="theirs")
    (tmp_path / "theirs.txt").write_text("theirs")
    api.log_artifact(run.info.run_id, str(tmp_path / "theirs.txt"))
    api.set_terminated(run.info.run_id, end_time=2000)
    return made


@pytest.fixture
def store(tmp_path):
    """Return a function that makes a store of its own."""

    def make(name):
        opened = layout.open_store(tmp_path / name)
        layout.create(opened)
        return opened

    return make


def send(address, study, held):
    """Send runs of a study that have begun, and its page; return its runs, and what is said of its name."""
    runs = begun(held, study) if not list(held.path.glob("jobs/*")) else ()
    sources = tracking.tracked(study, runs, held)
    name = tracking.sync(address, study, sources, held) if sources else ""
    (held.path / "report.html").write_text(f"of {held.path.name}")
    tracking.log_study(address, study, held, lines=["a verdict"], files=[held.path / "report.html"])
    return runs, name


def state(api, experiment):
    """Return all that MLflow has of an experiment and its runs."""
    runs = api.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, order_by=["start_time"])
    return (dict(experiment), [run.to_dictionary() for run in runs])


def test_an_experiment_that_others_have_made_for_a_study_keeps_its_place_and_gets_its_runs(
    address, store, tmp_path
):
    api, mine, study = MlflowClient(address), store("mine"), read("augmentation")
    place = tmp_path / "by the administrator"
    tags = {"mlflow.experimentKind": "theirs"}
    made = api.create_experiment("augmentation", artifact_location=place.as_uri(), tags=tags)
    names = ("Default", "other tool")
    before = [state(api, api.get_experiment_by_name(name)) for name in names]
    runs, name = send(address, study, mine)
    assert (name, len(runs_of(api, "augmentation"))) == ("", len(runs))
    experiment = api.get_experiment(made)
    assert experiment.artifact_location == place.as_uri()
    assert experiment.tags["mlflow.experimentKind"] == "theirs"
    (page,) = place.rglob("report.html")
    assert page.read_text() == "of mine"
    assert not list(mine.artifacts.rglob("*.*"))
    assert list(place.rglob("recipe.json"))  # of the runs
    assert [state(api, api.get_experiment_by_name(name)) for name in names] == before


def test_a_new_experiment_in_a_database_of_others_has_its_artifacts_in_the_store(address, store):
    api, mine, study = MlflowClient(address), store("mine"), read("augmentation")
    others = api.get_experiment_by_name("other tool")
    before = state(api, others)
    send(address, study, mine)
    location = api.get_experiment_by_name("augmentation").artifact_location
    assert location == (mine.artifacts / "augmentation").as_uri()
    assert [path.read_text() for path in mine.artifacts.rglob("report.html")] == ["of mine"]
    assert state(api, api.get_experiment_by_name("other tool")) == before


@pytest.mark.parametrize("name", ["tiny", "Default"])
def test_studies_of_one_name_in_two_stores_have_an_experiment_each(address, store, name):
    api, study = MlflowClient(address), read(name)
    first, second = store("first"), store("second")
    send(address, study, first)
    mine = api.search_experiments(filter_string=f"tags.`ablate.store` = '{layout.identity(first)}'")[0]
    before = state(api, mine)
    runs, told = send(address, study, second)
    assert told == f"{name} ({layout.identity(second)[:8]})"
    assert len(runs_of(api, told)) == len(runs) == 4
    assert state(api, api.get_experiment(mine.experiment_id)) == before
    assert tracking.compare(address, study, tracking.tracked(study, runs, second), second) == []
    # A study that has lost runs hides its own, and nobody else's.
    tracking.sync(address, study, tracking.tracked(study, runs[:1], second), second)
    assert len(runs_of(api, told)) == 1
    assert state(api, api.get_experiment(mine.experiment_id)) == before


def test_the_writer_says_under_which_name_the_runs_are(address, store):
    study, heard = read("tiny"), []
    send(address, study, store("first"))
    second = store("second")
    sources = tracking.tracked(study, begun(second, study), second)
    assert tracking.Writer(address, study, sources, second, heard.append).close().late == 0
    assert heard == [tracking.renamed("tiny", f"tiny ({layout.identity(second)[:8]})")]


def test_runs_that_an_earlier_version_has_put_into_a_shared_experiment_stay_there(address, store):
    """Earlier versions marked no experiment, so several stores may have runs in one."""
    api, study = MlflowClient(address), read("tiny")
    mine = store("mine")
    shared = api.create_experiment("tiny", artifact_location=(mine.artifacts / "tiny").as_uri())
    api.create_run(shared, tags={"ablate.store": "f" * 32, "ablate.key": "another/0"}, run_name="another")
    api.create_run(shared, tags={"ablate.store": layout.identity(mine), "ablate.kind": "study"})
    send(address, study, mine)
    names = {run.info.run_name for run in api.search_runs([shared])}
    assert len(names & {run.info.run_name for run in runs_of(api, "tiny")}) == 4
    assert "another" in names


def test_a_deleted_experiment_of_this_store_is_brought_back_and_one_of_others_is_not(address, store):
    api, study, mine = MlflowClient(address), read("tiny"), store("mine")
    theirs = api.create_experiment("tiny")
    api.delete_experiment(theirs)
    runs, name = send(address, study, mine)
    own = api.get_experiment_by_name(name)
    api.delete_experiment(own.experiment_id)
    tracking.sync(address, study, tracking.tracked(study, runs, mine), mine)
    assert api.get_experiment(own.experiment_id).lifecycle_stage == "active"
    assert api.get_experiment(theirs).lifecycle_stage == "deleted"
    assert len(runs_of(api, name)) == 4


def test_a_store_that_was_moved_does_not_write_into_its_old_place(address, store, tmp_path):
    study, mine = read("tiny"), store("mine")
    send(address, study, mine)
    mine.path.rename(tmp_path / "moved")
    moved = layout.open_store(tmp_path / "moved")
    with pytest.raises(tracking.MovedError, match="move it back, or name another database"):
        tracking.log_study(address, study, moved, lines=[], files=[])
    assert not mine.path.exists()


@pytest.mark.parametrize("spelled", ["sqlite:///{store}/../mine/mlflow.db", "sqlite:///{store}/mlflow.db"])
def test_the_store_s_own_database_is_its_own_in_whatever_words(store, spelled):
    mine = store("mine")
    assert tracking.uri(mine, spelled.format(store=mine.path)) == tracking.own(mine)
    assert tracking.uri(mine, f"sqlite:///{mine.path}/other.db") == f"sqlite:///{mine.path}/other.db"


def test_postgresql_gets_the_driver_that_is_here_and_other_addresses_stay(monkeypatch):
    full = "postgresql+psycopg://me:pw@host/db"
    for address in ("postgresql://me:pw@host/db", "postgres://me:pw@host/db", full):
        assert databases.with_driver(address) == full
    for address in ("sqlite:////x/postgresql.db", "http://postgresql", "mysql+pymysql://h/d", "nonsense"):
        assert databases.with_driver(address) == address
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as where it is not installed
    with pytest.raises(
        AblateError, match=r'needs the package psycopg.*pip install "ablate-studies\[postgres'
    ):
        databases.with_driver("postgresql://me:secret@host/db")
    with pytest.raises(AblateError, match="needs the package nonsense") as raised:
        databases.with_driver("postgresql+nonsense://me:secret@host/db")
    assert "secret" not in str(raised.value)


def test_sync_says_under_which_name_the_runs_are(address, store, done):
    folder, _ = done
    study = read("tiny")
    send(address, study, store("first"))
    code, _, err = ablate("sync", "tiny", "--store", folder / "store", "--tracking-uri", address)
    assert code == 0, err
    identity = (folder / "store/id").read_text().strip()
    assert f"the runs of this one are in tiny ({identity[:8]})" in err
    assert len(runs_of(MlflowClient(address), f"tiny ({identity[:8]})")) == 8


@pytest.mark.parametrize("option", ["--tracking-uri", "--optuna-storage"])
def test_a_missing_driver_is_refused_before_anything_is_trained(study, tmp_path, option):
    address = "postgresql+nonsense://me:s3cret@host/db"
    code, out, err = ablate("run", study, "--store", tmp_path / "store", option, address)
    assert (code, out) == (2, "")
    assert 'needs the package nonsense, which is not installed: pip install "ablate-studies[postgres]"' in err
    assert "s3cret" not in err
    assert not (tmp_path / "store").exists()


def test_a_file_that_cannot_be_opened_is_asked_once_and_not_ten_times_by_mlflow(tmp_path, monkeypatch):
    import mlflow

    def never(**_):
        pytest.fail("MLflow is asked")

    with monkeypatch.context() as here:
        here.setattr(mlflow, "MlflowClient", never)
        here.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "")  # which is no word to SQLite
        for name in ("folder.db", "folder?.db"):
            (tmp_path / name).mkdir()
            with pytest.raises(OperationalError, match="unable to open database file"):
                clients.connect(addresses.sqlite(tmp_path / name))
    made = tmp_path / "not there yet" / "team.db"
    assert clients.connect(f"sqlite:///{made}").get_experiment("0") is not None
    assert made.exists()
