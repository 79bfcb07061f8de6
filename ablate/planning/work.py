"""The pieces of work that cells wait for: range tests, searches."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.recipe import identity as identities
from ablate.recipe.fields import Recipe
from ablate.recipe.range_test import Sweep
from ablate.store.files import Json
from ablate.store.job_folder import Folder
from ablate.store.layout import Store
from ablate.study import grid as grids
from ablate.study.grid import Job
from ablate.study.search_space import Search


@dataclass(frozen=True, slots=True)
class RangeTest:
    """Find the learning rate of one recipe."""

    id: str
    label: str  # of the first cell that needs it
    recipe: Recipe
    sweep: Sweep
    seeds: tuple[int, ...]
    data: str
    code: str


@dataclass(frozen=True, slots=True)
class RangeWork:
    """One seed of a range test, as the scheduler takes it."""

    test: RangeTest
    seed: int

    @property
    def id(self) -> str:
        """Name its task."""
        return f"{self.test.id}/{self.seed}"

    def folder(self, store: Store) -> Folder:
        """Name the folder of its log."""
        return store.range(self.test.id).seed(self.seed)

    def payload(self, store: Store) -> Json:
        """Return what a worker needs."""
        folder = self.folder(store)
        folder.path.mkdir(parents=True, exist_ok=True)
        return {
            "sweep": dataclasses.asdict(self.test.sweep), "recipe": self.test.recipe.model_dump(mode="json"), "seed": self.seed,
            "folder": str(folder.path), "curve": str(store.range(self.test.id).curve(self.seed)), "data": str(store.data / self.test.data),
            "code_fingerprint": self.test.code,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class CellSearch:
    """Search the fields of one recipe."""

    id: str
    label: str
    recipe: Recipe
    search: Search  # of the fields that matter in this recipe
    data: str
    code: str

    def jobs(self, fields: Mapping[str, Any]) -> tuple[Job, ...]:
        """Return the trainings of a trial of these fields, one for each tuning seed."""
        made = grids.with_fields(self.recipe, fields)
        ids = [(identities.job_id(made, seed, self.data, self.code), seed) for seed in self.search.seeds]
        return tuple(Job(identity, made, seed, self.data, self.code) for identity, seed in ids)
