"""The JSON Schema of study files, for editors: completion, and mistakes while one types.

It is made from the same fields that a study is checked by. What needs more than one field to be seen, such as
a factor that is in the recipe as well, only `ablate plan` tells.
"""

from typing import Any

from ablate.recipe.fields import OPTIONS, Recipe, Section, fields, section_type
from ablate.study.factors import FIND
from ablate.study.head import Head
from ablate.study.search_space import Range, SearchHead, is_searchable

DIALECT = "http://json-schema.org/draft-07/schema#"  # that editors for TOML know best
WORDS: dict[str, Any] = {"type": "string"}


def schema() -> dict[str, Any]:
    """Return the schema as JSON values."""
    definitions: dict[str, Any] = {}
    head, recipe, search, tried = (_table(part, definitions) for part in (Head, Recipe, SearchHead, Range))
    for section in Recipe.model_fields.values():  # the default of a learning rate is its optimizer's
        definitions[section_type(section).__name__].pop("required", None)
    learning_rate = definitions["Optimizer"]["properties"]
    learning_rate["lr"] = {"anyOf": [learning_rate["lr"], {"const": FIND}]}
    tried_in = {"$ref": "#/$defs/Range"}
    search["properties"]["space"] = _by_section(
        {path: tried_in for path in fields() if is_searchable(path)} | {OPTIONS: _named(tried_in)}
    )
    option = definitions["Options"]["additionalProperties"]
    short = {path: {"type": "array", "items": _field(path), "minItems": 2} for path in fields()}
    short[OPTIONS] = _named({"type": "array", "items": option, "minItems": 2})
    definitions |= {"Recipe": recipe, "Search": search, "Range": tried}
    return {
        "$schema": DIALECT,
        "title": "A study of ablate",
        **head,
        "properties": head["properties"] | {
            "recipe": {"$ref": "#/$defs/Recipe"},
            "factors": _by_section(short),
            "factor": _tables(
                {"name": WORDS, "levels": {"type": "array", "minItems": 2}, "when": WORDS}, "name", "levels"
            ),
            "exclude": _tables({"if": WORDS, "why": WORDS}, "if", "why"),
            "claim": _tables({"text": WORDS, "source": WORDS, "expect": WORDS}, "expect"),
            "search": {"$ref": "#/$defs/Search"},
        },
        "$defs": definitions,
    }  # fmt: skip


def _table(part: type[Section], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a table; those of the tables in it are added to the definitions."""
    whole: dict[str, Any] = _in_toml(part.model_json_schema(ref_template="#/$defs/{model}"))
    definitions |= whole.pop("$defs", {})
    return whole


def _in_toml(part: Any) -> Any:
    """Return a schema for TOML, which has no null: the word "none" stands for it."""
    if isinstance(part, list):
        return [_in_toml(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") == "null":
        return {"const": "none"}
    kept = {key: inner for key, inner in part.items() if (key, inner) != ("default", None)}
    return {key: _in_toml(inner) for key, inner in kept.items()}


def _field(path: str) -> dict[str, str]:
    """Return a reference to the schema of a recipe's field."""
    section, name = path.split(".")
    return {"$ref": f"#/$defs/{section_type(Recipe.model_fields[section]).__name__}/properties/{name}"}


def _by_section(values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of tables of fields: `optimizer.lr` is `lr` in the table `optimizer`."""
    sections: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, name = path.split(".")
        sections.setdefault(section, {})[name] = value
    return _closed({name: _closed(inner) for name, inner in sections.items()})


def _tables(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """Return the schema of an array of tables."""
    return {"type": "array", "items": _closed(properties) | {"required": list(required)}}


def _named(value: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a table of values under names that are the user's."""
    return {"type": "object", "additionalProperties": value}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}
