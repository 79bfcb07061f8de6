"""What a claim expects is cut into its parts in one pass, whatever stands there."""

import re
import signal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ablate.study import claims

SHAPE = re.compile(
    r"\s*(?P<factor>.+?)\s*:\s*(?P<first>.+?)\s*(?P<relation>[<>~]|(?<=\s)(?:no\s+)?(?:better|worse)\s+than(?=\s))"
    r"\s*(?P<second>.+?)"
    r"(?:\s+when\s+(?P<other>.+?)\s*=\s*(?P<level>.+?))?(?:\s+on\s+(?P<metric>\S+))?\s*"
)
"""The form; as one pattern it takes for ever on some texts of 500 characters."""

PARTS = st.sampled_from(
    [
        "a",
        "net",
        "b c",
        "test/loss",
        ":",
        "<",
        ">",
        "~",
        "better than",
        "worse  than",
        "no better than",
        "when",
        "on",
        "=",
        " ",
        "  ",
    ]
)


@given(st.lists(PARTS, max_size=9).map("".join) | st.lists(PARTS, max_size=9).map(" ".join))
@example("crop: a > b when net = c on test/loss")
@example("net: my:net better than other:net on test/loss")
@example("a: b > c when d")
@example("a: b > c on x when d = e")
@example("a: b > on x")
def test_a_claim_is_cut_as_it_always_was(text):
    match = SHAPE.fullmatch(text)
    if match is None:
        assert claims._split(text) is None
        return
    expected = {name: part or "" for name, part in match.groupdict().items()}
    if any(part != part.strip() for part in expected.values()):  # a name that is only spaces: no name
        return
    assert claims._split(text) == expected


ENDLESS = {
    "many of everything": ": < when = on " * 60 + "\nx y",
    "many relations": "a: " + "b better than " * 20_000,
    "many conditions": "a: b > c" + " when d" * 20_000,
    "many spaces": "a: b >" + " " * 200_000 + "c" + " " * 200_000 + "when" + " " * 200_000,
    "many colons": ":" * 200_000,
}


@pytest.mark.parametrize("name", ENDLESS)
def test_no_text_takes_for_ever(name):
    def over(*_):
        raise AssertionError("it has not ended")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(60)
    try:
        claims._split(ENDLESS[name])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_number_that_is_no_level_bounds_a_metric_that_is_named_and_is_else_a_level_that_is_not_there():
    factors = {"rotation": ["0", "15"]}
    for text, bound in (
        ("rotation: 15 > 0.9 on test/accuracy", 0.9),
        ("rotation: 15 > 0 on test/accuracy", None),
    ):
        claim, wrong = claims.parse("", "", text, factors)
        assert claim is not None
        assert (claim.bound, wrong) == (bound, [])
    for text in (
        "rotation: 15 > 10",
        "rotation: 15 ~ 0.9 on test/accuracy",
        "rotation: 15 > nan on test/loss",
    ):
        claim, (wrong,) = claims.parse("", "", text, factors)
        assert claim is None
        assert "is not a level of rotation" in wrong
