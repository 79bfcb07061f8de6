"""`mlflow server --app-name ablate`: both under one address, behind a door of our own."""

import shutil
import sys

import pytest
from servers import Process, answers, free_port
from services import Client

pytestmark = pytest.mark.slow
TOKEN = "correct-horse-battery-staple"
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def mlflow(done, tmp_path_factory):
    """Run MLflow's server on the store of the tiny study, with the plugin as an installed package has it."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    shutil.copytree(done[0] / "store", folder / "store", symlinks=True)
    plugin = folder / "packages/ablate_plugin-1.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: ablate-plugin\nVersion: 1\n")
    (plugin / "entry_points.txt").write_text("[mlflow.app]\nablate = ablate.serve.mlflow_app:create_app\n")
    environment = {
        "ABLATE_STORE": str(folder / "store"),
        "ABLATE_TOKEN": TOKEN,
        "PYTHONPATH": str(folder / "packages"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--app-name",
        "ablate",
        "--port",
        port,
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'store/mlflow.db'}"]
    server = Process(command, folder / "log.txt", environment)
    server.wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
    yield Client(port)
    server.kill()


def test_both_are_there_and_ours_has_a_door_and_leads_to_the_other(mlflow):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert "mlflow" in mlflow("GET", "/").text.lower()
    assert mlflow("GET", "/ablate/api/v1/studies").status == 401
    assert mlflow("GET", "/ablate/api/v1/studies", **bearer).json[0]["study"] == "tiny"
    assert (
        mlflow("GET", "/ablate/studies/tiny", **HTML).headers["location"]
        == "/ablate/login?next=%2Fstudies%2Ftiny"
    )
    form = {"Content_Type": "application/x-www-form-urlencoded", **HTML}
    entered = mlflow("POST", "/ablate/login", f"token={TOKEN}&next=/studies/tiny", **form)
    assert entered.headers["location"] == "/ablate/studies/tiny"
    assert "Path=/ablate/" in entered.headers["set-cookie"]
    session = entered.headers["set-cookie"].partition(";")[0]
    page = mlflow("GET", "/ablate/studies/tiny", Cookie=session, **HTML).text
    assert '<a href="/">MLflow</a>' in page
    assert 'href="/ablate/studies/tiny/report"' in page
    assert mlflow("GET", "/ablate/static/script.js").status == 200
    mlflow.api = "/ablate/api/v1"
    following = mlflow.events("/studies/tiny/events", **bearer)
    assert following.until(lambda event: event[1] == "status")[2]["total"] == {"finished": 8}
    following.close()
    foreign = {"Origin": "https://evil.example", **bearer}
    assert mlflow.post("/plan", "name = 'x'", **foreign).status == 403
    assert mlflow.post("/plan", "name = 'x'", **bearer).json["study"] == "x"
