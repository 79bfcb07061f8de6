"""`ablate check`, `compare` and the forms of `report`, as users and CI call them, on a study that was run."""

import csv
import io
import json

import pytest
from click.testing import CliRunner
from commands import ablate

from ablate.cli import main


@pytest.fixture(scope="module")
def tiny(done):
    """Return the study file and its store."""
    folder, _ = done
    return folder / "tiny.toml", "--store", folder / "store"


@pytest.fixture(scope="module")
def found(tiny):
    return json.loads(ablate("report", *tiny, "--format", "json")[1])


def claiming(folder, *expect, more=""):
    path = folder / "claiming.toml"
    text = (folder / "tiny.toml").read_text().partition("[[claim]]")[0]
    path.write_text(
        text + more + "".join(f'\n[[claim]]\ntext = "so it is"\nexpect = "{one}"\n' for one in expect)
    )
    return path


def test_check_answers_claims_and_ends_by_them(tiny, found):
    code, out, err = ablate("check", *tiny)
    (claim,) = found["claims"]
    assert out.startswith(f'"BatchNorm helps": {claim["verdict"]}')
    assert (code, err) == (claim["verdict"] == "refuted", "")


def test_check_notes_a_name_that_another_file_has_as_the_report_does(done, tmp_path):
    folder, _ = done
    path = tmp_path / "tiny.toml"
    path.write_text((folder / "tiny.toml").read_text().replace("Does it run?", "Another question"))
    where = ("--store", str(folder / "store"))
    told = CliRunner().invoke(main, ["report", str(path), *where, "--json"]).stderr
    assert told.startswith("note: ")
    assert check(path, *where)[2] == told


def test_check_prints_the_claims_of_the_json_report(tiny, found):
    assert json.loads(ablate("check", *tiny, "--json")[1]) == found["claims"]


def test_a_refuted_claim_fails(done):
    folder, _ = done
    where = ("--store", folder / "store")
    easy = "[analysis]\nalpha = 0.49\n"  # two seeds decide nothing at 0.05
    claims = [f"model.batch_norm: {order} on test/loss" for order in ("true > false", "false > true")]
    codes = [ablate("check", claiming(folder, claim, more=easy), *where, "--strict")[0] for claim in claims]
    assert sorted(codes) == [0, 1]
    code, out, _ = ablate("check", claiming(folder, *claims, more=easy), *where)
    assert code == 1
    assert sorted(line.split(": ")[1].split(",")[0] for line in out.splitlines()) == ["confirmed", "refuted"]


def test_a_claim_that_is_open_fails_where_strict(done):
    folder, _ = done
    # A network with BatchNorm has more parameters under every seed, but a count that no seed moves allows no
    # verdict.
    path = claiming(folder, "model.batch_norm: true > false on model/parameters")
    where = ("--store", folder / "store")
    assert ablate("check", path, *where)[0] == 0
    code, out, _ = ablate("check", path, *where, "--strict")
    assert (code, "undecided" in out) == (3, True)


def check(*arguments):
    """Call `ablate check` in this process: (code, what it printed, what it said beside that)."""
    ended = CliRunner().invoke(main, ["check", *map(str, arguments)])
    return ended.exit_code, ended.stdout, ended.stderr


def test_check_of_a_study_without_claims_tests_nothing_and_says_so(done):
    folder, _ = done
    path = folder / "silent.toml"
    path.write_text((folder / "tiny.toml").read_text().partition("[[claim]]")[0])
    for more in ((), ("--strict",)):
        code, out, err = check(path, "--store", folder / "store", *more)
        assert (code, out) == (3, "the study makes no claim\n")
        note, reason = err.splitlines()
        assert note.startswith("note: ")  # the store's study of this name is another file's
        assert reason == "nothing was tested: give the study a [[claim]]"


def test_check_from_a_folder_without_a_store_says_where_it_looked(study, tmp_path):
    code, out, err = check(study, "--store", tmp_path / "elsewhere")
    assert (code, out) == (3, '"BatchNorm helps": not tested\n')
    assert f"there is no store at {tmp_path / 'elsewhere'}" in err
    assert "--store DIR" in err
    assert not (tmp_path / "elsewhere").exists()


def test_check_of_a_study_that_was_not_run_says_so(study, here, tmp_path):
    code, _, err = check(study, "--store", tmp_path / "mlruns", "--json")
    assert code == 3
    assert "1 of 1 claim was not tested: no run of tiny is finished in " in err


