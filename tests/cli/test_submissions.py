"""The commands of the queue, with no service running."""

import json

import pytest
from click.testing import CliRunner
from commands import TINY

from ablate.cli import main


@pytest.fixture
def call(here):
    """Return a function that runs a command on a store: its exit code, its output, its errors."""

    def run(*arguments):
        result = CliRunner().invoke(main, [*map(str, arguments), "--store", str(here.path)])
        return result.exit_code, result.stdout, result.stderr

    return run


def test_a_study_is_submitted_listed_and_changed_with_no_service(call, study):
    code, shown, note = call("submit", study, "--set", "seeds=3", "--key", "k")
    assert (code, shown) == (0, "00001  tiny: waiting\n")
    assert "ablate serve" in note
    assert call("submit", study, "--set", "seeds=3", "--key", "k")[1] == shown
    code, shown, _ = call("submit", study, "--after", "1", "--priority", "3", "--json")
    second = json.loads(shown)
    assert (second["id"], second["after"], second["state"]) == ("00002", ["00001"], "waiting")
    _, table, _ = call("queue")
    assert [line.split()[0] for line in table.splitlines()] == ["id", "00002", "00001"]
    assert "waiting for 00001" in table
    assert call("pause", "1")[1] == "00001  tiny: paused\n"
    assert call("resume", "1")[1] == "00001  tiny: waiting\n"
    assert call("move", "1", "--before", "2")[1] == "00001  tiny: waiting\n"
    assert [entry["id"] for entry in json.loads(call("queue", "--json")[1])] == ["00001", "00002"]
    for _ in range(2):
        assert call("cancel", "2")[1] == "00002  tiny: cancelled\n"


def test_what_has_ended_long_ago_is_listed_when_asked_for(call, here, study):
    for _ in range(12):
        call("submit", study)
        call("cancel", len(list(here.queue.glob("0*"))))
    assert len(call("queue")[1].splitlines()) == 1 + 10 + 1
    assert "and 2 older ones: --all lists them" in call("queue")[1]
    assert len(call("queue", "--all")[1].splitlines()) == 1 + 12


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("submit", "tiny"), "a study file must be named"),
        (("submit", "no.toml"), "there is no such file"),
        (("submit", "STUDY", "--after", "7"), 'no submission "7"'),
        (("submit", "STUDY", "--set", "training.epochs=-1"), "training.epochs"),
        (("cancel", "7"), 'no submission "7"'),
        (("cancel", "../jobs"), 'no submission "../jobs"'),
        (("move", "7"), "needs one of"),
        (("move", "7", "--before", "8"), 'no submission "7"'),
    ],
)
def test_a_mistake_is_one_sentence_and_submits_nothing(call, study, here, arguments, says):
    code, shown, error = call(*(str(study) if one == "STUDY" else one for one in arguments))
    assert (code, shown) == (2, "")
    assert says in error
    assert not list(here.queue.glob("0*"))


def test_an_empty_queue_says_how_to_fill_it(call):
    assert "ablate submit STUDY.toml" in call("queue")[1]
    assert json.loads(call("queue", "--json")[1]) == []


def test_a_study_that_would_take_another_ones_place_is_refused(call, study, here):
    from ablate.store import study_folder
    from ablate.workflow import argument

    study_folder.keep(here, argument.load(str(study), (), here), study_folder.Settled())
    other = study.parent / "sub" / "tiny.toml"
    other.parent.mkdir()
    other.write_text(TINY.replace("epochs = 3", "epochs = 4"))
    code, _, error = call("submit", other)
    assert code == 2
    assert "ablate submit --replace" in error
    assert call("submit", other, "--replace")[0] == 0
