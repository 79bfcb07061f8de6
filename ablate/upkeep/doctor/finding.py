"""What a check reports, and what it examines."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from ablate import descriptors
from ablate.planning import references
from ablate.planning.references import Needs
from ablate.planning.resolve import Resolved
from ablate.store import files
from ablate.store.files import SPOILT
from ablate.store.layout import Store
from ablate.upkeep import leftovers

Severity = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check at one place; findings with the same words are shown as one."""

    check: str
    severity: Severity
    says: str
    do: str = ""  # a command, or what to remove; empty where nothing has to be done
    where: str = ""  # a path below the store, or a study; empty where it is about the whole store


@dataclass(frozen=True)
class Patient:
    """The store that is examined, and how thoroughly."""

    store: Store
    compare: Callable[[Resolved], list[str]]
    """Returns the differences between MLflow and the store, in sentences; raises whatever MLflow raises."""
    address: str = ""  # of MLflow, without its password
    deep: bool = False
    given_uri: str = ""  # of MLflow, where the command line has it; without its password

    @cached_property
    def is_there(self) -> bool:
        """Whether there is a store at all."""
        return files.is_there(self.store.path / "jobs")

    @cached_property
    def jobs(self) -> tuple[Path, ...]:
        """The folders of the jobs that can be read; one check names the others."""
        paths = sorted((self.store.path / "jobs").glob("[!.]*"))
        return tuple(path for path in paths if path.is_dir() and can_read(path))

    def held(self) -> Iterator[Path]:
        """Yield the folder of each job, open meanwhile: what is in it is looked for from there."""
        for path in self.jobs:
            with ExitStack() as stack:
                try:
                    stack.enter_context(descriptors.holding(path))
                except SPOILT:  # a link, say: another check reports it
                    continue
                yield path

    @cached_property
    def entries(self) -> tuple[os.DirEntry[str], ...]:
        """What lies in the parts of the store that ablate writes, listed once for all checks."""
        return tuple(leftovers.parts(self.store))

    @cached_property
    def needs(self) -> Needs:
        """What the studies need."""
        return references.read(self.store, quick=True)

    @property
    def studies(self) -> Mapping[str, Resolved]:
        """The studies that can be planned, by name."""
        return self.needs.studies

    def short(self, path: Path) -> str:
        """Return a path relative to the store."""
        return str(path.relative_to(self.store.path))

    def command(self, name: str, *words: str) -> str:
        """Return a command on this store as it can be typed here."""
        usual = Path(os.environ.get("ABLATE_STORE") or "mlruns").expanduser().absolute()
        options = [] if self.store.path == usual else ["--store", str(self.store.path)]
        if name == "sync" and self.given_uri:
            options += ["--tracking-uri", self.given_uri]
        dashed = ["--"] if any(word.startswith("-") for word in words) else []
        return shlex.join(["ablate", name, *options, *dashed, *words])

    def gc(self) -> str:
        """Return the advice to run `ablate gc`."""
        return f"{self.command('gc')} removes them, and asks first"


def can_read(path: Path | os.DirEntry[str]) -> bool:
    """Whether this user may read a file, or list a folder and open what is in it."""
    return os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)
