"""The conditions of `when` and `if`: their meaning, what they refuse, and that nothing in them is run."""

import pytest

from ablate.recipe import fields
from ablate.recipe.fields import Recipe
from ablate.study.conditions import Expression, parse

FIELDS = fields.fields()
MADE = Recipe.model_validate(
    {"optimizer": {"lr": 0.3}, "training": {"epochs": 30, "gradient_clip": 1.0}, "augment": {"crop": "none"}}
)


def holds(text: str) -> bool:
    condition, wrong = parse(text, FIELDS)
    assert wrong == []
    return condition.holds(lambda path: fields.value(MADE, path))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("true", True),
        ("false", False),
        ("True", True),
        ("not false", True),
        ("model.batch_norm", True),
        ("not model.batch_norm", False),
        ("model.batch_norm == true", True),
        ("model.batch_norm == True", True),
        ("model.batch_norm != false", True),
        ("false == model.batch_norm", False),
        ("optimizer.lr > 0.25", True),
        ("optimizer.lr > -1", True),
        ("optimizer.lr < -0.5", False),
        ("optimizer.lr >= 0.3", True),
        ("optimizer.lr <= 0.3", True),
        ("optimizer.lr == 0.3", True),
        ("optimizer.lr != 0.30", False),
        ("0.25 < optimizer.lr", True),
        ("0.1 < optimizer.lr < 0.5", True),
        ("0.1 < optimizer.lr < 0.3", False),
        ("0.4 < optimizer.lr < 0.5", False),
        ("training.epochs > 29.5", True),
        ("training.epochs == 30", True),
        ("data.validation < 1", True),
        ('augment.crop == "none"', True),
        ("augment.crop == 'random_crop'", False),
        ("augment.crop == none", True),
        ("training.early_stopping == none", True),
        ("training.early_stopping == None", True),
        ('training.early_stopping == "none"', True),
        ("training.early_stopping != 5", True),
        ("training.gradient_clip == none", False),
        ('training.gradient_clip in ["none", 1.0]', True),
        ('optimizer.name in ["sgd", "adam"]', True),
        ('optimizer.name in ("adam", "adamw")', False),
        ('optimizer.name not in ["adam"]', True),
        ("training.epochs in [10, 30]", True),
        ("training.epochs in []", False),
        ("not optimizer.lr > 0.25", False),
        ("model.batch_norm == true and optimizer.lr > 0.25", True),
        ("model.batch_norm == true and optimizer.lr > 0.5", False),
        ("model.batch_norm == false or optimizer.lr > 0.25", True),
        ("true or true and false", True),
        ("(true or true) and false", False),
        ("not false and false", False),
        ("not (false and false)", True),
        ("  model.batch_norm  ", True),
    ],
)
def test_a_condition_means_what_it_says(text, answer):
    assert holds(text) is answer