def test_check_of_some_untested_claims_goes_by_the_others(done):
    folder, _ = done
    path = claiming(
        folder, "model.batch_norm: true > false", "model.batch_norm: true > false on time/compile_seconds"
    )
    code, out, err = check(path, "--store", folder / "store")
    assert out.splitlines()[1].endswith(": not tested")
    said = (
        "no two finished runs of tiny that differ in that factor only have time/compile_seconds under "
        "the same seed"
    )
    assert (code, err.splitlines()[1:]) == (0, [f"1 of 2 claims was not tested: {said}"])


def test_a_cell_that_is_misspelt_ends_with_the_nearest_one(tiny):
    code, out, err = ablate("compare", *tiny, "--cell", "baseline", "--cell", "batch_norm=fals")
    assert (code, out) == (2, "")
    assert "--cell" in err
    assert "batch_norm=false" in err
    assert "Traceback" not in err


def test_two_cells_are_compared_seed_by_seed(tiny, found):
    code, out, err = ablate(
        "compare", *tiny, "--cell", "baseline", "--cell", "batch_norm=false", COLUMNS="200"
    )
    assert (code, err) == (0, "")
    cells = {cell["cell"]: cell["values"] for cell in found["cells"]}
    for seed in ("0", "1"):
        row = next(line for line in out.splitlines() if line.startswith(f"seed {seed}"))
        for label in ("baseline", "batch_norm=false"):
            assert f"{100 * cells[label][seed]:.2f} %" in row
    assert "batch_norm=false instead of baseline: " in out


@pytest.mark.parametrize("cells", [(), ("baseline",), ("baseline", "baseline")], ids=len)
def test_one_thing_alone_is_no_comparison(tiny, cells):
    code, out, err = ablate("compare", *tiny, *(part for cell in cells for part in ("--cell", cell)))
    assert (code, out) == (2, "")
    assert (
        err == "compare needs two studies, or one study and two different cells: --cell LABEL --cell LABEL\n"
    )


def test_a_study_agrees_with_itself(tiny):
    code, out, _ = ablate("compare", tiny[0], *tiny, COLUMNS="200")
    assert code == 0
    assert "2 changes in both studies, 0 in one of them only" in out


def test_a_name_is_no_markup_in_the_terminal(done):
    folder, _ = done
    path = folder / "odd.toml"
    path.write_text((folder / "tiny.toml").read_text().replace('"tiny"', '"[red]odd[/red]"'))
    code, out, err = ablate("compare", folder / "tiny.toml", path, "--store", folder / "store", COLUMNS="200")
    assert (code, err) == (0, "")
    assert "[red]odd[/red]" in out.splitlines()[0]


def test_a_report_looks_into_the_cells_that_are_asked_for(tiny, tmp_path):
    page = tmp_path / "report.html"
    code, out, err = ablate("report", *tiny, "--cell", "batch_norm=false", "--out", page)
    assert (code, out.strip(), err) == (0, str(page), "")
    text = page.read_text()
    assert "<p>1: batch_norm=false. Choose others" in text
    assert '<img class="gallery" src="data:image/png;base64,' in text
    made = json.loads(ablate("report", *tiny, "--cell", "batch_norm=false", "--format", "json")[1])
    assert [d["cell"] for d in made["inside"]] == ["batch_norm=false"]
    answers = sum(number for number, _, _ in made["inside"][0]["calibration"])
    assert answers == 2 * 355  # test images of both seeds


def test_the_forms_say_the_same(tiny, found, tmp_path):
    (main, *_) = found["effects"]
    rows = list(csv.DictReader(io.StringIO(ablate("report", *tiny, "--format", "csv")[1])))
    assert [float(row["effect"]) for row in rows] == [e["effect"] for e in found["effects"]]
    out = tmp_path / "effects.tex"
    assert ablate("report", *tiny, "--format", "tex", "--out", out)[1] == f"{out}\n"
    assert f"{100 * main['effect']:+.2f}" in out.read_text()
    assert f"{100 * main['effect']:+.2f}" in ablate("report", *tiny, "--format", "md")[1]


def test_the_tables_stand_beside_the_report(done, found):
    folder, _ = done
    report = folder / "store" / "studies" / "tiny" / "report.md"
    assert report.read_text().startswith("# tiny\n")
    assert json.loads((report.parent / "findings.json").read_text()) == found
    assert len((report.parent / "cells.csv").read_text().splitlines()) == 1 + len(found["cells"])
    assert len((report.parent / "effects.csv").read_text().splitlines()) == 1 + len(found["effects"])
