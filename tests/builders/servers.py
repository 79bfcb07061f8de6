"""A real PostgreSQL and a real server of MLflow, on free ports, which die with the tests."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

LIFELINE = Path(__file__).with_name("lifeline.py")
PASSWORD = "correct-horse-9f3b"
"""Of the database: no file, message or tag may have it."""


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Process:
    """A command that ends with these tests."""

    def __init__(self, command, log, environment=None, user=""):
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(LIFELINE), user, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=os.environ | (environment or {}),
            )

    def wait_until(self, condition, seconds=300):
        end = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise AssertionError(f"it ended, or was waited for too long: {self.log.read_text()}")
            time.sleep(0.1)

    def kill(self):
        """End it as a power cut would."""
        self.process.stdin.close()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(300)
        with suppress(OSError):
            self.process.stdin.close()


def programs():
    """Return the folder of PostgreSQL's programs; None where there are none."""
    there = shutil.which("initdb")
    folders = [Path(there).resolve().parent] if there else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


class Postgres:
    """A server of PostgreSQL with the databases `mlflow` and `optuna`, both of the user `ablate`."""

    def __init__(self):
        self.bin, self.port = programs(), free_port()
        # PostgreSQL refuses to run as root, and others may not enter the folders of pytest.
        self.user = "nobody" if os.getuid() == 0 else ""
        self.folder = Path(tempfile.mkdtemp(prefix="ablate-pg-", dir="/tmp"))
        secret = self.folder / "secret"
        secret.write_text(PASSWORD)
        if self.user:
            for path in (self.folder, secret):
                shutil.chown(path, self.user)
        made = Process(
            [self.bin / "initdb", "-D", self.folder / "data", "-U", "ablate", "--pwfile", secret,
             "--auth", "scram-sha-256", "--no-sync", "-E", "UTF8", "--locale", "C"],
            self.folder / "initdb.log", user=self.user,
        )  # fmt: skip
        assert made.process.wait(300) == 0, made.log.read_text()
        made.process.stdin.close()
        self.start()
        for name in ("mlflow", "optuna"):
            with closing(self.connect("postgres")) as connection:
                connection.execute(f"create database {name}")

    def start(self):
        self.server = Process(
            [self.bin / "postgres", "-D", self.folder / "data", "-p", self.port, "-k", self.folder,
             "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
            self.folder / "log", user=self.user,
        )  # fmt: skip
        self.server.wait_until(self.answers)

    def answers(self):
        import psycopg

        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, database):
        import psycopg

        return psycopg.connect(self.address(database), autocommit=True)

    def address(self, database):
        return f"postgresql://ablate:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def dump(self):
        """Return all that the databases hold, as text."""
        commands = [[self.bin / "pg_dump", self.address(name)] for name in ("mlflow", "optuna")]
        dumps = [subprocess.run(one, capture_output=True, text=True, check=True) for one in commands]
        return "".join(dump.stdout for dump in dumps)

    def close(self):
        self.server.kill()
        shutil.rmtree(self.folder)


class MlflowServer:
    """MLflow's server on a database, which serves the artifacts of a folder."""

    def __init__(self, database, folder):
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", self.port,
            "--workers", "1", "--serve-artifacts", "--artifacts-destination", folder / "served",
        ]  # fmt: skip
        self.environment = {
            "MLFLOW_BACKEND_STORE_URI": database.replace("postgresql://", "postgresql+psycopg://"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.log = folder / "server.log"
        self.start()

    def start(self):
        self.server = Process(self.command, self.log, self.environment)
        self.server.wait_until(self.answers)

    def answers(self):
        return answers(f"{self.address}/health")

    def kill(self):
        self.server.kill()


def answers(address):
    """Whether a server answers that it is well."""
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False
