"""`--json` of every command that shows something: strict JSON alone on stdout, with the promised keys."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablate.cli import main
from ablate.cli.group import COMMANDS

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of MLflow's own dependencies
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # MLflow leaves its SQLite connections to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

GOLDEN = Path(__file__).parents[1] / "golden"
PICTURE = str(GOLDEN.parents[1] / "docs/report.png")
STREAMS = {"init", "schema", "logs", "ui", "serve"}  # show text as it comes
ENDED = {
    "study",
    "tuned",
    "done",
    "failures",
    "failed_before",
    "interrupted",
    "stopped",
    "left",
    "mlflow_late",
    "report",
}
ENTRY = {"id", "study", "state", "priority", "after", "submitted", "reason"}
EFFECT = {"effect", "low", "high", "p", "n", "verdict"}
# command -> its arguments on the golden store, and keys of its answer, or of each of them where it is a list
ROWS = {
    "plan": (
        ("factorial.toml",),
        {"study", "cells", "seeds", "runs", "jobs", "done", "to_train", "seconds", "networks"},
    ),
    "run": (("factorial.toml",), ENDED | {"findings"}),
    "search": (("tuned.toml",), ENDED),
    "lr-find": (("factorial.toml", "--steps", "5", "--seeds", "1"), {"baseline"}),
    "status": (
        ("half",),
        {"study", "cells", "total", "runs", "running", "broken", "searches", "free", "seconds_left"},
    ),
    "report": (("factorial",), {"study", "metric", "direction", "seeds", "cells", "effects", "claims"}),
    "check": (("factorial",), {"text", "verdict", "effect", "low", "high"}),
    "compare": (("factorial", "half"), {"studies", "metrics", "changes", "sentences"}),
    "explain": (("half:baseline/0",), {"job", "status", "parts", "runs", "other_seeds", "nearest"}),
    "predict": (("factorial:baseline/0", PICTURE), {"run", "job", "evaluation", "answers", "notes"}),
    "export": (("factorial:baseline/0", "exported"), {"run", "job", "folder", "files", "notes"}),
    "sync": (("half",), {"study", "runs", "mlflow"}),
    "doctor": ((), {"check", "severity", "says", "do", "where"}),
    "gc": (("--dry-run",), {"items", "removed", "kept"}),
    "submit": (("factorial.toml",), ENTRY),
    "queue": ((), ENTRY),
    "pause": (("1",), ENTRY),
    "resume": (("1",), ENTRY),
    "move": (("1", "--priority", "2"), ENTRY),
    "cancel": (("1",), ENTRY),
}
OF_QUEUE = {"queue", "pause", "resume", "move", "cancel"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Unpack the golden store beside its study files."""
    made = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "store.tar.xz") as archive:
        archive.extractall(made, filter="data")
    for path in (GOLDEN / "studies").iterdir():
        if path.is_file():
            shutil.copy(path, made)
    return made


def call(folder, *arguments, codes=(0,)):
    """Call a command in this process: what it printed on stdout, and on stderr."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = CliRunner().invoke(main, [*map(str, arguments), "--store", "store"], catch_exceptions=False)
    finally:
        os.chdir(before)
    assert result.exit_code in codes, result.output
    return result.stdout, result.stderr


def strict(text):
    """Read JSON as RFC 8259 has it, without NaN and Infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_every_command_but_those_that_stream_has_a_row():
    assert set(ROWS) == {name for name, row in COMMANDS.items() if not row.is_hidden} - STREAMS


@pytest.mark.parametrize("name", ROWS)
def test_a_command_answers_in_json(folder, name):
    arguments, keys = ROWS[name]
    if name in OF_QUEUE:
        call(folder, "submit", "factorial.toml")
    has_problems = name == "doctor"  # MLflow has not seen the studies that were not synced
    out, _ = call(folder, name, *arguments, "--json", codes=(0, 1) if has_problems else (0,))
    answer = strict(out)
    for part in answer if isinstance(answer, list) else [answer]:
        assert keys <= set(part)
    assert answer


