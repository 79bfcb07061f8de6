"""A study file: TOML text to a checked, frozen Study. All mistakes are found at once, by key path."""

import codecs
import itertools
import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ablate.errors import StudyError
from ablate.messages import near, show, unknown
from ablate.recipe import fields, metrics, networks, user_code
from ablate.recipe.fields import Data
from ablate.recipe.metrics import Direction
from ablate.study import claims as claim_forms
from ablate.study import head as heads
from ablate.study import search_space
from ablate.study.checks import in_toml
from ablate.study.claims import Claim
from ablate.study.conditions import Expression
from ablate.study.factors import (
    FIND,
    Factor,
    check_order,
    check_overlap,
    check_starts,
    check_value,
    condition,
    leaves,
    long_factors,
    short_factors,
    tables_of,
)
from ablate.study.head import Head
from ablate.study.search_space import Search


@dataclass(frozen=True, slots=True)
class Exclude:
    """Cells that are not run, and why."""

    condition: Expression
    why: str


@dataclass(frozen=True, slots=True)
class Study:
    """A checked study. `raw` is its text as data, `--set`s included: a store keeps that."""

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
    folder: str  # of the file, where the user's own networks are searched for; empty: it is from a store
    text: str  # as written, with the `--set`s below it
    raw: Mapping[str, Any]
    relative_to: str = ""
    """The file's folder, which relative paths start from; empty, of an older version: the current one."""
    asked_seeds: int | None = None  # by `--seeds`, now or when it was last run
    notes: tuple[str, ...] = ()  # how it differs from what its store has, for its reader
    omits: str = ""  # the note that a report must show: which seeds of the store it leaves out


TABLES = ("recipe", "factors", "factor", "exclude", "search", "claim")


def load(path: Path, sets: tuple[str, ...] = ()) -> Study:
    """Return the study of a file and the `key=value`s of `--set`. Raises a StudyError with every mistake."""
    return parse(read(path), str(path), sets, str(path.absolute().parent))


def parse(text: str, source: str, sets: tuple[str, ...] = (), folder: str = "") -> Study:
    """Return the study of a text, which messages name `source`; `folder`: where what it names lies."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise StudyError([f"{source}: is not TOML: {error}{in_toml(text, str(error))}"]) from None
    for pair in sets:
        _apply_set(raw, pair)
    try:
        checked = check(raw, source, text + "".join(f"\n# --set {pair}" for pair in sets))
    except RecursionError:
        raise StudyError([f"{source}: has tables in tables in tables, far too deep"]) from None
    except StudyError as error:
        missing = _missing_networks(raw, folder) if folder else {}
        # No hint shall name what is not there.
        rest = [mistake for mistake in error.mistakes if not any(name in mistake for name in missing)]
        raise StudyError([*(f"{source}: {sentence}" for sentence in missing.values()), *rest]) from None
    return replace(checked, folder=folder, relative_to=folder)


def read(path: Path) -> str:
    """Return the text of a study file, without a byte order mark, as Notepad and PowerShell write it."""
    try:
        content = path.read_bytes()
        text = normal(content.decode())
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


def normal(text: str) -> str:
    """Return the text of a study file as it is read everywhere: without a byte order mark, LF as line end."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _missing_networks(raw: Mapping[str, Any], folder: str) -> dict[str, str]:
    """Return a sentence for each of the user's own networks, by name, whose module lacks its function.

    The text of the module decides: it is not run.
    """
    named = {f"recipe.{path}": name for path, name in leaves(raw.get("recipe")) if path == "model.name"}
    for path, levels in leaves(raw.get("factors")):
        if path == "model.name" and isinstance(levels, list):
            named |= {f"factors.{path}[{i}]": name for i, name in enumerate(levels)}
    missing = {}
    for where, name in named.items():
        if isinstance(name, str) and networks.OWN.fullmatch(name):
            functions = user_code.names(name, user_code.folders(folder))
            module, _, function = name.partition(":")
            if functions is not None and function not in functions:
                meant = near(function, functions)
                missing[name] = f"{where}: there is no function {function} in {module}{meant}"
    return missing


def check(raw: dict[str, Any], source: str, text: str = "") -> Study:
    """Return the study of some data. Raises a StudyError with every mistake, each after the source."""
    wrong: list[str] = []
    known = [*Head.model_fields, *TABLES]
    wrong += [f"{key}: {unknown(key, 'a key of a study', known)}" for key in raw if key not in known]
    head = {key: part for key, part in raw.items() if key in Head.model_fields}
    wrong += heads.mistakes(head)
    base = _base(raw.get("recipe", {}), wrong)
    factors = (*short_factors(raw.get("factors", {}), wrong), *long_factors(raw.get("factor", []), wrong))
    check_overlap(base, factors, wrong)
    check_order(factors, wrong)
    excludes = _excludes(raw.get("exclude", []), wrong)
    search = search_space.read(raw["search"], base, factors, wrong) if "search" in raw else None
    is_tuned = search is not None or finds(base, factors)
    wrong += heads.seed_mistakes(head, is_tuned=is_tuned)
    check_starts(factors, is_tuned=is_tuned, wrong=wrong)
    wrong += _too_early(search, base, factors, excludes)
    claims = _claims(raw.get("claim", []), factors, wrong)
    wrong += _unmeasured(head.get("metric"), claims, base, factors)
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


