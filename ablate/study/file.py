"""A study file: TOML text to a checked, frozen Study.

All mistakes are found at once, each with its file and key path.
"""

import codecs
import itertools
import json
import math
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ablate.errors import StudyError
from ablate.messages import near, show, unknown
from ablate.recipe import fields, metrics, networks, user_code
from ablate.recipe.fields import Data, Section
from ablate.recipe.metrics import Direction
from ablate.study import claims as claim_forms
from ablate.study import search_space
from ablate.study.checks import in_table, in_toml
from ablate.study.claims import Claim
from ablate.study.conditions import Expression
from ablate.study.factors import (
    FIND,
    Factor,
    check_order,
    check_overlap,
    check_value,
    condition,
    leaves,
    long_factors,
    short_factors,
    tables_of,
)
from ablate.study.search_space import Search


class Analysis(Section):
    """How verdicts are reached."""

    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Chance of any false verdict in a family of effects of which none is real."""
    variance: Literal["own", "pooled"] = "own"
    """The noise of an effect: of its own differences over seeds, or one for all cells, which needs fewer seeds and is wrong where one
    cell is noisier than the others."""


def _different(seeds: int | list[int]) -> int | list[int]:
    if isinstance(seeds, list) and (not seeds or len(set(seeds)) < len(seeds)):
        raise ValueError(f"must be a count, or a list of different whole numbers, got {show(seeds)}")
    return seeds


class Head(Section):
    """The keys of a study file that are not the recipe and not its factors."""

    name: str = Field(min_length=1, max_length=100)
    question: str = ""
    design: Literal["factorial", "one_at_a_time"] = "factorial"
    seeds: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | list[Annotated[int, Field(ge=0)]], AfterValidator(_different)
    ] = 5
    metric: str = "test/accuracy"
    direction: Literal["max", "min"] | None = None
    min_effect: float | None = Field(None, gt=0)
    analysis: Analysis = Analysis()


@dataclass(frozen=True, slots=True)
class Exclude:
    """Cells that are not run, and why."""

    condition: Expression
    why: str


@dataclass(frozen=True, slots=True)
class Study:
    """A checked study. `raw` is its whole text as data, `--set`s included: what a store keeps of it."""

    name: str
    question: str
    design: Literal["factorial", "one_at_a_time"]
    seeds: tuple[int, ...]
    metric: str
    direction: Direction
    min_effect: float | None
    alpha: float
    variance: Literal["own", "pooled"]
    base: Mapping[str, Any]  # recipe fields by path, as given
    factors: tuple[Factor, ...]
    excludes: tuple[Exclude, ...]
    search: Search | None
    claims: tuple[Claim, ...]
    source: str  # for messages: the file, or the name in the store
    folder: str  # of the file, where the user's own networks are looked for; empty when it comes from a store
    text: str  # as written, with the `--set`s below it
    raw: Mapping[str, Any]
    # the file's folder, which its relative paths start from; empty: the current one, where an older version
    # ran it
    relative_to: str = ""
    asked_seeds: int | None = None  # by `--seeds`, now or when it was last run
    notes: tuple[str, ...] = ()  # what its reader must know of how it stands in its store
    omits: str = ""  # the one of them that a report must say: which seeds of the store it leaves out


TABLES = ("recipe", "factors", "factor", "exclude", "search", "claim")


def load(path: Path, sets: tuple[str, ...] = ()) -> Study:
    """Read a study file and the `key=value`s of `--set`; raise a StudyError with every mistake."""
    text = _read(path)
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise StudyError([f"{path}: is not TOML: {error}{in_toml(text, str(error))}"]) from None
    for given in sets:
        _apply_set(raw, given)
    folder = str(path.absolute().parent)
    try:
        checked = check(raw, str(path), text + "".join(f"\n# --set {given}" for given in sets))
    except RecursionError:
        raise StudyError([f"{path}: has tables in tables in tables, far too deep"]) from None
    except StudyError as error:
        missing = _missing_networks(raw, folder)
        rest = [
            said for said in error.mistakes if not any(name in said for name in missing)
        ]  # no hint shall name what is not there
        raise StudyError([*(f"{path}: {said}" for said in missing.values()), *rest]) from None
    return replace(checked, folder=folder, relative_to=folder)


def _read(path: Path) -> str:
    """Read the text of a study file.

    A byte order mark, as Notepad and PowerShell write it, is no part of it.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise StudyError([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        text = None
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (
        len(content) > 1 and 0 in content[:2]
    )
    if text is None or is_wide:
        kind = "it is UTF-16 text" if is_wide else "it is not UTF-8 text"
        raise StudyError([f"{path}: cannot be read: {kind}: save it as UTF-8"])
    return text


def _missing_networks(raw: Mapping[str, Any], folder: str) -> dict[str, str]:
    """Find the user's own networks of whose function the module's text shows that it is not there: a sentence for each name."""
    named = {f"recipe.{path}": given for path, given in leaves(raw.get("recipe")) if path == "model.name"}
    for path, given in leaves(raw.get("factors")):
        named |= (
            {f"factors.{path}[{i}]": one for i, one in enumerate(given)}
            if path == "model.name" and isinstance(given, list)
            else {}
        )
    found = {}
    for where, name in named.items():
        if isinstance(name, str) and networks.OWN.fullmatch(name):
            functions = user_code.names(name, user_code.folders(folder))
            module, _, function = name.partition(":")
            if functions is not None and function not in functions:
                found[name] = (
                    f"{where}: there is no function {function} in {module}{near(function, functions)}"
                )
    return found


def check(raw: dict[str, Any], source: str, text: str = "") -> Study:
    """Check a study's data; raise a StudyError with every mistake, each starting with the source's name."""
    wrong: list[str] = []
    known = [*Head.model_fields, *TABLES]
    wrong += [f"{key}: {unknown(key, 'a key of a study', known)}" for key in raw if key not in known]
    head = {key: part for key, part in raw.items() if key in Head.model_fields}
    wrong += in_table(head, Head)
    wrong += _metric(head)
    wrong += _min_effect(head)
    base = _base(raw.get("recipe", {}), wrong)
    factors = (*short_factors(raw.get("factors", {}), wrong), *long_factors(raw.get("factor", []), wrong))
    check_overlap(base, factors, wrong)
    check_order(factors, wrong)
    excludes = _excludes(raw.get("exclude", []), wrong)
    search = search_space.read(raw["search"], base, factors, wrong) if "search" in raw else None
    wrong += _seeds_of_trials(head, is_tuned=search is not None or finds(base, factors))
    wrong += _too_early(search, base, factors, excludes)
    claims = _claims(raw.get("claim", []), factors, wrong)
    if wrong:
        raise StudyError([f"{source}: {sentence}" for sentence in dict.fromkeys(wrong)])
    top = Head.model_validate(head)
    better = top.direction or metrics.direction(top.metric)
    assert better is not None
    return Study(
        name=top.name, question=top.question, design=top.design, metric=top.metric, direction=better,
        seeds=tuple(top.seeds) if isinstance(top.seeds, list) else tuple(range(top.seeds)),
        min_effect=top.min_effect, alpha=top.analysis.alpha,
        variance=top.analysis.variance, base=base, factors=factors, excludes=excludes,
        search=search, claims=claims, source=source, folder="", text=text, raw=raw,
    )  # fmt: skip


def _metric(head: dict[str, Any]) -> list[str]:
    """Check that one can tell which direction of the metric is better."""
    metric = head.get("metric")
    if not isinstance(metric, str) or metrics.direction(metric) or head.get("direction", "none") != "none":
        return []
    return [
        (
            f'metric: {unknown(metric, "a known metric", metrics.METRICS)}; for another, say direction = "max" '
            'or "min"'
        )
    ]


def _min_effect(head: dict[str, Any]) -> list[str]:
    """Refuse a smallest effect that no share can have: two of them differ by less than 1."""
    least, metric = head.get("min_effect"), head.get("metric", "test/accuracy")
    if (
        not isinstance(least, (int, float))
        or not isinstance(metric, str)
        or not (metrics.is_fraction(metric) and 1 <= least < math.inf)
    ):
        return []
    points = (
        f"{100 * least:g} points: for {least:g} {'point' if least == 1 else 'points'} write {least / 100:g}"
    )
    return [f"min_effect: must be below 1 for {metric}, got {least:g}, which is {points}"]


def _seeds_of_trials(head: dict[str, Any], *, is_tuned: bool) -> list[str]:
    """Keep the study's seeds from those under which rates are found and trials are trained."""
    seeds = head.get("seeds", 5)
    taken = (
        is_tuned
        and isinstance(seeds, list)
        and any(isinstance(seed, int) and seed >= search_space.TUNING_SEED for seed in seeds)
    )
    return (
        [
            (
                f"seeds: must be below {search_space.TUNING_SEED:,} beside a search: those from there on are "
                "its own"
            )
        ]
        if taken
        else []
    )


def _too_early(
    search: Search | None, base: Mapping[str, Any], factors: tuple[Factor, ...], excludes: tuple[Exclude, ...]
) -> list[str]:
    """No condition may ask for a field that is found later: cells are made before."""
    later = {*(search.space if search else ()), *(["optimizer.lr"] if finds(base, factors) else ())}
    asked = [(f"factor {factor.name}: when", factor.when) for factor in factors if factor.when is not None]
    asked += [(f"exclude[{i}].if", exclude.condition) for i, exclude in enumerate(excludes)]
    return [
        f"{where}: asks for {path}, which is only found once the cells are there: take it out of the "
        "condition"
        for where, condition in asked
        for path in sorted(condition.paths() & later)
    ]


def finds(base: Mapping[str, Any], factors: tuple[Factor, ...]) -> bool:
    """Whether any cell leaves its learning rate to a range test."""
    return FIND in [
        base.get("optimizer.lr"),
        *(level.set.get("optimizer.lr") for factor in factors for level in factor.levels),
    ]


def _apply_set(raw: dict[str, Any], text: str) -> None:
    """Put one `key=value` into the raw study: a key of the study (`seeds=3`) or a recipe field (`training.epochs=3`)."""
    key, equals, written = text.partition("=")
    if not (key.strip() and equals):
        raise StudyError([f"--set must be key=value, such as training.epochs=3, got {show(text)}"])
    try:
        given = tomllib.loads(f"x = {written}")["x"]
    except (ValueError, RecursionError):
        given = written.strip()  # text without quotes: data.name=digits
    path = key.strip().split(".")
    if path[0] not in (*Head.model_fields, *TABLES):
        path = ["recipe", *path]
    given = _of_the_current_directory(path, given)
    *parents, last = path
    here = raw
    for step in parents:
        here = here.setdefault(step, {})
        if not isinstance(here, dict):
            raise StudyError([f"--set {text}: {step} is not a table"])
    here[last] = given


def _of_the_current_directory(path: list[str], given: Any) -> Any:
    """Make the folder of images that a `--set` names absolute: who types it means the current directory, not the study file's."""
    if path == ["recipe", "data"] and isinstance(given, dict) and "root" in given:
        return given | {"root": _of_the_current_directory([*path, "root"], given["root"])}
    if path == ["factors", "data", "root"] and isinstance(given, list):
        return [_of_the_current_directory(["recipe", "data", "root"], root) for root in given]
    is_relative = (
        path == ["recipe", "data", "root"]
        and isinstance(given, str)
        and given not in ("", "none")
        and given[0] != "~"
    )
    return str(Path.cwd() / given) if is_relative else given


def _base(table: Any, wrong: list[str]) -> dict[str, Any]:
    """Read [recipe] to paths and values."""
    if not isinstance(table, dict):
        wrong.append(f"recipe: must be a table, got {show(table)}")
        return {}
    known, sections = fields.fields(), ", ".join(fields.Recipe.model_fields)
    base: dict[str, Any] = {}
    for section, part in table.items():
        if section not in fields.Recipe.model_fields:
            others = (
                () if isinstance(part, dict) else (*Head.model_fields, *known)
            )  # a field without its section, a key of the study
            meant = near(section, others) or near(section, fields.Recipe.model_fields)
            wrong.append(
                f"recipe.{section}: {show(section)} is not a section of the recipe{meant}; known are "
                f"{sections}"
            )
        elif not isinstance(part, dict):
            wrong.append(f"recipe.{section}: must be a table, got {show(part)}")
        else:
            for name, given in part.items():
                if check_value(f"recipe.{section}.{name}", f"{section}.{name}", given, wrong):
                    base[f"{section}.{name}"] = given
    assert all(path in known for path in base)
    return base


def _excludes(tables: Any, wrong: list[str]) -> tuple[Exclude, ...]:
    read = []
    for i, table in tables_of("exclude", tables, ("if", "why"), wrong):
        if not isinstance(table.get("why"), str):
            wrong.append(f"exclude[{i}].why: must say why in words; plan and report print it")
        read.append(Exclude(condition(f"exclude[{i}].if", table.get("if", ""), wrong), str(table.get("why"))))
    return tuple(read)


def _claims(tables: Any, factors: tuple[Factor, ...], wrong: list[str]) -> tuple[Claim, ...]:
    levels = {factor.name: [level.name for level in factor.levels] for factor in factors}
    read = []
    for i, table in tables_of("claim", tables, ("text", "source", "expect"), wrong):
        if (
            not all(isinstance(table.get(key, ""), str) for key in ("text", "source", "expect"))
            or "expect" not in table
        ):
            wrong.append(
                f"claim[{i}]: must have an expect, such as augment.crop: random_crop > none, and a text "
                "and a source in words"
            )
            continue
        found, sentences = claim_forms.parse(
            table.get("text", table["expect"]), table.get("source", ""), table["expect"], levels
        )
        wrong += [f"claim[{i}].expect: {sentence}" for sentence in sentences]
        read += [found] if found else []
    return tuple(read)


def to_json(study: Study) -> str:
    """Write a study as a store keeps it: its data after every `--set`, and where it came from."""
    kept = {"source": study.source, "folder": study.relative_to, "text": study.text, "study": study.raw}
    return json.dumps(kept, indent=1, ensure_ascii=False)


def from_json(text: str) -> Study:
    """Read a study as a store keeps it."""
    kept = json.loads(text)
    return replace(check(kept["study"], kept["source"], kept["text"]), relative_to=kept.get("folder", ""))


def located(study: Study, section: Data) -> Data:
    """Return a data section with the place of its images: a relative path starts from the study file's folder."""
    if section.root is None or section.root.startswith("~"):
        return section
    base = Path(study.relative_to)
    with suppress(PermissionError):  # it is closed to this user, and there all the same
        base = base if base.is_dir() else Path()  # gone, such as when its project has moved: the current one
    return section.model_copy(update={"root": str(base / section.root)})


def more_seeds(seeds: tuple[int, ...], count: int) -> list[int] | int:
    """Take so many seeds: those that there are first, then the smallest others.

    A count where that says as much.
    """
    others = (seed for seed in itertools.count() if seed not in seeds)
    found = [*seeds, *itertools.islice(others, max(0, count - len(seeds)))][:count]
    return count if found == list(range(count)) else found
