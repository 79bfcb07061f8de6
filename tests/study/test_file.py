"""Study files: what may stand in them, and one sentence for each mistake."""

from pathlib import Path

import pytest
from resolving import fingerprints

from ablate.errors import StudyError
from ablate.recipe import fields as recipe_fields
from ablate.recipe import metrics
from ablate.study import file as study_file
from ablate.study import grid
from ablate.study.file import Study, from_json, to_json
from ablate.study.search_space import Range

NAMED = 'name = "x"\n'
CROPS = '[factors]\naugment.crop = ["none", "random_crop"]\n'
GROWING = {"sections": list(recipe_fields.Recipe.model_fields), "metrics": list(metrics.METRICS)} | {
    section: [path for path in recipe_fields.fields() if path.startswith(f"{section}.")]
    for section in recipe_fields.Recipe.model_fields
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load the text of a study file as studies/x.toml."""
    monkeypatch.chdir(tmp_path)
    path = Path("studies/x.toml")
    path.parent.mkdir()

    def load_text(text: str | bytes, *sets: str) -> Study:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return study_file.load(path, sets)

    return load_text


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_no_mistake(load):
    assert load(b"\xef\xbb\xbf" + NAMED.replace("\n", "\r\n").encode()).text == NAMED


def test_a_network_whose_function_is_not_there_is_named_and_never_recommended(load):
    Path("studies/mynet.py").write_text("import torch\ndef small(classes, channels, image_size): ...\n")
    text = (
        NAMED
        + '[factors]\nmodel.name = ["cnn4", "mynet:smal"]\n'
        + '[[claim]]\nexpect = "model.name: mynet:small > cnn4"\n'
    )
    assert mistakes(load, text) == [
        "studies/x.toml: factors.model.name[1]: there is no function smal in mynet (did you mean small?)"
    ]


def test_a_network_of_a_module_that_makes_its_names_may_be_there(load):
    Path("studies/lazy.py").write_text("def __getattr__(name): ...\n")
    assert mistakes(load, NAMED + 'seeds = 0\n[factors]\nmodel.name = ["cnn4", "lazy:small"]\n') == [
        (
            "studies/x.toml: seeds: must be a whole number at least 1 and at most 1000 "
            "or a list, each a whole number at least 0, got 0"
        )
    ]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ('question = "Is it, None of these" x', ""),
        ("question = 'Is it, None of these' x", ""),
        ('question = "Is it, None of these', ""),
        ('question = "a \\", None of these" x', ""),
        ('question = "of it, .5" x', ""),
        ('question = "“so”" x', ""),
        ('x = ["a # b", None]', ': write "none" for None'),
        ("x = True # it's so", ": write true for True"),
        ('x = { a = "no, None", b = .5 }', ": write 0.5 for .5"),
    ],
)
def test_a_text_in_quotes_is_no_value_of_another_language(load, line, hint):
    (found,) = mistakes(load, NAMED + line)
    assert found.startswith("studies/x.toml: is not TOML: ")
    assert found.partition(")")[2] == hint


@pytest.mark.parametrize(
    ("key", "meant"), [("seed=4", "seeds"), ("epochs=3", "training.epochs"), ("optimiser.lr=1", "optimizer")]
)
def test_a_key_in_the_wrong_place_is_told_where_it_belongs(load, key, meant):
    (said,) = mistakes(load, NAMED, key)
    assert f"is not a section of the recipe (did you mean {meant}?)" in said


def mistakes(load, text: str | bytes, *sets: str) -> list[str]:
    with pytest.raises(StudyError) as caught:
        load(text, *sets)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    return list(caught.value.mistakes)


def runs_and_jobs(loaded: Study) -> tuple[tuple[grid.Run, ...], tuple[grid.Job, ...]]:
    cells = grid.expand(loaded, precision="fp32")
    return grid.runs_and_jobs(cells, loaded.seeds, fingerprints(cells))


def golden_mistakes() -> list[tuple[str, list[str]]]:
    text = (Path(__file__).parents[1] / "golden" / "mistakes.txt").read_text(encoding="utf-8")
    for name, words in GROWING.items():
        text = text.replace(f"<{name}>", ", ".join(words))
    found = []
    for block in text.split("\n\n")[1:]:
        lines = block.strip("\n").split("\n")
        written = "\n".join(line for line in lines if not line.startswith("    "))
        found.append(
            (written, [f"studies/x.toml: {line.strip()}" for line in lines if line.startswith("    ")])
        )
    return found


@pytest.mark.parametrize(
    ("written", "sentences"), golden_mistakes(), ids=lambda part: part if isinstance(part, str) else ""
)
def test_each_mistake_is_told_in_a_sentence_of_its_own(load, written, sentences):
    assert sentences
    assert mistakes(load, written if written.startswith("name =") else NAMED + written) == sentences


def test_all_mistakes_are_shown_at_once(load):
    written = """
desing = "factorial"
seeds = 0
metric = "speed"
recipe.training.epochs = 0
factors.augment.crop = ["radnom_crop", "nnoe"]
factor = [{ name = "augment.flip", levels = [true], when = "crop == 1 and optimizer.name == 'sdg'" }]
exclude = [{ if = "true or" }]
search = { trials = 0, space.optimizer.lr = { low = 1, high = 1000 } }
claim = [{ expect = "augment.flip: on > off" }]
"""
    keys = [sentence.split(": ")[1] for sentence in mistakes(load, written)]
    assert keys == [
        *(
            "desing",
            "seeds",
            "name",
            "metric",
            "recipe.training.epochs",
            "factors.augment.crop[0]",
            "factors.augment.crop[1]",
        ),
        *(
            "factor[0].when",
            "factor[0].when",
            "factor[0].levels",
            "exclude[0].why",
            "exclude[0].if",
            "search.trials",
        ),
        *("search.space.optimizer.lr", "claim[0].expect", "claim[0].expect"),
    ]


def test_very_long_values_are_told_too(load):
    assert mistakes(load, f"name = '{'x' * 101}'") == [
        f'studies/x.toml: name: must be text of 1 to 100 characters, got "{"x" * 101}"'
    ]
    assert load(f"name = '{'x' * 100}'").name == "x" * 100
    huge = "1" + "0" * 400
    sentence = (
        "studies/x.toml: factors.augment.rotation[1]: must be a number at least 0 and at most 180, "
        f"got {huge}"
    )
    assert mistakes(load, f"{NAMED}factors.augment.rotation = [0, {huge}]") == [sentence]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = 'x'".encode("utf-16"), "cannot be read: it is UTF-16 text: save it as UTF-8"),
        ("name = 'x'".encode("utf-16-be"), "cannot be read: it is UTF-16 text: save it as UTF-8"),
        (
            b"name = 'x'\n[recipe]\nmodel.batch_norm = True",
            "is not TOML: Invalid value (at line 3, column 20): write true for True",
        ),
        (
            b"name = 'x'\nseeds = [1, None]",
            'is not TOML: Invalid value (at line 2, column 13): write "none" for None',
        ),
        (
            b"name = 'x'\nmin_effect = .01",
            "is not TOML: Invalid value (at line 2, column 14): write 0.01 for .01",
        ),
        (
            "name = \u201cx\u201d".encode(),
            'is not TOML: Invalid value (at line 1, column 8): write plain quotes, "like these"',
        ),
        ("name = 'Größe'".encode("latin-1"), "cannot be read: it is not UTF-8 text"),
        (b"name = ", "is not TOML: Invalid value (at end of document)"),
        (b"name = 'x'\nname = 'y'", "is not TOML: Cannot overwrite a value (at end of document)"),
        (b"name = 'x'\n<html>", "is not TOML: Invalid statement (at line 2, column 1)"),
        (b"x = " + b"1" * 5000, "is not TOML: Exceeds the limit (4300 digits) for integer string conversion"),
        (b"x = " + b"[" * 5000 + b"]" * 5000, "is not TOML: maximum recursion depth exceeded"),
        (b"name = 'x'\nfactors" + b".a" * 3000 + b" = 1", "has tables in tables in tables, far too deep"),
        (b"", "name: must be given"),
        (b"\x00", "is not TOML: Invalid statement (at line 1, column 1)"),
    ],
    ids=range(15),
)
def test_a_file_that_is_no_study_is_told_in_a_sentence(load, text, sentence):
    (found,) = mistakes(load, text)
    assert found.startswith(f"studies/x.toml: {sentence}")


def test_a_file_that_cannot_be_opened_is_told_in_a_sentence(tmp_path):
    for path, reason in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(StudyError) as caught:
            study_file.load(path)
        assert caught.value.mistakes == (f"{path}: cannot be read: {reason}",)


def test_a_study_of_nothing_but_a_name_has_all_defaults(load):
    read = load(NAMED)
    assert (read.name, read.question, read.design, read.seeds, read.metric) == (
        "x",
        "",
        "factorial",
        (0, 1, 2, 3, 4),
        "test/accuracy",
    )
    assert (read.direction, read.min_effect, read.alpha, read.search) == ("max", None, 0.05, None)
    assert (read.base, read.factors, read.excludes, read.claims, read.source) == (
        {},
        (),
        (),
        (),
        "studies/x.toml",
    )


@pytest.mark.parametrize(
    ("written", "seeds"), [("3", (0, 1, 2)), ("1", (0,)), ("[7, 3]", (7, 3)), ("[0]", (0,))]
)
def test_seeds_are_a_count_or_a_list(load, written, seeds):
    assert load(f"{NAMED}seeds = {written}").seeds == seeds


@pytest.mark.parametrize(
    ("written", "direction"),
    [
        ('metric = "test/loss"', "min"),
        ('metric = "test/accuracy/cat"', "max"),
        ('metric = "mine"\ndirection = "min"', "min"),
        ('metric = "mine"\ndirection = "max"', "max"),
        ('direction = "none"', "max"),
    ],
)
def test_the_direction_is_known_or_given(load, written, direction):
    assert load(NAMED + written).direction == direction


def test_none_stands_for_no_value_where_a_field_may_have_none(load):
    fields = [path for path, info in recipe_fields.fields().items() if recipe_fields.is_optional(info)]
    assert {"training.early_stopping", "training.gradient_clip", "data.train_size"} <= set(fields)
    sets = [f'{path}="none"' for path in fields]
    made = grid.expand(load(NAMED + 'min_effect = "none"', *sets), precision="fp32").cells[0].recipe
    assert [recipe_fields.value(made, path) for path in fields] == [None] * len(fields)
    assert load(NAMED + 'min_effect = "none"').min_effect is None
    levels = grid.expand(
        load(NAMED + 'factors.training.early_stopping = ["none", 3]'), precision="fp32"
    ).cells
    assert [(cell.label, cell.recipe.training.early_stopping) for cell in levels] == [
        ("baseline", None),
        ("early_stopping=3", 3),
    ]


@pytest.mark.parametrize(
    "written",
    [
        'data.normalize = ["dataset", { mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }]',
        '"augment.crop" = ["none", "random_crop"]',
        'augment = { crop = ["none", "random_crop"] }',
    ],
)
def test_levels_may_be_tables_and_keys_may_be_written_in_every_way_of_toml(load, written):
    assert len(grid.expand(load(f"{NAMED}[factors]\n{written}"), precision="fp32").cells) == 2


def test_a_named_level_may_set_a_table_and_override_the_recipe(load):
    levels = (
        '[{ name = "a", set = {} }, { name = "b", set = { optimizer.lr = 0.5, data.normalize = { mean '
        "= [0.5], std = [0.5] } } }]"
    )
    cells = grid.expand(
        load(f'{NAMED}recipe.optimizer.lr = 0.2\nfactor = [{{ name = "n", levels = {levels} }}]'),
        precision="fp32",
    ).cells
    assert [cell.recipe.optimizer.lr for cell in cells] == [0.2, 0.5]
    assert cells[1].recipe.data.normalize == recipe_fields.MeanStd(mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("seeds=3", lambda s: s.seeds == (0, 1, 2)),
        (" seeds = [4] ", lambda s: s.seeds == (4,)),
        ("min_effect=0.5", lambda s: s.min_effect == 0.5),
        ("analysis.alpha=0.1", lambda s: s.alpha == 0.1),
        ("name=a b=c", lambda s: s.name == "a b=c"),
        ("name='x'", lambda s: s.name == "x"),
        ("name= spaced ", lambda s: s.name == "spaced"),
        ("question=", lambda s: s.question == ""),
        ("training.epochs=3", lambda s: s.base.get("training.epochs") == 3),
        ("recipe.training.epochs=3", lambda s: s.base.get("training.epochs") == 3),
        ("training={epochs=3}", lambda s: s.base == {"training.epochs": 3}),
        ("data.name=digits", lambda s: s.base.get("data.name") == "digits"),
        ('data.name="digits"', lambda s: s.base.get("data.name") == "digits"),
        ("augment.flip=false", lambda s: s.base.get("augment.flip") is False),
        (
            "factors.augment.crop=['random_crop', 'none']",
            lambda s: [x.name for x in s.factors[0].levels] == ["random_crop", "none"],
        ),
        (
            "factors.model.batch_norm=[true, false]",
            lambda s: [f.name for f in s.factors] == ["augment.crop", "model.batch_norm"],
        ),
        ("search.space.optimizer.lr={low=0.1, high=1}", lambda s: s.search is not None),
    ],
)
def test_set_changes_the_study_and_is_kept_with_it(load, text, reading):
    assert not reading(load("name = 'before'\nquestion = 'why'\n" + CROPS))
    changed = load("name = 'before'\nquestion = 'why'\n" + CROPS, text)
    assert reading(changed)
    assert reading(from_json(to_json(changed)))


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["epochs"], '--set must be key=value, such as training.epochs=3, got "epochs"'),
        ([""], '--set must be key=value, such as training.epochs=3, got ""'),
        (["=3"], '--set must be key=value, such as training.epochs=3, got "=3"'),
        (["seeds=3", "seeds.x=3"], "--set seeds.x=3: seeds is not a table"),
        (["factors.augment.crop.x=3"], "--set factors.augment.crop.x=3: crop is not a table"),
        (
            ["training.epochs="],
            'studies/x.toml: recipe.training.epochs: must be a whole number at least 1, got ""',
        ),
        (
            ["training.epochs=three"],
            'studies/x.toml: recipe.training.epochs: must be a whole number at least 1, got "three"',
        ),
        (
            ["training.epochs=inf"],
            "studies/x.toml: recipe.training.epochs: must be a whole number at least 1, got Infinity",
        ),
        (
            ["augment.crop=none"],
            "studies/x.toml: factors.augment.crop: is also in [recipe]: keep it in one of them",
        ),
        (["data.name=digit"], "(did you mean digits?)"),
        (["sedes=3"], 'studies/x.toml: recipe.sedes: "sedes" is not a section of the recipe'),
        (["..=3"], 'studies/x.toml: recipe.: "" is not a section of the recipe'),
        (
            ["training.epochs=" + "[" * 5000],
            "studies/x.toml: recipe.training.epochs: must be a whole number at least 1, got",
        ),
        (
            ["training.epochs=" + "1" * 5000],
            "studies/x.toml: recipe.training.epochs: must be a whole number at least 1, got",
        ),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_wrong_set_is_told_in_a_sentence(load, sets, sentence):
    (found,) = mistakes(load, NAMED + CROPS, *sets)
    assert sentence in found


def test_a_search_is_read(load):
    read = load(
        NAMED
        + "[search]\ntrials = 7\nper = 'study'\nspace.optimizer.lr = { low = 1e-3, high = 1, log = true }\n"
        "space.augment.crop = { choices = ['none', 'random_crop'] }\nspace.training.epochs = { low = 1, "
        "high = 9 }"
    ).search
    assert read is not None
    assert (read.trials, read.per) == (7, "study")
    assert read.space == {
        "optimizer.lr": Range(low=1e-3, high=1, log=True),
        "augment.crop": Range(choices=["none", "random_crop"]),
        "training.epochs": Range(low=1, high=9),
    }


@pytest.mark.parametrize(
    ("expect", "parts"),
    [
        ("augment.crop: random_crop > none", ("augment.crop", "random_crop", ">", "none", None, None)),
        ("augment.crop:none<random_crop", ("augment.crop", "none", "<", "random_crop", None, None)),
        ("  augment.crop : none ~ random_crop  ", ("augment.crop", "none", "~", "random_crop", None, None)),
        (
            "augment.rotation: 15 > 0 when augment.crop = none",
            ("augment.rotation", "15", ">", "0", ("augment.crop", "none"), None),
        ),
        ("augment.rotation: 15 better  than 0", ("augment.rotation", "15", "better than", "0", None, None)),
        (
            "augment.rotation: 15 worse than 0 when augment.crop = none on test/loss",
            ("augment.rotation", "15", "worse than", "0", ("augment.crop", "none"), "test/loss"),
        ),
        ("augment.rotation: 15 > 0 on test/loss", ("augment.rotation", "15", ">", "0", None, "test/loss")),
        (
            "stage: all > < b when augment.crop=none on test/loss",
            ("stage", "all", ">", "< b", ("augment.crop", "none"), "test/loss"),
        ),
    ],
)
def test_a_claim_is_read(load, expect, parts):
    stage = (
        '[[factor]]\nname = "stage"\nlevels = [{ name = "< b", set = {} }, { name = "all", set = { '
        "model.batch_norm = false } }]\n"
    )
    written = (
        f"{NAMED}{CROPS}augment.rotation = [0, 15]\n{stage}[[claim]]\ntext = 'they say'\nsource = "
        f"'they'\nexpect = '{expect}'"
    )
    (claim,) = load(written).claims
    assert (claim.factor, claim.first, claim.relation, claim.second, claim.when, claim.metric) == parts
    assert (claim.text, claim.source, claim.expect) == ("they say", "they", expect)
    (bare,) = load(written.replace("text = 'they say'\nsource = 'they'\n", "")).claims
    assert (bare.text, bare.source) == (expect, "")


def test_a_kept_study_is_the_same_study(load):
    text = (Path(__file__).parents[2] / "studies" / "augmentation.toml").read_text(encoding="utf-8")
    once = load(text, "seeds=2", "training.epochs=3", "model.head_dropout=0.5")
    again = from_json(to_json(once))
    runs, jobs = runs_and_jobs(once)
    runs_again, jobs_again = runs_and_jobs(again)
    assert len(jobs) > 1
    assert jobs_again == jobs
    assert [(run.name, run.job_id) for run in runs_again] == [(run.name, run.job_id) for run in runs]
    assert (again.source, again.claims, again.raw) == (once.source, once.claims, once.raw)
    assert to_json(again) == to_json(once)


HOSTILE = [
    "<script>alert(1)</script>",
    "\"'`",
    "two\nlines",
    "Größe",
    "a/b/../c",
    "50 % $(x) {y} \\",
    "🔥",
    "a, b",
    "a.b = 1",
    "-rf",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_survives(name):
    raw = {
        "name": name,
        "question": name,
        "factor": [
            {
                "name": name,
                "levels": [{"name": "plain", "set": {}}, {"name": name, "set": {"optimizer": {"lr": 0.5}}}],
            }
        ],
        "exclude": [{"if": "optimizer.lr > 1", "why": name}],
    }
    read = from_json(to_json(study_file.check(raw, f"studies/{name}.toml")))
    assert (read.name, read.question, read.source, read.excludes[0].why) == (
        name,
        name,
        f"studies/{name}.toml",
        name,
    )
    cells = grid.expand(read, precision="fp32").cells
    assert [dict(cell.levels) for cell in cells] == [{name: "plain"}, {name: name}]
    assert [cell.label for cell in cells] == ["baseline", f"{name}={name}"]


@pytest.mark.parametrize(
    ("seeds", "count", "more"),
    [
        ((0, 1), 4, 4),
        ((0, 1, 2), 2, 2),
        ((10, 11), 4, [10, 11, 0, 1]),
        ((10, 11, 12), 2, [10, 11]),
        ((1, 0), 3, [1, 0, 2]),
    ],
)
def test_more_seeds_keep_those_that_there_are(seeds, count, more):
    assert study_file.more_seeds(seeds, count) == more
