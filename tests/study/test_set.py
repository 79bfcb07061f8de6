"""`--set` in factors with named levels."""

import pytest

from ablate.errors import StudyError
from ablate.study import file as study_file

LONG = """name = "x"
[[factor]]
name = "norm"
levels = [{ name = "with", set = {} }, { name = "without", set = { training.epochs = 80 } }]
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "x.toml").write_text(LONG)
    return tmp_path / "x.toml"


def test_a_set_reaches_a_level_of_a_long_factor_by_the_names_of_both(path):
    changed = study_file.load(path, ("factor.norm.levels.without.set.training.epochs=16",))
    assert [dict(level.set) for level in changed.factors[0].levels] == [{}, {"training.epochs": 16}]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("factor.nrom.levels=[]", '"nrom" is not the name of any there (did you mean norm?)'),
        ("factor.norm.levels.witout.set.training.epochs=1", "(did you mean without?)"),
        ("factor.norm=1", "factor is not a table"),
        ("factor.norm.name.x=1", "name is not a table"),
    ],
)
def test_a_name_that_is_not_there_is_told(path, wrong, said):
    with pytest.raises(StudyError) as caught:
        study_file.load(path, (wrong,))
    assert caught.value.mistakes[0].startswith(f"--set {wrong}: ")
    assert said in caught.value.mistakes[0]
