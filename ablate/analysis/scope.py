"""A part of the settings of the other factors, described by their levels: where an effect is known, or where runs fail."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Setting = tuple[str, ...]  # a level of each factor
Term = tuple[tuple[str, tuple[str, ...]], ...]  # factors and their levels, all of which hold

MOST_TERMS = 20
"""Settings without a common description up to which each is described in as few levels as possible."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Some, not all, of the planned settings: those in which any of the terms holds, or those in which none does."""

    terms: tuple[Term, ...]
    outside: bool  # whether it is the settings in which none of the terms holds
    settings: int
    planned: int


def describe(factors: Sequence[str], chosen: Iterable[Setting], planned: Sequence[Setting]) -> Scope | None:
    """Describe some of the planned settings of some factors in few levels.

    None where it is all of them, or none.
    """
    return _described(tuple(factors), frozenset(chosen), tuple(planned))


@lru_cache(maxsize=256)  # the effects on every class of the images are known, and fail, in the same settings
def _described(
    factors: tuple[str, ...], inside: frozenset[Setting], planned: tuple[Setting, ...]
) -> Scope | None:
    outside = frozenset(planned) - inside
    if not inside or not outside:
        return None
    ways = [(_terms(part, planned), is_outside) for part, is_outside in ((inside, False), (outside, True))]
    terms, is_outside = min(
        ways,
        key=lambda way: (
            len(way[0]),
            sum(len(levels) for term in way[0] for levels in term.values()),
            way[1],
        ),
    )
    named = tuple(tuple((factors[i], levels) for i, levels in term.items()) for term in terms)
    return Scope(named, is_outside, len(inside), len(planned))


Draft = Mapping[int, tuple[str, ...]]  # a term, its factors by their positions


def _terms(chosen: frozenset[Setting], planned: Sequence[Setting]) -> list[Draft]:
    """Return terms that hold in the chosen settings and in no other: one if that can be, else one for each part of them."""
    whole = _term(chosen, planned)
    if whole is not None:
        return [whole]
    splits = []
    for i in range(len(planned[0])):
        levels = dict.fromkeys(setting[i] for setting in planned if setting in chosen)
        if 1 < len(levels) < len(chosen):
            terms = [_term(frozenset(s for s in chosen if s[i] == level), planned) for level in levels]
            splits.append([term for term in terms if term is not None] if None not in terms else [])
    found: list[Draft] = min((split for split in splits if split), key=len, default=[])
    if found:
        return found
    single = [setting for setting in planned if setting in chosen]
    if len(single) > MOST_TERMS:
        return [{i: (level,) for i, level in enumerate(setting)} for setting in single]
    return [term for setting in single if (term := _term(frozenset([setting]), planned)) is not None]


def _term(chosen: frozenset[Setting], planned: Sequence[Setting]) -> Draft | None:
    """Return a term that holds in the chosen settings and in no other planned one.

    None where there is none.
    """

    def holds(term: Draft) -> bool:
        """Whether the term, which holds in all chosen settings, holds in no other."""
        return sum(all(setting[i] in levels for i, levels in term.items()) for setting in planned) == len(
            chosen
        )

    ordered = [setting for setting in planned if setting in chosen]
    term: Draft = {i: tuple(dict.fromkeys(setting[i] for setting in ordered)) for i in range(len(planned[0]))}
    if not holds(term):
        return None
    for i in reversed(
        range(len(planned[0]))
    ):  # levels that follow from those of another factor need not be said
        without = {j: levels for j, levels in term.items() if j != i}
        term = without if holds(without) else term
    return term
