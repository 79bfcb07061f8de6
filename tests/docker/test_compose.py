"""docker/: what the files say, read as an engine reads them, and their commands run without one."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError

import mlflow as mlflow_package
import pytest
import servers
import yaml
from commands import PATIENT, RECIPE, attempts
from mlflow import MlflowClient
from shown import runs_of

HERE = Path(__file__).parents[2] / "docker"
COMPOSE = yaml.safe_load((HERE / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
STUDY = f"""
name = "team"
seeds = 1
{RECIPE}
[factors]
model.batch_norm = [true, false]
[search]
trials = 2
per = "study"
sampler = "random"
space.optimizer.lr = {{ low = 1e-4, high = 1e-2, log = true }}
"""
FOLDERS = (Path(sys.executable).parent, Path(mlflow_package.__file__).parents[4] / "bin")
SCRIPTS = {"PATH": ":".join([*map(str, FOLDERS), os.environ["PATH"]])}
"""Where the programs of the packages lie: in an image, all of them in one folder."""
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of MLflow's own dependencies, at import


def stage(name):
    """Return the instructions of a stage of the Dockerfile, continued lines joined."""
    text = (HERE / "Dockerfile").read_text().replace("\\\n", " ")
    parts = re.split(r"^FROM \S+ AS (\w[\w-]*)$", text, flags=re.MULTILINE)
    body = dict(zip(parts[1::2], parts[2::2], strict=True))[name]
    return [line.split(maxsplit=1) for line in body.splitlines() if line and not line.startswith("#")]


def instruction(name, word):
    return next(rest for first, rest in reversed(stage(name)) if first == word)


def healthcheck(name):
    return json.loads(instruction(name, "HEALTHCHECK").partition("CMD")[2])


def plain(value):
    """Return a value as it is where none of the variables is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


# What the files say


@pytest.mark.parametrize("name", ["ablate", "server"])
def test_an_image_ends_as_a_numeric_user_who_is_not_root_with_a_health_check(name):
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instruction(name, "USER"))
    assert healthcheck(name)
    assert json.loads(instruction(name, "ENTRYPOINT"))[0] == "entrypoint"


def test_every_service_is_pinned_restarts_or_says_why_not_and_has_its_secrets_and_volumes():
    for name, service in SERVICES.items():
        image = plain(service["image"])
        assert ":" in image, name
        assert not image.endswith(":latest"), name
        assert service["restart"] in ("unless-stopped", "on-failure", "no"), name
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"]), name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (HERE / source).exists(), f"{name}: {volume}"
        for needed in service.get("depends_on", {}):
            assert needed in SERVICES, f"{name}: {needed}"
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"postgres", "mlflow"}
    assert {profile for service in SERVICES.values() for profile in service.get("profiles", ())} == {
        "cpu", "gpu", "ray", "s3", "serve"
    }  # fmt: skip
    assert SERVICES["ablate-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == [
        "gpu"
    ]


def test_no_value_of_the_files_is_a_secret_and_all_secrets_are_made(tmp_path):
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASS|SECRET|KEY|TOKEN", name):
                assert name.endswith("_FILE"), name
                assert value.removeprefix("/run/secrets/") in service["secrets"]
            assert not re.search(r"://[^/@]*:[^/@]*@", value), name
    script = tmp_path / "make-secrets.sh"
    script.write_text((HERE / "make-secrets.sh").read_text())
    for _ in range(2):
        subprocess.run(["sh", script], check=True, capture_output=True)
        texts = [(tmp_path / secret["file"]).read_text() for secret in COMPOSE["secrets"].values()]
        assert all(re.fullmatch(r"[0-9a-f]{48}", text) for text in texts)
        assert len(set(texts)) == 3
    assert "docker/secrets/" in (HERE.parent / ".gitignore").read_text().split()
    assert (HERE / "make-secrets.sh").stat().st_mode & 0o111
    assert (HERE / "entrypoint.sh").stat().st_mode & 0o111


