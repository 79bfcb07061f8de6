"""Commands in a folder that others write to: nothing that lies there is run."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("ablate")  # of `python -m ablate`, Python itself looks there first
INSTALLED = (
    "mlflow",
    "torch",
    "numpy",
    "click",
    "rich",
    "uvicorn",
    "filelock",
    "optuna",
    "sqlalchemy",
    "wandb",
)


@pytest.fixture
def hostile(tmp_path):
    """Return a folder with a file for every module that may be imported, and the list of what was run."""
    folder, ran = tmp_path / "shared", tmp_path / "ran"
    folder.mkdir()
    opened = f"posix.open({str(ran)!r}, {os.O_WRONLY | os.O_CREAT | os.O_APPEND}, 0o600)"
    text = f"import posix\nposix.write({opened}, f'{{__name__}}\\n'.encode())\n"
    for name in (*sys.stdlib_module_names, *INSTALLED):
        (folder / f"{name}.py").write_text(text)
    return folder, ran


def start(folder, *arguments):
    command = [COMMAND, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=folder, start_new_session=True)


@pytest.mark.slow  # seconds
def test_a_run_and_its_workers_import_nothing_from_there(hostile, study):
    folder, ran = hostile
    few = ("--set", "seeds=1", "--set", "training.epochs=1", "--jobs", 1)
    process = start(folder, "run", study, "--store", ".", *few)
    out, err = process.communicate(timeout=300)
    assert not ran.exists(), ran.read_text()
    assert (process.returncode, err) == (0, ""), out
    assert len(list(folder.glob("jobs/*/result.json"))) == 2


@pytest.mark.slow  # MLflow's server takes 10 s to start
def test_the_page_of_mlflow_imports_nothing_from_there(hostile, done):
    folder, ran = hostile
    store, _ = done
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    served = start(folder, "ui", "--store", store / "store", "--port", port)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                    assert answer.read() == b"OK"
                break
            except OSError:
                assert served.poll() is None, served.communicate()
                assert time.monotonic() < end
                time.sleep(0.2)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(served.pid, signal.SIGTERM)
        served.communicate(timeout=60)
    assert not ran.exists(), ran.read_text()
