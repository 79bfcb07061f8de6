"""Names of params and metrics as MLflow takes them: other signs are spelled out, and names stay different."""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

from ablate.recipe import fields

LONGEST = 250  # characters of a key, and of a run's name in databases that count them
LONGEST_VALUE = 6000  # characters of a param's value: MLflow cuts what is longer, and tells only a log
SIGNS = {
    "+": "plus", "#": "hash", "=": "equals", "%": "percent", "*": "star", "&": "and", "@": "at",
    "$": "dollar", "~": "tilde", "<": "less", ">": "greater", "(": "open", ")": "close", "[": "from",
    "]": "to", "{": "begin", "}": "end", ",": "comma", ";": "semicolon", "!": "bang", "?": "question",
    "'": "apostrophe", '"': "quote", "`": "backtick", "^": "caret", "|": "bar", "\\": "backslash",
    "\n": "newline", "\t": "tab", "/": "slash", ".": "dot", ":": "colon",
}  # fmt: skip
MEANT = re.compile(rf":(?=(?:{'|'.join(SIGNS.values())}|empty|u[0-9a-f]+|sha[0-9a-f]{{12}})\W)")
"""A colon that would be read as the start of a spelled-out sign."""


@lru_cache(4096)  # every run has the same names
def key(name: str) -> str:
    """Return the key of a param or metric: `C:plus:` for `C+`, `:u1f600:` for a sign without a name.

    Names that MLflow takes are left as they are. Different names have different keys; a key that is too long
    ends in a part of its checksum.
    """
    meant = {match.start() for match in MEANT.finditer(name)}
    spelled = meant | _slashes(name) | _dots(name)
    written = "".join(
        _spell(c) if i in spelled or not (c.isalnum() or c in "/._- :") else c for i, c in enumerate(name)
    )
    return shortened(written or ":empty:", LONGEST)


def shortened(text: str, longest: int) -> str:
    """Return a text, cut where it is too long, so that different texts stay different."""
    if len(text) <= longest:
        return text
    end = f":sha{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:12]}:"
    return text[: longest - len(end)] + end


def _spell(sign: str) -> str:
    return f":{SIGNS.get(sign) or f'u{ord(sign):x}'}:"


def _slashes(name: str) -> set[int]:
    """Return the positions of slashes that begin or end a name, or follow another.

    MLflow takes a name for a path, and wants it in its shortest form.
    """
    return {i for i, c in enumerate(name) if c == "/" and (i in (0, len(name) - 1) or name[i - 1] == "/")}


def _dots(name: str) -> set[int]:
    """Return the positions of the parts `.` and `..`, which name nothing in a path, and of a leading `..`."""
    parts = re.finditer(r"(?:^|(?<=/))\.{1,2}(?=/|$)", name)
    return {match.start() for match in parts} | ({0} if name.startswith("..") else set())


def labels(names: Sequence[str]) -> dict[str, str]:
    """Return the label of each factor or field in MLflow: `lr` for `optimizer.lr`, `model` for `model.name`.

    Where two would have the same label, a field is shown under its whole path, and another factor with
    `factor` before it; so is a factor called `seed`, which every run has.
    """
    tails = [_tail(name) for name in names]
    shown = {
        name: name if name in fields.fields() and (tails.count(tail) > 1 or tail in OWN) else tail
        for name, tail in zip(names, tails, strict=True)
    }
    for name in names:
        while shown[name] in OWN or list(shown.values()).count(shown[name]) > 1:
            shown[name] = f"factor {shown[name]}"
    return shown


OWN = ("seed",)  # params that are no factors


def _tail(name: str) -> str:
    if name not in fields.fields():
        return name
    return fields.short(name)
