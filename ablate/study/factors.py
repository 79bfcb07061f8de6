"""The factors of a study: a recipe field and its levels, or named levels that set several fields at once."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ablate.messages import show, unknown
from ablate.recipe import fields, identity
from ablate.study import conditions
from ablate.study.checks import in_field, unknown_field
from ablate.study.conditions import Expression

FIND = "find"
"""For `optimizer.lr`: the rate that a range test of the cell suggests."""


LEVEL = {"name": str, "set": dict, "start": str}
MOST_LEVELS = 20_000  # of a factor: more make more cells than there may be


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One setting of a factor: the fields that it sets, by path."""

    name: str
    set: Mapping[str, Any]
    start: str = ""  # the level of the same factor whose weights this one's training starts from


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A choice to vary; its first level is the baseline. Where `when` is false, a cell does not have it."""

    name: str
    levels: tuple[Level, ...]
    when: Expression | None = None


def leaves(table: Any, path: str = "", *, ranges: bool = False) -> Iterator[tuple[str, Any]]:
    """Return the (dotted path, value) pairs of nested tables.

    The value of a recipe field may itself be a table; a range always is.
    """
    sections = fields.Recipe.model_fields
    is_field = path in fields.fields() and path != fields.OPTIONS  # whose options are fields
    whole = is_field or (ranges and path not in sections and path != fields.OPTIONS)
    if isinstance(table, dict) and (not path or (table and not whole)):
        for key, part in table.items():
            yield from leaves(part, f"{path}.{key}" if path else key, ranges=ranges)
    else:
        yield path, table


def check_value(where: str, path: str, given: Any, wrong: list[str]) -> bool:
    """Whether a recipe field may have this value; what is wrong is added under the key path `where`."""
    if path not in fields.fields():
        wrong.append(f"{where}: {unknown_field(path)}")
        return False
    if path == "optimizer.lr" and given == FIND:
        return True
    sentences = in_field(fields.fields()[path], given)
    wrong += [f"{where}: {sentence}" for sentence in sentences]
    return not sentences


def name_of(given: Any) -> str:
    """Return the name of a level, after its value: true, 0.1, random_crop."""
    return given if isinstance(given, str) else show(given)


def short_factors(table: Any, wrong: list[str]) -> list[Factor]:
    """Read [factors]: a field and its levels."""
    if not isinstance(table, dict):
        wrong.append(f"factors: must be a table, got {show(table)}")
        return []
    return [_field_factor(f"factors.{path}", path, levels, wrong) for path, levels in leaves(table)]


def _field_factor(
    where: str, path: str, levels: Any, wrong: list[str], when: Expression | None = None
) -> Factor:
    """Read the levels of one recipe field."""
    if path not in fields.fields():
        wrong.append(f"{where}: {unknown_field(path)}")
        return Factor(path, (), when)
    if not isinstance(levels, list):
        wrong.append(f"{where}: must be a list of levels, got {show(levels)}")
        return Factor(path, (), when)
    if len(levels) > MOST_LEVELS:
        wrong.append(f"{where}: must have at most {MOST_LEVELS:,} levels, got {len(levels):,}")
        return Factor(path, (), when)
    before = len(wrong)
    for i, given in enumerate(levels):
        check_value(f"{where}[{i}]", path, given, wrong)
    _check_levels(where, [name_of(given) for given in levels], wrong)
    if len(wrong) == before and len({identity.digest(given) for given in levels}) < len(levels):
        wrong.append(f"{where}: two of its levels are the same value, got {show(levels)}")
    return Factor(path, tuple(Level(name_of(given), {path: given}) for given in levels), when)


def _check_levels(where: str, names: list[str], wrong: list[str]) -> None:
    if len(names) < 2:
        wrong.append(
            f"{where}: must have at least 2 levels, the first of them the baseline, got {len(names)}"
        )
    if len(set(names)) < len(names):
        wrong.append(f"{where}: must have different levels, got {', '.join(names)}")


def long_factors(tables: Any, wrong: list[str]) -> list[Factor]:
    """Read [[factor]]: named levels that set several fields, or a field's values under a condition."""
    return [
        _long_factor(f"factor[{i}]", table, wrong)
        for i, table in tables_of("factor", tables, ("name", "levels", "when"), wrong)
    ]