def _unmeasured(
    metric: Any, claims: tuple[Claim, ...], base: Mapping[str, Any], factors: tuple[Factor, ...]
) -> list[str]:
    """Return where a metric is asked for that no cell measures, as its evaluation leaves it out."""
    field = "evaluation.train"
    if base.get(field) or any(level.set.get(field) for factor in factors for level in factor.levels):
        return []
    asked = [("metric", metric), *((f"claim {show(claim.text)}", claim.metric) for claim in claims)]
    return [
        f"{where}: {name} is only measured with {field} = true: set it in [recipe]"
        for where, name in asked
        if isinstance(name, str) and name.startswith(metrics.OF_TRAINING_IMAGES)
    ]


def _too_early(
    search: Search | None, base: Mapping[str, Any], factors: tuple[Factor, ...], excludes: tuple[Exclude, ...]
) -> list[str]:
    """Return the conditions that ask for a field that is found only after the cells are made."""
    later = {*(search.space if search else ()), *(["optimizer.lr"] if finds(base, factors) else ())}
    asked = [(f"factor {factor.name}: when", factor.when) for factor in factors if factor.when is not None]
    asked += [(f"exclude[{i}].if", exclude.condition) for i, exclude in enumerate(excludes)]
    return [
        f"{where}: asks for {path}, which is only found once the cells are there: "
        "take it out of the condition"
        for where, condition in asked
        for path in sorted(condition.paths() & later)
    ]


def finds(base: Mapping[str, Any], factors: tuple[Factor, ...]) -> bool:
    """Whether any cell leaves its learning rate to a range test."""
    levels = (level.set.get("optimizer.lr") for factor in factors for level in factor.levels)
    return FIND in [base.get("optimizer.lr"), *levels]


def _apply_set(raw: dict[str, Any], text: str) -> None:
    """Set one `key=value` in a raw study: a key of it (`seeds=3`) or a recipe field (`training.epochs=3`)."""
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
    here: Any = raw
    for step in parents:
        here = _inner(here, step, text)
    if not isinstance(here, dict):
        raise StudyError([f"--set {text}: {path[-2]} is not a table"])
    here[last] = given


def _inner(here: Any, step: str, text: str) -> Any:
    """Return the table that a `--set` names in another: of [[factor]] and its levels the one so called."""
    if isinstance(here, list):
        named = {str(each["name"]): each for each in here}
        if step not in named:
            raise StudyError([f"--set {text}: {unknown(step, 'the name of any there', named)}"])
        return named[step]
    inner = here.setdefault(step, {})
    are_named = isinstance(inner, list) and all(isinstance(each, dict) and "name" in each for each in inner)
    if not are_named and not isinstance(inner, dict):
        raise StudyError([f"--set {text}: {step} is not a table"])
    return inner


def _of_the_current_directory(path: list[str], given: Any) -> Any:
    """Return the value of a `--set`, with a folder of images made absolute.

    On the command line it starts from the current directory, not from the study file's.
    """
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
    """Return the values of [recipe] by path."""
    if not isinstance(table, dict):
        wrong.append(f"recipe: must be a table, got {show(table)}")
        return {}
    sections = ", ".join(fields.Recipe.model_fields)
    base: dict[str, Any] = {}
    for section, part in table.items():
        if section not in fields.Recipe.model_fields:
            # A key of the study, or a field without its section?
            others = () if isinstance(part, dict) else (*Head.model_fields, *fields.fields())
            meant = near(section, others) or near(section, fields.Recipe.model_fields)
            unlisted = f"{show(section)} is not a section of the recipe{meant}"
            wrong.append(f"recipe.{section}: {unlisted}; known are {sections}")
        elif not isinstance(part, dict):
            wrong.append(f"recipe.{section}: must be a table, got {show(part)}")
        else:
            for name, given in part.items():
                path = f"{section}.{name}"
                if check_value(f"recipe.{path}", path, given, wrong):
                    base |= dict(leaves(given, path)) if path == fields.OPTIONS else {path: given}
    assert all(path in fields.fields() for path in base)
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
            expect = "an expect, such as augment.crop: random_crop > none"
            wrong.append(f"claim[{i}]: must have {expect}, and a text and a source in words")
            continue
        claim, sentences = claim_forms.parse(
            table.get("text", table["expect"]), table.get("source", ""), table["expect"], levels
        )
        wrong += [f"claim[{i}].expect: {sentence}" for sentence in sentences]
        read += [claim] if claim else []
    return tuple(read)


def to_json(study: Study) -> str:
    """Return a study as a store keeps it: its data after every `--set`, and where it came from."""
    kept = {"source": study.source, "folder": study.relative_to, "text": study.text, "study": study.raw}
    return json.dumps(kept, indent=1, ensure_ascii=False)


def from_json(text: str) -> Study:
    """Return the study of a text that a store keeps."""
    kept = json.loads(text)
    return replace(check(kept["study"], kept["source"], kept["text"]), relative_to=kept.get("folder", ""))


def located(study: Study, section: Data) -> Data:
    """Return a data section with the place of its images; relative paths start at the study's folder."""
    if section.root is None or section.root.startswith("~"):
        return section
    base = Path(study.relative_to)
    with suppress(PermissionError):  # it is closed to this user, and there all the same
        base = base if base.is_dir() else Path()  # gone, such as when its project has moved: the current one
    return section.model_copy(update={"root": str(base / section.root)})


def more_seeds(seeds: tuple[int, ...], count: int) -> list[int] | int:
    """Return as many seeds as `count`: the present ones first, then the smallest others.

    They are returned as a count where they are 0 to count - 1.
    """
    others = (seed for seed in itertools.count() if seed not in seeds)
    chosen = [*seeds, *itertools.islice(others, max(0, count - len(seeds)))][:count]
    return count if chosen == list(range(count)) else chosen
