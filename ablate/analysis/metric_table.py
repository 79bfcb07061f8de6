"""The values of one metric by seed and by levels: what effects are computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ablate.analysis.outcomes import FAILED_RESULT, Outcome
from ablate.analysis.stats import Floats
from ablate.recipe import metrics
from ablate.study.file import Study
from ablate.study.grid import Cell, Grid

Levels = tuple[str, ...]  # a level for each factor of the study, inactive ones at their baseline


@dataclass(frozen=True, slots=True)
class Table:
    """The values of one metric by seed and by levels, and what verdicts on their differences depend on."""

    study: Study
    seeds: tuple[int, ...]
    values: Floats  # (S, cells); NaN where there is no value
    ended: NDArray[np.bool_]  # (S, cells): the run has a result
    failed: NDArray[np.bool_]  # (S, cells): the result must not be averaged
    at_chance: NDArray[np.bool_]  # (S, cells): failed for that reason
    chance_values: Floats  # (S, cells); NaN where there is none
    cells: Mapping[Levels, Cell]
    columns: Mapping[Levels, int]
    benefit: int
    min_effect: float | None
    reach: float | None = None
    """The largest size of an effect, to which intervals are cut: for the accuracy of one class, else None."""

    def block(self, settings: Sequence[Levels]) -> Floats:
        """Return the (S, M) values of some cells."""
        return self.values[:, [self.columns[levels] for levels in settings]]

    def failures(self, settings: Sequence[Levels]) -> NDArray[np.int_]:
        """Return the number of failed, of ended and of at-chance runs of some cells: (3, M)."""
        columns = [self.columns[levels] for levels in settings]
        return np.array([runs[:, columns].sum(axis=0) for runs in (self.failed, self.ended, self.at_chance)])

    def weights(self, settings: Sequence[Levels], shares: Floats) -> Floats:
        """Return the (cells,) weights of a mean over some cells."""
        weights = np.zeros(self.values.shape[1])
        np.add.at(weights, [self.columns[levels] for levels in settings], shares)
        return weights


def tabulate(
    study: Study, grid: Grid, outcomes: tuple[Outcome, ...], metric: str, direction: metrics.Direction
) -> Table:
    """Return one metric by seed and cell; runs that have failed, or are missing, have no value."""
    seeds, ids = sorted(study.seeds), [cell.id for cell in grid.cells]
    row, column = ({key: i for i, key in enumerate(keys)} for keys in (seeds, ids))
    values, chance_values = (np.full((len(seeds), len(ids)), np.nan) for _ in range(2))
    ended, failed, at_chance = (np.zeros(values.shape, bool) for _ in range(3))
    for o in outcomes:
        place = row[o.run.seed], column[o.run.cell.id]
        failed[place], at_chance[place] = o.status in FAILED_RESULT, o.status == "at_chance"
        ended[place] = failed[place] or o.status == "finished"
        if ended[place]:
            (chance_values if failed[place] else values)[place] = o.metrics.get(metric, np.nan)
    return replace(
        lay_out(study, grid, tuple(seeds), values),
        ended=ended,
        failed=failed,
        at_chance=at_chance,
        chance_values=chance_values,
        benefit=1 if direction == "max" else -1,
        min_effect=study.min_effect if metric == study.metric else None,
        reach=1.0 if metric.startswith(metrics.PER_CLASS) else None,
    )


def lay_out(study: Study, grid: Grid, seeds: tuple[int, ...], values: Floats) -> Table:
    """Return a table of (S, cells) values, of which larger is better and none has failed."""
    levels = [filled(study, cell.levels) for cell in grid.cells]
    return Table(
        study=study,
        seeds=seeds,
        values=values,
        ended=np.isfinite(values),
        failed=np.zeros(values.shape, bool),
        at_chance=np.zeros(values.shape, bool),
        chance_values=np.full(values.shape, np.nan),
        cells=dict(zip(levels, grid.cells, strict=True)),
        columns={setting: i for i, setting in enumerate(levels)},
        benefit=1,
        min_effect=None,
    )


def filled(study: Study, levels: Mapping[str, str]) -> Levels:
    """Return a level of every factor: a factor that is inactive there counts as being at its baseline."""
    return tuple(levels.get(factor.name, factor.levels[0].name) for factor in study.factors)


def settings(table: Table, at: Mapping[int, str]) -> list[Levels]:
    """Return the cells in which some factors, by position, have these levels and are active."""
    names = [factor.name for factor in table.study.factors]
    return [
        levels
        for levels, cell in table.cells.items()
        if all(levels[i] == level for i, level in at.items()) and all(names[i] in cell.levels for i in at)
    ]


def with_levels(levels: Levels, at: Mapping[int, str]) -> Levels:
    """Return the levels with those of some factors, by position, replaced."""
    return tuple(at.get(i, level) for i, level in enumerate(levels))