def test_the_entry_point_hands_secrets_on_and_says_which_cannot_be_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a 'b' $c\n")
    command = [
        "sh",
        HERE / "entrypoint.sh",
        sys.executable,
        "-c",
        "import os; print(os.environ['PGPASSWORD'])",
    ]

    def run(file):
        return subprocess.run(
            command, env=os.environ | {"PGPASSWORD_FILE": file}, capture_output=True, text=True, check=False
        )

    assert run(str(secret)).stdout == "a 'b' $c\n"
    missing = run(str(tmp_path / "missing"))
    assert missing.returncode == 2
    assert "PGPASSWORD: " in missing.stderr


def test_the_copied_files_are_in_the_build_context():
    ignored = (HERE / "Dockerfile.dockerignore").read_text()
    for name in ("base", "server", "build", "ablate"):
        for word, rest in stage(name):
            for source in rest.split()[:-1] if word == "COPY" and "--from" not in rest else ():
                if not source.startswith("--"):
                    assert (HERE.parent / source).exists(), source
                    assert f"!{source}" in ignored.split(), source


# What they do


@pytest.fixture(scope="module")
def postgres():
    if servers.programs() is None:
        pytest.skip("needs PostgreSQL's initdb and postgres")
    server = servers.Postgres()
    yield server
    server.close()


class Native:
    """The services of the compose file as processes of this machine."""

    def __init__(self, postgres, folder):
        self.folder, self.port, self.service = folder, servers.free_port(), servers.free_port()
        secrets = folder / "secrets"
        secrets.mkdir()
        (secrets / "postgres_password").write_text(servers.PASSWORD)
        for name in ("s3_access_key", "s3_secret_key"):
            (secrets / name).write_text("unused")
        self.here = {
            "/run/secrets": str(secrets), "postgres:5432": f"127.0.0.1:{postgres.port}",
            "http://mlflow:5000": f"http://127.0.0.1:{self.port}", "mlflow:5000": f"mlflow:{self.port}",
            "127.0.0.1:5000": f"127.0.0.1:{self.port}", "--port=5000": f"--port={self.port}",
            "--host=0.0.0.0": "--host=127.0.0.1", "/artifacts": str(folder / "artifacts"),
            "/work/mlruns": str(folder / "store"), "/opt/": f"{HERE}/",
            "--host=127.0.0.1 --port=5432": f"--host=127.0.0.1 --port={postgres.port}",
            "--port=8080": f"--port={self.service}", "127.0.0.1:8080": f"127.0.0.1:{self.service}",
        }  # fmt: skip

    def local(self, text):
        """Return a text with the names and places of the containers replaced by those of this machine."""
        for theirs, ours in self.here.items():
            text = text.replace(theirs, ours)
        return text

    def command(self, words):
        return ["sh", str(HERE / "entrypoint.sh"), *(self.local(word) for word in words)]

    def environment(self, service):
        shown = SERVICES[service]["environment"]
        return {name: self.local(plain(value)) for name, value in shown.items()} | SCRIPTS

    def run(self, words, environment):
        return subprocess.run(
            words, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=500
        )