def test_progress_and_notes_stay_off_stdout(folder):
    out, err = call(folder, "lr-find", "factorial.toml", "--steps", "5", "--seeds", "1", "--json")
    assert "taken" in strict(out)["baseline"]
    assert "range tests of the learning rate" in err


def test_a_watched_status_is_a_line_of_json_each_time(folder):
    out, _ = call(folder, "status", "factorial", "--watch", "--json")
    (line,) = out.splitlines()  # nothing runs, so nothing changes
    assert strict(line)["total"] == {"finished": 8}


def test_the_list_of_studies_is_json_too(folder):
    out, _ = call(folder, "status", "--json")
    assert {"factorial", "tuned", "ends", "half"} <= {listed["study"] for listed in strict(out)}


def test_two_jobs_are_compared_in_json(folder):
    out, _ = call(folder, "explain", "half:baseline/0", "factorial:baseline/0", "--json")
    answer = strict(out)
    assert answer["first"]["job"] != answer["second"]["job"]
    assert {"part", "first", "second"} == set(answer["second"]["differences"][0])


def test_the_json_of_a_report_is_its_format_json(folder):
    assert call(folder, "report", "factorial", "--json") == call(
        folder, "report", "factorial", "--format", "json"
    )


def test_two_forms_of_a_report_at_once_are_a_mistake(folder):
    result = CliRunner().invoke(
        main, ["report", "factorial", "--json", "--format", "csv", "--store", str(folder / "store")]
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--json and --format csv are two forms" in result.stderr


def test_a_mistake_is_a_sentence_on_stderr_where_json_is_asked_for(folder):
    for arguments in (
        ("plan", "nowhere.toml"),
        ("status", "nope"),
        ("compare", "factorial"),
        ("explain", "ffff"),
    ):
        result = CliRunner().invoke(main, [*arguments, "--json", "--store", str(folder / "store")])
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert len(result.stderr.splitlines()) == 1


def test_studies_are_compared_by_the_numbers_of_their_reports(folder):
    out, _ = call(folder, "compare", "factorial", "half", "--json")
    report, _ = call(folder, "report", "factorial", "--json")
    effects = {effect["factor"]: effect for effect in strict(report)["effects"] if effect["kind"] == "main"}
    compared = {change["factor"]: change for change in strict(out)["changes"]}
    assert set(effects) < set(compared)
    for factor, change in compared.items():
        first, second = change["effects"]
        if factor in effects:
            assert second is None
            assert {key: first[key] for key in EFFECT} == {key: effects[factor][key] for key in EFFECT}
            assert (change["from"], change["to"]) == (effects[factor]["from"], effects[factor]["to"])
        else:
            assert first is None


def test_cells_are_compared_by_the_values_of_the_report(folder):
    out, _ = call(
        folder, "compare", "factorial", "--cell", "baseline", "--cell", "batch_norm=false", "--json"
    )
    report, _ = call(folder, "report", "factorial", "--json")
    values = {cell["cell"]: cell["values"] for cell in strict(report)["cells"]}
    answer = strict(out)
    assert [seed["seed"] for seed in answer["seeds"]] == [0, 1]
    for seed in answer["seeds"]:
        first, second = (values[label][str(seed["seed"])] for label in answer["cells"])
        assert seed["values"] == [first, second]
        assert seed["difference"] == pytest.approx(second - first)


def test_gc_lists_and_then_names_what_it_removed(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    left = tmp_path / "copy" / "store" / "searches" / ("0" * 64)
    left.mkdir()
    (left / "search.json").write_text("{}")
    shown, told = call(tmp_path / "copy", "gc", "--dry-run", "--json")
    assert (strict(shown)["removed"], left.is_dir()) == ([], True)
    assert "no study asks for it" in told
    out, _ = call(tmp_path / "copy", "gc", "--yes", "--json")
    assert [item["path"] for item in strict(out)["items"]] == strict(out)["removed"]
    assert str(left) in strict(out)["removed"]
    assert not left.exists()