def _long_factor(where: str, table: dict[str, Any], wrong: list[str]) -> Factor:
    name, levels = table.get("name"), table.get("levels")
    when = condition(f"{where}.when", table["when"], wrong) if "when" in table else None
    if not isinstance(name, str) or not name.strip() or not isinstance(levels, list):
        wrong.append(f"{where}: must have a name and a list of levels")
        return Factor(str(name), (), when)
    if name in fields.fields() and not any(isinstance(level, dict) and "set" in level for level in levels):
        return _field_factor(f"{where}.levels", name, levels, wrong, when)
    read = []
    for i, level in enumerate(levels):
        at = f"{where}.levels[{i}]"
        if not (
            isinstance(level, dict)
            and {"start": str} | {key: type(part) for key, part in level.items()} == LEVEL
        ):
            wrong.append(f'{at}: must be {{ name = "...", set = {{ field = value }} }}, got {show(level)}')
            continue
        values = dict(leaves(level["set"]))
        for path, given in values.items():
            check_value(f"{at}.set.{path}", path, given, wrong)
        read.append(Level(level["name"], values, level.get("start", "")))
    if levels and len(read) == len(levels) and not any(level.set for level in read):
        wrong.append(f"factor {name}: its levels set no field: it changes nothing")
    if len(read) == len(levels):
        _check_levels(f"{where}.levels", [level.name for level in read], wrong)
        _check_starts(f"{where}.levels", read, wrong)
    return Factor(name, tuple(read), when)


def _check_starts(where: str, levels: list[Level], wrong: list[str]) -> None:
    """Add what is wrong where a level starts from another one."""
    starts = {level.name: level.start for level in levels if level.start}
    for i, level in enumerate(levels):
        at, others = f"{where}[{i}].start", [other.name for other in levels if other is not level]
        if level.start and level.start not in others:
            wrong.append(f"{at}: {unknown(level.start, 'another level of this factor', others)}")
            return
    try:
        TopologicalSorter({name: {start} for name, start in starts.items()}).prepare()
    except CycleError as error:
        wrong.append(f"{where}: start from each other in a circle ({' -> '.join(error.args[1])})")


def check_starts(factors: tuple[Factor, ...], *, is_tuned: bool, wrong: list[str]) -> None:
    """Add what is wrong where several factors have levels that start from others, or the study is tuned."""
    named = [factor.name for factor in factors if any(level.start for level in factor.levels)]
    if len(named) > 1:
        wrong.append(f"factor {named[1]}: has levels with a start, as {named[0]} has: one factor may")
    if named and is_tuned:
        wrong.append(
            f"factor {named[0]}: has levels with a start, which must be known beforehand: leave out "
            '[search] and optimizer.lr = "find"'
        )


def check_overlap(base: dict[str, Any], factors: tuple[Factor, ...], wrong: list[str]) -> None:
    """Add what is wrong where a field is set in two places: [recipe] and a factor, or two factors.

    Only the levels of a [[factor]] may override the recipe.
    """
    owner: dict[str, str] = {}
    for factor in factors:
        for path in dict.fromkeys(path for level in factor.levels for path in level.set):
            if path in base and factor.name == path:
                wrong.append(f"factors.{path}: is also in [recipe]: keep it in one of them")
            if owner.get(path, factor.name) != factor.name:
                wrong.append(
                    f"factor {factor.name}: sets {path}, which the factor {owner[path]} sets too: a field "
                    "has one factor"
                )
            owner[path] = factor.name
    names = [factor.name for factor in factors]
    wrong += [
        f"factor {name}: stands twice: give each factor a name of its own"
        for name, count in Counter(names).items()
        if count > 1
    ]


def in_order(factors: Iterable[Factor]) -> list[Factor]:
    """Return the factors in an order in which each `when` follows the factors that set what it asks for.

    Raises a CycleError where there is none.
    """
    owner = {path: factor for factor in factors for level in factor.levels for path in level.set}
    asks = {factor: factor.when.paths() if factor.when else set() for factor in factors}
    order = TopologicalSorter(
        {factor: {owner[path] for path in paths & owner.keys()} for factor, paths in asks.items()}
    )
    return sorted(order.static_order(), key=lambda factor: factor.when is not None)


def check_order(factors: tuple[Factor, ...], wrong: list[str]) -> None:
    """Add what is wrong where a `when` depends on itself."""
    try:
        in_order(factors)
    except CycleError as error:
        names = [factor.name for factor in error.args[1]]
        wrong.append(
            f"factor {names[0]}: its when depends on itself ({' -> '.join(names)}): "
            "ask only for what does not depend on it"
        )


def tables_of(
    key: str, tables: Any, allowed: tuple[str, ...], wrong: list[str]
) -> list[tuple[int, dict[str, Any]]]:
    """Read [[key]]: a list of tables with these keys and no others."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        wrong.append(f"{key}: must be written as [[{key}]], got {show(tables)}")
        return []
    for i, table in enumerate(tables):
        wrong += [
            f"{key}[{i}].{name}: {unknown(name, f'a key of [[{key}]]', allowed)}"
            for name in table
            if name not in allowed
        ]
    return list(enumerate(tables))


def condition(where: str, text: Any, wrong: list[str]) -> Expression:
    """Return the condition of `when` or `if`; with anything wrong, it never holds."""
    if not isinstance(text, str):
        wrong.append(f"{where}: must be a condition in quotes, got {show(text)}")
        return Expression("false")
    parsed, sentences = conditions.parse(text, fields.fields())
    wrong += [f"{where}: {sentence}" for sentence in sentences]
    return parsed
