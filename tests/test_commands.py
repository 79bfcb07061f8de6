"""`ablate check`, `ablate compare` and the forms of `ablate report`, as users and CI call them, on a study that was run."""

import csv
import io
import json

import pytest
from commands import ablate


@pytest.fixture(scope="module")
def here(done):
    """Give the study file and its store."""
    folder, _ = done
    return folder / "tiny.toml", "--store", folder / "store"


@pytest.fixture(scope="module")
def found(here):
    return json.loads(ablate("report", *here, "--format", "json")[1])


def claiming(folder, *expect, more=""):
    path = folder / "claiming.toml"
    text = (folder / "tiny.toml").read_text().partition("[[claim]]")[0]
    path.write_text(text + more + "".join(f'\n[[claim]]\ntext = "so it is"\nexpect = "{one}"\n' for one in expect))
    return path


def test_check_answers_claims_and_ends_by_them(here, found):
    code, out, err = ablate("check", *here)
    (claim,) = found["claims"]
    assert out.startswith(f'"BatchNorm helps": {claim["verdict"]}')
    assert (code, err) == (claim["verdict"] == "refuted", "")


def test_check_prints_the_claims_of_the_json_report(here, found):
    assert json.loads(ablate("check", *here, "--json")[1]) == found["claims"]


def test_a_refuted_claim_fails(done):
    folder, _ = done
    where, easy = ("--store", folder / "store"), "[analysis]\nalpha = 0.49\n"  # two seeds decide nothing at 0.05
    claims = [f"model.batch_norm: {order} on test/loss" for order in ("true > false", "false > true")]
    codes = [ablate("check", claiming(folder, claim, more=easy), *where, "--strict")[0] for claim in claims]
    assert sorted(codes) == [0, 1]
    code, out, _ = ablate("check", claiming(folder, *claims, more=easy), *where)
    assert code == 1
    assert sorted(line.split(": ")[1].split(",")[0] for line in out.splitlines()) == ["confirmed", "refuted"]


def test_a_claim_that_is_open_fails_where_strict(done):
    folder, _ = done
    # A network with BatchNorm has more parameters under every seed, but a count that no seed moves allows no verdict.
    path = claiming(folder, "model.batch_norm: true > false on model/parameters")
    where = ("--store", folder / "store")
    assert ablate("check", path, *where)[0] == 0
    code, out, _ = ablate("check", path, *where, "--strict")
    assert (code, "undecided" in out) == (3, True)


def test_check_of_a_study_without_claims_says_so(done):
    folder, _ = done
    path = folder / "silent.toml"
    path.write_text((folder / "tiny.toml").read_text().partition("[[claim]]")[0])
    assert ablate("check", path, "--store", folder / "store", "--strict") == (0, "the study makes no claim\n", "")


def test_a_cell_that_is_misspelt_ends_with_the_nearest_one(here):
    code, out, err = ablate("compare", *here, "--cell", "baseline", "--cell", "batch_norm=fals")
    assert (code, out) == (2, "")
    assert "--cell" in err
    assert "batch_norm=false" in err
    assert "Traceback" not in err


def test_two_cells_are_compared_seed_by_seed(here, found):
    code, out, err = ablate("compare", *here, "--cell", "baseline", "--cell", "batch_norm=false", COLUMNS="200")
    assert (code, err) == (0, "")
    cells = {cell["cell"]: cell["values"] for cell in found["cells"]}
    for seed in ("0", "1"):
        row = next(line for line in out.splitlines() if line.startswith(f"seed {seed}"))
        for label in ("baseline", "batch_norm=false"):
            assert f"{100 * cells[label][seed]:.2f} %" in row
    assert "batch_norm=false instead of baseline: " in out


@pytest.mark.parametrize("cells", [(), ("baseline",), ("baseline", "baseline")], ids=len)
def test_one_thing_alone_is_no_comparison(here, cells):
    code, out, err = ablate("compare", *here, *(part for cell in cells for part in ("--cell", cell)))
    assert (code, out) == (2, "")
    assert err == "compare needs two studies, or one study and two different cells: --cell LABEL --cell LABEL\n"


def test_a_study_agrees_with_itself(here):
    code, out, _ = ablate("compare", here[0], *here, COLUMNS="200")
    assert code == 0
    assert "2 changes in both studies, 0 in one of them only" in out


def test_a_name_is_no_markup_in_the_terminal(done):
    folder, _ = done
    path = folder / "odd.toml"
    path.write_text((folder / "tiny.toml").read_text().replace('"tiny"', '"[red]odd[/red]"'))
    code, out, err = ablate("compare", folder / "tiny.toml", path, "--store", folder / "store", COLUMNS="200")
    assert (code, err) == (0, "")
    assert "[red]odd[/red]" in out.splitlines()[0]


def test_a_report_looks_into_the_cells_that_are_asked_for(here, tmp_path):
    page = tmp_path / "report.html"
    code, out, err = ablate("report", *here, "--cell", "batch_norm=false", "--out", page)
    assert (code, out.strip(), err) == (0, str(page), "")
    text = page.read_text()
    assert "<p>1: batch_norm=false. Choose others" in text
    assert '<img class="gallery" src="data:image/png;base64,' in text
    made = json.loads(ablate("report", *here, "--cell", "batch_norm=false", "--format", "json")[1])
    assert [d["cell"] for d in made["inside"]] == ["batch_norm=false"]
    assert sum(answers for answers, _, _ in made["inside"][0]["calibration"]) == 2 * 355  # test images of both seeds


def test_the_forms_say_the_same(here, found, tmp_path):
    (main, *_) = found["effects"]
    rows = list(csv.DictReader(io.StringIO(ablate("report", *here, "--format", "csv")[1])))
    assert [float(row["effect"]) for row in rows] == [e["effect"] for e in found["effects"]]
    out = tmp_path / "effects.tex"
    assert ablate("report", *here, "--format", "tex", "--out", out)[1] == f"{out}\n"
    assert f"{100 * main['effect']:+.2f}" in out.read_text()
    assert f"{100 * main['effect']:+.2f}" in ablate("report", *here, "--format", "md")[1]


def test_the_tables_stand_beside_the_report(done, found):
    folder, _ = done
    report = folder / "store" / "studies" / "tiny" / "report.md"
    assert report.read_text().startswith("# tiny\n")
    assert json.loads((report.parent / "findings.json").read_text()) == found
    assert len((report.parent / "cells.csv").read_text().splitlines()) == 1 + len(found["cells"])
    assert len((report.parent / "effects.csv").read_text().splitlines()) == 1 + len(found["effects"])
