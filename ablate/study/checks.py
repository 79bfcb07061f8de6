"""Mistakes in what a user wrote, as sentences: what is allowed, what was written, and the nearest name."""

import re
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ablate.messages import near, show, unknown
from ablate.recipe.fields import Section, fields, is_optional
from ablate.recipe.section import TOO_LARGE, is_too_large

KINDS = {
    "integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text",
    "object": "a table", "null": '"none"',
}  # fmt: skip
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


TEXTS = re.compile(r""" "(?:\\.|[^"\\])*(?:"|$) | '[^']*(?:'|$) """, re.VERBOSE)
"""Texts in quotes on a line of TOML, unfinished ones included."""

WORDS = {
    "True": "true", "False": "false", "TRUE": "true", "FALSE": "false", "None": '"none"', "null": '"none"',
    "yes": "true", "no": "false",
}  # fmt: skip
"""What other languages write for TOML's values."""


def in_toml(text: str, error: str) -> str:
    """Return a hint, such as `: write true for True`, where a TOML error is a common mistake; else nothing.

    The error ends in its place: `... (at line 3, column 8)`.
    """
    at = re.search(r"at line (\d+), column (\d+)", error)
    if at is None:
        return ""
    line = text.splitlines()[int(at[1]) - 1 :][:1]
    code = TEXTS.sub('""', line[0]).partition("#")[0] if line else ""
    for word, right in WORDS.items():
        if re.search(rf"[=\[,]\s*{word}\b", code):
            return f": write {right} for {word}"
    if number := re.search(r"[=\[,]\s*([+-]?)(\d*)\.(\d*)(?=\s|,|\]|$)", code):
        sign, whole, fraction = number.groups()
        return f": write {sign}{whole or 0}.{fraction or 0} for {sign}{whole}.{fraction}"
    if re.search("[\u201c\u201d\u2018\u2019]", code):
        return ': write plain quotes, "like these"'
    return ""


ALIASES = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "bs": "batch_size",
    "dropout": "head_dropout",
    "bn": "batch_norm",
}
"""Names that fields have elsewhere."""


def unknown_field(path: str) -> str:
    """Return the message that there is no such recipe field, with the fields of its section."""
    section = [name for name in fields() if name.startswith(path.partition(".")[0] + ".")]
    last = path.rpartition(".")[2]
    meant = [name for name in fields() if name.rpartition(".")[2] == ALIASES.get(last, last)]
    if meant:
        return f"{show(path)} is not a recipe field (did you mean {meant[0]}?)"
    return unknown(path, "a recipe field", section or fields())


_ADAPTERS: dict[int, tuple[FieldInfo, TypeAdapter[Any]]] = {}
"""By the id of a field, which is kept so that no other one gets it: one is made in half a millisecond."""


def _adapter(info: FieldInfo) -> TypeAdapter[Any]:
    if id(info) not in _ADAPTERS:
        annotated: Any = Annotated[info.annotation, info]
        is_table = isinstance(info.annotation, type) and issubclass(info.annotation, Section)  # strict itself
        config = None if is_table else ConfigDict(strict=True, allow_inf_nan=False)
        adapter = TypeAdapter(annotated, config=config)
        _ADAPTERS[id(info)] = info, adapter
    return _ADAPTERS[id(info)][1]


def allowed(info: FieldInfo) -> str:
    """Return what a field may hold: `a whole number at least 1`, `random_crop or random_resized_crop`."""
    return _allowed(_inline(_adapter(info).json_schema()))


def in_field(info: FieldInfo, given: Any) -> list[str]:
    """Return what is wrong with one value of one field, as sentences without a key path."""
    if given in (None, "none") and is_optional(info):
        return []
    adapter = _adapter(info)
    try:
        adapter.validate_python(given)
    except ValidationError as error:
        return _own_words(error) or [_disallowed(given, _inline(adapter.json_schema()))]
    return [TOO_LARGE] if is_too_large(given) else []


def in_table(given: Any, model: type[Section], path: str = "") -> list[str]:
    """Return all that is wrong with a closed table and the tables in it, as `key.path: sentence`."""
    if not isinstance(given, dict):
        return [f"{path}: must be a table, got {show(given)}"]
    dot = f"{path}." if path else ""
    wrong = [
        f"{dot}{key}: {unknown(key, 'a key here', model.model_fields)}"
        for key in given
        if key not in model.model_fields
    ]
    for name, info in model.model_fields.items():
        inner = info.annotation
        if name not in given:
            continue
        if isinstance(inner, type) and issubclass(inner, Section):
            wrong += in_table(given[name], inner, f"{dot}{name}")
        else:
            wrong += [f"{dot}{name}: {sentence}" for sentence in in_field(info, given[name])]
    wrong += [
        f"{dot}{name}: must be given"
        for name, info in model.model_fields.items()
        if info.is_required() and name not in given
    ]
    return wrong or _in_whole(given, model, path)


def _in_whole(given: dict[str, Any], model: type[Section], path: str) -> list[str]:
    """Return what is wrong between keys that are right one by one."""
    try:
        model.model_validate(given)
    except ValidationError as error:
        return [f"{path}: {words}" for words in _own_words(error)]
    return []


def _own_words(error: ValidationError) -> list[str]:
    """Return the sentences that our own validators wrote."""
    return [e["msg"].removeprefix("Value error, ") for e in error.errors() if e["type"] == "value_error"]


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with the tables that it refers to in their places."""
    parts = schema.get("$defs", {})
    if "$ref" in schema:
        return dict(parts[schema["$ref"].rsplit("/", 1)[-1]])
    options = [
        parts[part["$ref"].rsplit("/", 1)[-1]] if "$ref" in part else part for part in schema.get("anyOf", [])
    ]
    return schema | ({"anyOf": options} if options else {})


def _disallowed(given: Any, schema: dict[str, Any]) -> str:
    """Return what a field's JSON schema allows instead of what was given."""
    names = [str(name) for name in schema.get("enum", [])]
    if names:
        meant = near(given, names) if isinstance(given, str) else ""
        return f"{show(given)} is not one of {', '.join(names)}{meant}"
    return f"must be {_allowed(schema)}, got {show(given)}"


def _allowed(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_allowed(part) for part in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " or ".join(show(name) for name in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "object":
        others = schema.get("additionalProperties")
        names = f" {{ {', '.join(schema['properties'])} }}" if schema.get("properties") else ""
        return f"a table, each {_allowed(others)}" if isinstance(others, dict) else f"a table{names}"
    if "maxLength" in schema:
        return f"text of {schema['minLength']} to {schema['maxLength']} characters"
    if schema.get("type") == "array":
        return f"a list, each {_allowed(schema.get('items', {}))}"
    bounds = " and ".join(f"{words} {schema[key]:g}" for key, words in BOUNDS.items() if key in schema)
    return f"{KINDS.get(schema.get('type', ''), 'another value')} {bounds}".strip()