@pytest.fixture(scope="module")
def native(postgres, tmp_path_factory):
    return Native(postgres, tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def mlflow(native):
    """Start MLflow's server by the words of the compose file."""
    command = native.command(SERVICES["mlflow"]["command"])
    log = native.folder / "mlflow.log"
    process = servers.Process(command, log, native.environment("mlflow"))
    process.wait_until(lambda: servers.answers(f"http://127.0.0.1:{native.port}/health"))
    yield process
    process.kill()


def answer(address, host):
    request = urllib.request.Request(address, headers={"Host": host})
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except HTTPError as error:
        error.close()
        return error.code


@pytest.mark.slow  # servers
def test_the_server_takes_the_hosts_that_clients_name_and_no_other(mlflow, native):
    question = f"http://127.0.0.1:{native.port}/api/2.0/mlflow/experiments/get?experiment_id=0"
    for host, code in ((f"mlflow:{native.port}", 200), ("localhost:5000", 200), ("evil.example.com", 403)):
        assert answer(question, host) == code


@pytest.mark.slow  # servers, and a study
def test_the_trainer_s_environment_reaches_both_databases_by_password_files_alone(mlflow, native, postgres):
    with closing(postgres.connect("postgres")) as connection:
        connection.execute("drop database optuna")
        connection.execute((HERE / "optuna.sql").read_text())  # as the image of PostgreSQL runs it
    study = native.folder / "team.toml"
    study.write_text(STUDY)
    entry = json.loads(instruction("ablate", "ENTRYPOINT"))[1:]
    done = native.run(native.command([*entry, "run", str(study)]), native.environment("ablate") | PATIENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not up to date" not in done.stdout
    store = native.folder / "store"
    assert attempts(store) == 2 + 2
    api = MlflowClient(f"http://127.0.0.1:{native.port}")
    runs = runs_of(api, "team")
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    assert (native.folder / "artifacts").is_dir()
    assert not list(store.glob("searches/*/optuna.jsonl"))
    check = native.run(native.command(healthcheck("ablate")), native.environment("ablate"))
    assert check.returncode == 0, check.stderr


@pytest.mark.slow  # a server
def test_the_service_answers_its_health_check_and_ends_when_it_is_told_to(native):
    entry = json.loads(instruction("ablate", "ENTRYPOINT"))[1:]
    command = native.command([*entry, *SERVICES["serve"]["command"]])
    service = servers.Process(command, native.folder / "serve.log", native.environment("serve"))
    service.wait_until(lambda: servers.answers(f"http://127.0.0.1:{native.service}/api/v1/health"))
    words = [native.local(word) for word in SERVICES["serve"]["healthcheck"]["test"][1:]]
    assert native.run(words, SCRIPTS).returncode == 0
    service.stop()
    assert service.process.returncode == 0
    assert native.run(words, SCRIPTS).returncode != 0


@pytest.mark.slow  # servers
def test_the_health_checks_hold_while_the_services_are_well_and_fail_when_they_are_not(
    mlflow, native, postgres
):
    words = shlex.split(native.local(shlex.join(SERVICES["postgres"]["healthcheck"]["test"][1:])))
    words[0] = str(postgres.bin / words[0])
    checks = [(words, {}), (native.command(healthcheck("server")), native.environment("mlflow"))]
    assert [native.run(*check).returncode for check in checks] == [0, 0]
    foreign = [*checks[1][0][:-1], "evil.example.com"]
    assert native.run(foreign, checks[1][1]).returncode != 0
    postgres.server.kill()
    assert [native.run(*check).returncode != 0 for check in checks] == [True, True]
    postgres.start()
    mlflow.wait_until(lambda: native.run(*checks[1]).returncode == 0)
    assert native.run(*checks[0]).returncode == 0


@pytest.mark.slow  # a cluster
def test_the_commands_of_ray_make_a_cluster_of_two_nodes(native):
    pytest.importorskip("ray")
    head, port = SERVICES["ray-head"], servers.free_port()

    def words(given, *more):
        return [word.replace("ray-head", "127.0.0.1").replace("6379", str(port)) for word in (*given, *more)]

    small = ("--num-cpus=1", "--object-store-memory=100000000")
    folder, short = native.folder, Path(tempfile.mkdtemp(prefix="r"))  # a socket's path has 107 bytes at most
    first = servers.Process(
        native.command(words(head["command"], *small, f"--temp-dir={short}")),
        folder / "ray1.log",
        SCRIPTS,
    )
    try:
        check = words(head["healthcheck"]["test"][1:])
        first.wait_until(lambda: native.run(check, SCRIPTS).returncode == 0)
        worker = SERVICES["ray-worker"]["command"]
        second = servers.Process(native.command(words(worker, *small)), folder / "ray2.log", SCRIPTS)
        try:
            second.wait_until(lambda: native.run(check, SCRIPTS).stdout.count("node_") >= 2)
        finally:
            second.kill()
    finally:
        first.kill()
        shutil.rmtree(short, ignore_errors=True)
