"""Words of messages: counted, quoted, with near names as a hint, without control sequences for terminals."""

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

MANY = 16  # names that one sentence can carry


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number of things in words: "1 slot", "5 slots", "2 searches"."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def printable(text: str) -> str:
    """Return a text without control characters for terminals; line breaks and tabs stay."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in text)


def show(value: Any) -> str:
    """Return a value roughly as TOML writes it: text in quotes, true and false in lower case."""
    return json.dumps(value, default=str, ensure_ascii=False)


def near(name: object, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)`, or an empty text when no known name is near."""
    names = list(known)
    same_tail = [full for full in names if re.split(r"[./]", full)[-1] == name]  # `crop` for `augment.crop`
    same_tail.sort(key=lambda full: not full.startswith("test/"))  # first the metrics that verdicts are about
    best = same_tail or difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f" (did you mean {best[0]}?)" if best else ""


def unknown(name: str, what: str, known: Iterable[str]) -> str:
    """Return the message that a name is not known, with the known ones where they are few."""
    names = list(known)
    listed = f"; known are {', '.join(names) or 'none'}" if len(names) <= MANY else ""
    return f"{show(name)} is not {what}{near(name, names)}{listed}"


def public(text: str) -> str:
    """Return an address, or a message that holds one, without its password."""
    # up to the last @: a password may have one, and slashes
    named = re.sub(r"://([^/@\s:]*):\S*@", r"://\1:***@", text)
    alone = re.sub(r"://[^/@\s:]+@", "://***@", named)  # a token
    return re.sub(
        r"([?&][^=&\s]*(?:password|passwd|token|secret|key)[^=&\s]*=)[^&\s]*",
        r"\1***",
        alone,
        flags=re.IGNORECASE,
    )
