"""Answers as JSON: what Python has and JSON has not, and what would command a terminal."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from ablate.workflow import answers


@dataclass(frozen=True)
class Change:
    from_: str
    to: tuple[float, ...]


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (Change("a", (0.5, math.nan)), {"from": "a", "to": [0.5, None]}),
        ({1: math.inf, "b": -math.inf}, {"1": None, "b": None}),
        ((True, None, 3, "x"), [True, None, 3, "x"]),
        ([Path("a") / "b"], ["a/b"]),
        ({"inner": (Change("b", ()),)}, {"inner": [{"from": "b", "to": []}]}),
    ],
)
def test_an_answer_is_reduced_to_what_json_has(answer, plain):
    assert answers.plain(answer) == plain
    assert json.loads(answers.text(answer)) == plain
    assert json.loads(answers.line(answer)) == plain
    assert "\n" not in answers.line(answer)


def test_an_answer_commands_no_terminal():
    written = answers.text({"study": "\x1b[2J\u202eevil"})
    assert written.isascii()
    assert "\x1b" not in written
    assert json.loads(written) == {"study": "\x1b[2J\u202eevil"}