@pytest.mark.parametrize(
    "text",
    [
        "len(optimizer.name) == 3",
        "open('/etc/passwd')",
        "optimizer.name.upper() == 'SGD'",
        "''.__class__",
        "(1).real == 1",
        "'a'.join == 'a'",
        "optimizer.lr.__class__ == 1",
        "optimizer.__class__",
        "__import__",
        "__builtins__ == 1",
        "lambda: true",
        "(lambda: true)()",
        "[x for x in [1]]",
        "any(x for x in [1])",
        "{x: 1 for x in [1]}",
        "f'{optimizer.lr}' == '0.3'",
        "f'{__import__(1)}'",
        "(x := true)",
        "model.batch_norm is true",
        "model.batch_norm is not true",
        "optimizer.lr + 1 > 1",
        "optimizer.lr > 1 + 1",
        "optimizer.lr > 2 ** 9",
        "-optimizer.lr < 0",
        "optimizer.lr > -'x'",
        "optimizer.lr > --1",
        "~training.epochs == 1",
        "optimizer.name[0] == 's'",
        "optimizer.name == ['sgd'][0]",
        "optimizer.name in {'sgd'}",
        "optimizer.name == {'a': 1}",
        "optimizer.name in 'sgd, adam'",
        "'sgd' in optimizer.name",
        "true if true else false",
        "await true",
        "yield true",
        "*true",
        "optimizer.lr == 1j",
        "optimizer.name == b'sgd'",
        "optimizer.name == ...",
        "optimizer.lr > model.conv_dropout",
        "1 < 2",
        "optimizer.lr",
        "augment.crop",
        "none",
        "1",
        "'text'",
        "[true]",
        "(model.batch_norm == true) == true",
        "optimizer.name = 'sgd'",
        "optimizer.name == 'sgd'; true",
        "import os",
        "",
        "   ",
        "and",
        "optimizer.lr >",
        "(true",
        "true\ntrue",
        "# true",
        "\0",
    ],
)
def test_anything_else_is_refused_and_never_holds(text):
    condition, wrong = parse(text, FIELDS)
    assert wrong
    assert all(isinstance(sentence, str) and sentence for sentence in wrong)
    assert condition.holds(lambda path: fields.value(MADE, path)) is False


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("crop == 'none'", ['"crop" is not a recipe field (did you mean augment.crop?)']),
        ("not lr", ['"lr" is not a recipe field (did you mean optimizer.lr?)']),
        ("optimizer.name == 'sdg'", [('optimizer.name: "sdg" is not one of sgd, adam, adamw (did you mean '
                                     'sgd?)')]),
        ("'sdg' == optimizer.name", [('optimizer.name: "sdg" is not one of sgd, adam, adamw (did you mean '
                                     'sgd?)')]),
        ("optimizer.name in ['sgd', 'lion']", ['optimizer.name: "lion" is not one of sgd, adam, adamw']),
        ("model.batch_norm == 1", ["model.batch_norm: must be true or false, got 1"]),
        ("optimizer.lr == -1", ["optimizer.lr: must be a number above 0 and at most 100, got -1"]),
        ("optimizer.lr == none", ['optimizer.lr: must be a number above 0 and at most 100, got "none"']),
        ("training.epochs == 0.5", ["training.epochs: must be a whole number at least 1, got 0.5"]),
        ("augment.crop > 3", ["augment.crop cannot be ordered: use == or != with it"]),
        ("model.batch_norm > 0", ["model.batch_norm cannot be ordered: use == or != with it"]),
        ("training.early_stopping > 3", ["training.early_stopping cannot be ordered: use == or != with it"]),
        ("optimizer.lr > 'high'", ['optimizer.lr must be ordered by a number, got "high"']),
        ("optimizer.lr > true", ["optimizer.lr must be ordered by a number, got true"]),
        ("optimizer.lr > [1]", ["optimizer.lr must be ordered by a number, got [1]"]),
        ("optimizer.name in 'sgd'", ["\"'sgd'\" must be a list, such as [\"sgd\", \"adam\"]"]),
        ("1 < 2", ['"1" and "2": one side must be a field and the other a literal']),
        ("model.batch_norm is true", [('"model.batch_norm is ..." is not allowed in a condition: use ==, '
                                      '!=, <, <=, >, >=, in, not in')]),
        ("optimizer.lr", ['"optimizer.lr" is not allowed in a condition: use comparisons, and, or, not, in']),
        ("len([1])", ['"len([1])" is not allowed in a condition: use comparisons, and, or, not, in']),
        ("augment.flip = 1", [('"augment.flip = 1" is not a condition, such as model.batch_norm == false '
                              'and optimizer.lr > 0.5')]),
        ("true\nor", [('"true or" is not a condition, such as model.batch_norm == false and optimizer.lr > '
                      '0.5')]),
        ("optimizer.name == 'x' and augment.crop > 1", [
            'optimizer.name: "x" is not one of sgd, adam, adamw',
            "augment.crop cannot be ordered: use == or != with it",
        ]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_a_sentence(text, sentences):
    assert parse(text, FIELDS)[1] == sentences


@pytest.mark.parametrize(
    "text",
    [
        "not " * 5000 + "true",
        "not " * 248 + "truest",
        "-" * 5000 + "1 < optimizer.lr",
        "optimizer.lr > " + "-" * 980 + "1",
        "(" * 5000 + "true" + ")" * 5000,
        "(" * 400 + "true" + ")" * 400,
        "optimizer.lr == " + "[" * 190 + "]" * 190,
        "optimizer" + ".a" * 400,
        "optimizer" + ".a" * 100_000,
        " or ".join(["model.batchnorm"] * 1000),
        "optimizer.lr > " + "9" * 5000,
        "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 1001,
    ],
    ids=lambda text: f"{text[:20]}...{len(text)}",
)
def test_a_huge_or_deeply_nested_condition_is_a_mistake_and_not_a_crash(text):
    condition, wrong = parse(text, FIELDS)
    assert wrong
    assert all(len(sentence) < 2000 for sentence in wrong)
    assert not condition.holds(lambda path: fields.value(MADE, path))


def test_the_deepest_condition_that_is_allowed_can_be_answered():
    assert holds("not " * 248 + "true")
    assert not holds("not " * 247 + "true")
    assert holds("(" * 150 + "true" + ")" * 150)


def test_a_condition_is_never_run_as_python(tmp_path):
    trap = tmp_path / "trap"
    for text in (
        f"__import__('pathlib').Path({str(trap)!r}).touch()",
        f"open({str(trap)!r}, 'w') == 1",
        f"[open({str(trap)!r}, 'w')] == 1",
    ):
        condition, wrong = parse(text, FIELDS)
        assert wrong
        assert not condition.holds(lambda path: fields.value(MADE, path))
        with pytest.raises(AssertionError, match="checked before"):
            Expression(text).holds(lambda path: fields.value(MADE, path))  # as if it had not been checked
    assert not trap.exists()


def test_a_condition_knows_which_fields_it_asks_for():
    text = "model.batch_norm and not (0.1 < optimizer.lr < 1 or augment.crop in ['none'])"
    assert parse(text, FIELDS)[0].paths() & set(FIELDS) == {
        "model.batch_norm",
        "optimizer.lr",
        "augment.crop",
    }
    assert not parse("'augment.crop' == 'none'", FIELDS)[0].paths() & set(FIELDS)
