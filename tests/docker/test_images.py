"""The images of docker/Dockerfile, really built and run: by buildah, on a Debian made by debootstrap."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import servers
import torch

ROOT = Path(__file__).parents[2]
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
"""The Debian whose Python is this one: its packages are mounted, as PyTorch with CUDA has 6 GB."""
PACKAGES = Path(torch.__file__).parents[1]
INSIDE = "/opt/packages"
NEEDED = 8  # GB of disk


def missing():
    """Return what this machine lacks to build an image; empty where it can."""
    if os.getuid() != 0:
        return "debootstrap and buildah's chroot isolation need root"
    if absent := [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]:
        return f"needs {' and '.join(absent)}"
    if sys.version_info[:2] not in SUITES:
        return "no Debian has this version of Python, and its packages are to be mounted"
    if shutil.disk_usage("/tmp").free < NEEDED << 30:
        return f"needs {NEEDED} GB of disk"
    return ""


pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]  # minutes


class Builder:
    """Buildah with storage of its own below a folder."""

    def __init__(self, folder):
        self.environment = os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(folder)}
        for driver in ("overlay", "vfs"):  # the latter copies every layer, and works on top of overlay, too
            places = ("--root", folder / driver, "--runroot", folder / f"{driver}-run")
            self.storage = (*places, "--storage-driver", driver)
            if self("from", "scratch", check=False).returncode == 0:
                break

    def words(self, *arguments):
        return ["buildah", *map(str, (*self.storage, *arguments))]

    def __call__(self, *arguments, check=True):
        done = subprocess.run(
            self.words(*arguments), env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip() if check else done

    def config(self, image):
        return json.loads(self("inspect", "--type", "image", image))["Docker"]["config"]

    def run(self, container, *command, check=True):
        mount = ("--volume", f"{PACKAGES}:{INSIDE}:ro")
        return self("run", *mount, container, "--", *command, check=check)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    builder = Builder(folder)
    system, suite = folder / "debian", SUITES[sys.version_info[:2]]
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", suite, system],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"debootstrap has no Debian to take: {done.stdout.splitlines()[-1:]}")
    trusted = Path("/etc/ssl/certs/ca-certificates.crt")  # a proxy between here and PyPI may have its own
    if trusted.exists():
        shutil.copy(trusted, system / "etc/ssl/certs/ca-certificates.crt")
    (system / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")
    container = builder("from", "scratch")
    builder("add", "--quiet", container, system, "/")
    shutil.rmtree(system)
    builder("commit", "--quiet", "--rm", container, "localhost/base:1")
    yield builder
    builder("rm", "--all", check=False)
    builder("rmi", "--all", "--force", check=False)
    shutil.rmtree(folder)


def built(buildah, target):
    """Build an image, and return a container of it and how it is configured."""
    image = f"localhost/{target}:1"
    buildah(
        "bud", "--quiet", "--format", "docker", "--file", ROOT / "docker/Dockerfile",
        "--ignorefile", ROOT / "docker/Dockerfile.dockerignore", "--target", target, "--tag", image,
        "--build-arg", "BASE=localhost/base:1", "--build-arg", f"PACKAGES={INSIDE}",
        "--volume", f"{PACKAGES}:{INSIDE}:ro", ROOT,
    )  # fmt: skip
    return buildah("from", image), buildah.config(image)


def test_the_trainer_s_image_trains_a_study_as_its_user_and_is_well(buildah):
    container, config = built(buildah, "ablate")
    assert config["User"] == "10001:10001"
    assert buildah.run(container, "id", "-u") == "10001"
    out = buildah.run(
        container, *config["Entrypoint"], "run", "studies/quickstart.toml",
        *("--set", "seeds=1", "--set", "training.epochs=1"),
    )  # fmt: skip
    assert "report: /work/mlruns/studies/quickstart/report.html" in out
    owner = buildah.run(container, "stat", "-c", "%u", "/work/mlruns/studies/quickstart/report.html")
    assert owner == "10001"
    kind, *check = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert buildah.run(container, *check)
    where = buildah.run(
        container, "python3", "-c", "import ablate, psycopg, torch; print(ablate.__file__, torch.__file__)"
    )
    assert where.startswith("/opt/venv/")
    assert INSIDE in where


def test_the_server_s_image_serves_as_its_user_and_its_health_check_holds(buildah, tmp_path):
    container, config = built(buildah, "server")
    assert config["User"] == "10001:10001"
    port = servers.free_port()
    _, *check = [word.replace("5000", str(port)) for word in config["Healthcheck"]["Test"]]
    assert buildah.run(container, *check, check=False).returncode != 0  # nothing runs yet
    serve = (
        # Its own `mlflow` lies where the mounted packages have come from.
        *config["Entrypoint"], "python3", "-m", "mlflow", "server",
        "--host=127.0.0.1", f"--port={port}", "--workers=1",
        "--backend-store-uri=sqlite:////tmp/mlflow.db", "--artifacts-destination=/artifacts",
        f"--allowed-hosts=mlflow:{port}",
    )  # fmt: skip
    mount = ("--volume", f"{PACKAGES}:{INSIDE}:ro")
    words = buildah.words("run", *mount, container, "--", *serve)
    process = servers.Process(words, tmp_path / "log", buildah.environment)
    try:
        process.wait_until(lambda: servers.answers(f"http://127.0.0.1:{port}/health"))
        buildah.run(container, *check)
        assert buildah.run(container, *check[:-1], "evil.example.com", check=False).returncode != 0
    finally:
        process.kill()
    assert buildah.run(container, "python3", "-c", "import boto3, psycopg") == ""
