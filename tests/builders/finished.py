"""Studies that have been run, for tests that look at what they leave behind."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from commands import TINY, ablate
from filelock import FileLock

TEXTS = {".csv", ".html", ".json", ".jsonl", ".md", ".toml", ".txt"}


def copy_of(shared, own):
    """Run the tiny study once, in a folder that processes share; return an own copy, and what it printed."""
    folder, copy = shared / "tiny-study", own / "done"
    with FileLock(shared / "tiny-study.lock"):
        if not (folder / "out.txt").exists():
            folder.mkdir()
            (folder / "tiny.toml").write_text(TINY)
            code, out, err = ablate("run", folder / "tiny.toml", "--store", folder / "store")
            assert (code, err) == (0, ""), out + err
            (folder / "out.txt").write_text(out)
    shutil.copytree(folder, copy, symlinks=True)
    _move(copy / "store/mlflow.db", str(folder), str(copy))
    for path in copy.rglob("*"):
        if path.is_file() and path.suffix in TEXTS:  # they tell where the study's file is
            path.write_bytes(path.read_bytes().replace(str(folder).encode(), str(copy).encode()))
    return copy, (folder / "out.txt").read_text().replace(str(folder), str(copy))


def quickstart(shared):
    """Run the quickstart once, in a folder that processes share; return its store, only to be looked at."""
    folder = shared / "quickstart"
    with FileLock(shared / "quickstart.lock"):
        if not (folder / "done").exists():
            study = Path(__file__).parents[2] / "studies/quickstart.toml"
            code, out, err = ablate(
                "run", study, "--store", folder / "store", "--set", "training.precision=fp32"
            )
            assert code == 0, out + err
            (folder / "done").touch()
    return folder / "store"


def _move(database, old, new):
    """Write another folder into a database of MLflow, which holds absolute paths of artifacts."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, kind, *_ in connection.execute(f"PRAGMA table_info('{table}')").fetchall():
                if kind.upper().startswith(("VARCHAR", "TEXT")):
                    change = f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?)"
                    connection.execute(change, (old, new, old))
