"""Some settings of the other factors, by their levels: where an effect is known, or where runs fail."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Setting = tuple[str, ...]  # a level of each factor
Term = tuple[tuple[str, tuple[str, ...]], ...]  # factors and their levels, all of which hold

MOST_TERMS = 20
"""The most settings without a common description that are each described in as few levels as possible."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Some, not all, of the planned settings: where any of the terms holds, or where none does."""

    terms: tuple[Term, ...]
    outside: bool  # whether it is the settings in which none of the terms holds
    settings: int
    planned: int


def describe(factors: Sequence[str], chosen: Iterable[Setting], planned: Sequence[Setting]) -> Scope | None:
    """Return the scope of some of the planned settings, in few levels; None where it is all or none."""
    return _described(tuple(factors), frozenset(chosen), tuple(planned))


@lru_cache(maxsize=256)  # the effects on every class of the images are known, and fail, in the same settings
def _described(
    factors: tuple[str, ...], inside: frozenset[Setting], planned: tuple[Setting, ...]
) -> Scope | None:
    outside = frozenset(planned) - inside
    if not inside or not outside:
        return None
    ways = [(_terms(part, planned), is_outside) for part, is_outside in ((inside, False), (outside, True))]
    terms, is_outside = min(ways, key=lambda way: (*_length(way[0]), way[1]))
    named = tuple(tuple((factors[i], levels) for i, levels in term.items()) for term in terms)
    return Scope(named, is_outside, len(inside), len(planned))


Draft = Mapping[int, tuple[str, ...]]  # a term, its factors by their positions


def _length(terms: Sequence[Draft]) -> tuple[int, int]:
    """Return how many terms there are, and how many levels they name."""
    return len(terms), sum(len(levels) for term in terms for levels in term.values())


def _terms(chosen: frozenset[Setting], planned: Sequence[Setting]) -> list[Draft]:
    """Return terms that hold in the chosen settings and in no other: one if possible, else one a part."""
    whole = _term(chosen, planned)
    if whole is not None:
        return [whole]
    splits = []
    for i in range(len(planned[0])):
        levels = dict.fromkeys(setting[i] for setting in planned if setting in chosen)
        if 1 < len(levels) < len(chosen):
            terms = [_term(frozenset(s for s in chosen if s[i] == level), planned) for level in levels]
            splits.append([term for term in terms if term is not None] if None not in terms else [])
    shortest: list[Draft] = min((split for split in splits if split), key=len, default=[])
    if shortest:
        return shortest
    single = [setting for setting in planned if setting in chosen]
    if len(single) > MOST_TERMS:
        return [{i: (level,) for i, level in enumerate(setting)} for setting in single]
    return [term for setting in single if (term := _term(frozenset([setting]), planned)) is not None]


def _term(chosen: frozenset[Setting], planned: Sequence[Setting]) -> Draft | None:
    """Return a term that holds in the chosen settings and in no other planned one; None without one."""

    def holds(term: Draft) -> bool:
        """Whether the term, which holds in all chosen settings, holds in no other."""
        inside = [s for s in planned if all(s[i] in levels for i, levels in term.items())]
        return len(inside) == len(chosen)

    ordered = [setting for setting in planned if setting in chosen]
    term: Draft = {i: tuple(dict.fromkeys(setting[i] for setting in ordered)) for i in range(len(planned[0]))}
    if not holds(term):
        return None
    for i in reversed(range(len(planned[0]))):  # levels that follow from those of another factor are left out
        without = {j: levels for j, levels in term.items() if j != i}
        term = without if holds(without) else term
    return term
