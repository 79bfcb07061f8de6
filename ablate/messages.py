"""Words of messages: counted, quoted, with near names as a hint, without control sequences for terminals."""

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

MANY = 20  # names that one sentence can carry


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number of things in words: "1 slot", "5 slots", "2 searches"."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def printable(text: str) -> str:
    """Return a text without control characters for terminals; line breaks and tabs stay."""
    if text.isprintable():  # nearly all of them
        return text
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


_LONG = r"(?:password|passwd|passphrase|pwd|token|secret|signature|credential)"
_WORD = rf"(?:{_LONG}s?|pass|sig|auth|key|accesskey|apikey|accountkey)"
_QUOTED = r"(?:\"[^\"\n]{0,999}\"|'[^'\n]{0,999}'|\{[^}\n]{0,999}\})"
_HIDDEN = [
    (re.compile(pattern, re.IGNORECASE), r"\1***")
    for pattern in (
        rf"([?&](?:sig|auth|[^=&\s?]{{0,99}}(?:{_LONG}|pass|key)[^=&\s?]{{0,99}})=)[^&\s]*",  # of a query
        # DB_PASSWORD='x y', and PWD={x;y} of ODBC
        rf"((?<![\w.-])(?:[\w.-]{{0,60}}{_LONG}|(?:[\w.-]{{0,60}}[._-])?{_WORD})=)(?:{_QUOTED}|[^&;\s]*)",
        # PWD%3Dx%3B of an address
        rf"({_WORD}%(?:25)*3D)(?:%(?:25)*7B(?:(?!%(?:25)*7D)[^&\s])*(?:%(?:25)*7D)?|(?:(?!%(?:25)*3B)[^&\s])*)",
        rf"([\"'][\w.-]{{0,60}}{_WORD}[\"']\s?:\s?[\"'])[^\"'\n]*",  # JSON
        r"(\bauthorization[\"']?\s?[:=]\s?[\"']?(?:(?:basic|bearer|digest|token)\s)?)[^\s\"']+",
        r"(\bbearer\s)(?!token\b|auth)[^\s\"']+",
        r"()(?<![\w-])eyJ[\w-]{8,}(?:\.[\w-]*)*",  # a JSON web token
    )
]
"""What is secret in a message, each with what is left. Linear in the text, which a server may choose."""


def public(text: str) -> str:
    """Return an address, or a message that holds some, without passwords, tokens and signatures."""
    shown = re.sub(r"\S+", lambda word: _without_user(word[0]), text)
    for pattern, left in _HIDDEN:
        shown = pattern.sub(left, shown)
    return shown


def _without_user(word: str) -> str:
    """Return a word without the password, or the token, that an address in it has before its host."""
    end = word.rfind("@")  # the last one: a password may have some, and slashes
    start = word.find("://")
    while 0 <= start < end:
        sign = re.compile("[/:@]").search(word, start + 3)
        if sign is not None and sign[0] != "/":
            return f"{word[: sign.end() if sign[0] == ':' else start + 3]}***{word[end:]}"
        start = word.find("://", start + 3)
    return word
