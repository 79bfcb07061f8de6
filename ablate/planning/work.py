"""The pieces of work that cells wait for: range tests, searches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.recipe import identity as identities
from ablate.recipe.fields import Recipe
from ablate.recipe.range_test import Sweep
from ablate.store import files
from ablate.store.job_folder import Folder
from ablate.store.layout import Store
from ablate.store.tasks import Context, RangeTask
from ablate.study import grid as grids
from ablate.study.grid import Job
from ablate.study.search_space import Search


@dataclass(frozen=True, slots=True)
class RangeTest:
    """A range test of the learning rate of one recipe."""

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
        """The identity of its task."""
        return f"{self.test.id}/{self.seed}"

    def folder(self, store: Store) -> Folder:
        """Return the folder of its log."""
        return store.range(self.test.id).seed(self.seed)

    def prepare(self, store: Store) -> None:
        """Make the folder that the worker writes into."""
        files.make(self.folder(store).path, durable=False)

    def task(self, store: Store, context: Context) -> RangeTask:
        """Return what a worker is handed."""
        return RangeTask(
            context=context,
            test=self.test.id,
            seed=self.seed,
            recipe=self.test.recipe,
            sweep=self.test.sweep,
            folder=self.folder(store).path,
            curve=store.range(self.test.id).curve(self.seed),
            data=store.data / self.test.data,
            code=self.test.code,
        )


@dataclass(frozen=True, slots=True)
class CellSearch:
    """A search of the fields of one recipe."""

    id: str
    label: str
    recipe: Recipe
    search: Search  # of the fields that matter in this recipe
    data: str
    code: str

    def jobs(self, fields: Mapping[str, Any]) -> tuple[Job, ...]:
        """Return the trainings of a trial of these fields, one for each tuning seed."""
        recipe = grids.with_fields(self.recipe, fields)
        ids = [(identities.job_id(recipe, seed, self.data, self.code), seed) for seed in self.search.seeds]
        return tuple(Job(identity, recipe, seed, self.data, self.code) for identity, seed in ids)
