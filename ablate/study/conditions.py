"""The conditions of `when` and `if`: comparisons, and / or / not / in, over recipe fields and literals.

Parsed with `ast` and interpreted node by node; nothing is ever evaluated as Python.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic.fields import FieldInfo

from ablate.messages import show
from ablate.study.checks import in_field, unknown_field

LONGEST = 1_000  # characters; deeper nesting than fits in here would outgrow Python's stack
WORDS = {"true": True, "false": False, "none": "none"}  # a field without a value is "none", as in TOML
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition, checked against the fields that it names."""

    text: str

    def holds(self, value: Callable[[str], Any]) -> bool:
        """Whether it holds for one recipe; `value` reads a field by its path."""
        return bool(_evaluate(ast.parse(self.text.strip(), mode="eval").body, value))

    def paths(self) -> set[str]:
        """Return the fields that it asks for."""
        nodes = ast.walk(ast.parse(self.text.strip(), mode="eval"))
        return {
            path for node in nodes if isinstance(node, (ast.Name, ast.Attribute)) and (path := _path(node))
        }


def parse(text: str, known: Mapping[str, FieldInfo]) -> tuple[Expression, list[str]]:
    """Return a condition, and all that is wrong with it. With anything wrong, it never holds."""
    wrong = _mistakes(text, known)
    return Expression("false" if wrong else text), wrong


def _mistakes(text: str, known: Mapping[str, FieldInfo]) -> list[str]:
    if len(text) > LONGEST:
        return [f"must have at most {LONGEST:,} characters, got {len(text):,}"]
    try:
        return _check(ast.parse(text.strip(), mode="eval").body, known)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        form = "model.batch_norm == false and optimizer.lr > 0.5"
        return [f'"{" ".join(text.split())}" is not a condition, such as {form}']


def _check(node: ast.expr, known: Mapping[str, FieldInfo]) -> list[str]:
    match node:
        case ast.BoolOp(values=values):
            return [wrong for part in values for wrong in _check(part, known)]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _check(operand, known)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            pairs = zip(ops, [left, *rights], rights, strict=False)
            return [wrong for op, a, b in pairs for wrong in _check_comparison(op, a, b, known)]
        case ast.Constant(value=bool()) | ast.Name(id="true" | "false"):
            return []
        case ast.Name() | ast.Attribute() if (
            info := known.get(_path(node) or "")
        ) is None or info.annotation is bool:
            return [] if info else [unknown_field(_path(node) or ast.unparse(node))]
    return [f'"{ast.unparse(node)}" is not allowed in a condition: use comparisons, and, or, not, in']


def _check_path(node: ast.expr, known: Mapping[str, FieldInfo]) -> list[str]:
    path = _path(node)
    if path in known or path in WORDS:
        return []
    return [unknown_field(path or ast.unparse(node))]


def _check_comparison(
    op: ast.cmpop, left: ast.expr, right: ast.expr, known: Mapping[str, FieldInfo]
) -> list[str]:
    """Return what is wrong with either side, or with a literal that the field beside it cannot have."""
    if type(op) not in COMPARE:
        start = f'"{ast.unparse(left)} is ..."'
        return [f"{start} is not allowed in a condition: use ==, !=, <, <=, >, >=, in, not in"]
    wrong: list[str] = []
    for side in (left, right):
        if not _is_literal(side):
            wrong += _check_path(side, known)
    if isinstance(op, (ast.In, ast.NotIn)) and not isinstance(right, (ast.List, ast.Tuple)):
        return [*wrong, f'"{ast.unparse(right)}" must be a list, such as ["sgd", "adam"]']
    if _is_literal(left) == _is_literal(right):
        sides = f'"{ast.unparse(left)}" and "{ast.unparse(right)}"'
        return [*wrong, f"{sides}: one side must be a field and the other a literal"]
    for side, other in ((left, right), (right, left)):
        path = _path(side) or ""
        if path in known and _is_literal(other):
            values = _literal(other) if isinstance(op, (ast.In, ast.NotIn)) else [_literal(other)]
            for literal in values:
                wrong += _check_value(op, path, known[path], literal)
    return wrong


def _check_value(op: ast.cmpop, path: str, info: FieldInfo, given: Any) -> list[str]:
    if not isinstance(op, ORDERED):
        return [f"{path}: {wrong}" for wrong in in_field(info, given)]
    if not set(get_args(info.annotation) or [info.annotation]) <= {int, float}:
        return [f"{path} cannot be ordered: use == or != with it"]
    if type(given) not in (int, float):  # 0.5 as a bound for a whole number is fine; 0.5 as its value is not
        return [f"{path} must be ordered by a number, got {show(given)}"]
    return []


def _path(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=inner, attr=attr):
            head = _path(inner)
            return f"{head}.{attr}" if head else None
    return None


def _is_literal(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return True
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
            return True
        case ast.Name(id=name):
            return name in WORDS
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return all(_is_literal(part) for part in parts)
    return False


def _literal(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value):
            return WORDS["none"] if value is None else value
        case ast.UnaryOp(operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name):
            return WORDS[name]
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_literal(part) for part in parts]
    raise AssertionError(f"checked before: {ast.unparse(node)}")


def _evaluate(node: ast.expr, value: Callable[[str], Any]) -> Any:
    if _is_literal(node):
        return _literal(node)
    match node:
        case ast.BoolOp(op=op, values=values):
            return (all if isinstance(op, ast.And) else any)(_evaluate(part, value) for part in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _evaluate(operand, value)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            sides = [_evaluate(side, value) for side in (left, *rights)]
            return all(COMPARE[type(op)](a, b) for op, a, b in zip(ops, sides, sides[1:], strict=False))
    path = _path(node)
    assert path, f"checked before: {ast.unparse(node)}"
    field = value(path)
    return WORDS["none"] if field is None else field
