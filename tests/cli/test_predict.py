"""`ablate predict` as users call it: pictures of every state, and runs that will not do."""

import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import digit_pictures
import numpy as np
import pytest
from click.testing import CliRunner
from commands import RECIPE, ablate
from PIL import Image

from ablate.cli import main

GOLDEN = Path(__file__).parents[1] / "golden"
RUN = "factorial:baseline/0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Unpack the golden store, beside twelve digits as pictures."""
    made = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "store.tar.xz") as archive:
        archive.extractall(made, filter="data")
    digit_pictures.write(made / "store", made / "digits", 12)
    return made


def predict(folder, *arguments, code=0):
    """Call the command in this process: what it printed on stdout, and on stderr."""
    store = () if "--store" in arguments else ("--store", folder / "store")
    result = CliRunner().invoke(main, ["predict", *map(str, (*arguments, *store))], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@pytest.mark.parametrize("run", ["tiny:baseline/0", "tiny:batch_norm=false, mc_dropout=3/1"])
def test_the_test_images_as_files_get_the_answers_of_the_evaluation(done, tmp_path, run):
    store = done[0] / "store"
    labels = digit_pictures.write(store, tmp_path / "digits")
    out, _ = predict(None, run, tmp_path / "digits", "--json", "--top", "1", "--store", store)
    predicted = json.loads(out)
    confusion = np.zeros((10, 10), int)
    for label, answer in zip(labels, predicted["answers"], strict=True):
        confusion[label, int(answer["answer"])] += 1
    outcomes = [
        json.loads(path.read_text())
        for path in (store / "jobs" / predicted["job"]).glob("outcomes/*/outcome.json")
    ]
    (outcome,) = [one for one in outcomes if one["evaluation"] == predicted["evaluation"]]
    assert confusion.tolist() == outcome["confusion"]
    assert len({each["confusion"][0][0] for each in outcomes} | {None}) > 1


def test_what_is_no_picture_is_named_and_the_others_are_answered(folder, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(folder / "digits", mixed)
    (mixed / "broken.jpg").write_bytes((mixed / "0001.png").read_bytes()[:60])
    (mixed / "empty.png").touch()
    (mixed / "notes.txt").write_text("no picture")
    (mixed / "sub").mkdir()
    Image.open(mixed / "0000.png").convert("RGB").save(mixed / "sub/again.gif")
    out, err = predict(
        folder, RUN, mixed, tmp_path / "nowhere.png", tmp_path / "a\x1b[31mb", "--json", code=1
    )
    answers = {Path(one["image"]).name: one for one in json.loads(out)["answers"]}
    assert len(answers) == 12 + 2 + 1 + 2
    assert {name for name, one in answers.items() if one["error"]} == {
        "broken.jpg", "empty.png", "nowhere.png", "a\x1b[31mb",
    }  # fmt: skip
    assert f"{mixed}/empty.png: cannot be read: the file is empty" in err
    assert f"{tmp_path}/nowhere.png: cannot be read: there is no such file" in err
    assert "\x1b" not in err
    assert "1 .txt (notes.txt)" in err
    assert answers["again.gif"]["answer"] == answers["0000.png"]["answer"]
    for one in answers.values():
        if not one["error"]:
            shares = [share["probability"] for share in one["top"]]
            assert shares == sorted(shares, reverse=True)
            assert (one["answer"], one["probability"]) == (one["top"][0]["class"], shares[0])
            assert len(shares) == 5


def test_the_table_names_each_picture_its_answer_and_the_next(folder):
    out, err = predict(folder, RUN, folder / "digits/0003.png", "--top", "3", "--mc-dropout", "4")
    assert err == ""
    assert "±" in out
    assert "next" in out
    plain, _ = predict(folder, RUN, folder / "digits/0003.png", "--top", "1")
    assert "±" not in plain
    assert "%" in plain


def test_more_passes_spread_and_none_do_not(folder):
    picture = folder / "digits/0005.png"
    passes, one = (json.loads(predict(folder, RUN, picture, "--mc-dropout", n, "--json")[0]) for n in (20, 0))
    assert passes["evaluation"]["mc_dropout"] == 20
    assert any(share["spread"] > 0 for share in passes["answers"][0]["top"])
    assert all(share["spread"] is None for share in one["answers"][0]["top"])


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("factorial", "which is a study: its runs are factorial:baseline/0; "),
        ("factorial:baseline", '"factorial:baseline" is a cell of factorial, with a job for each seed'),
        ("factorial:baseline/7", "is not a run of factorial"),
        ("nothing", "RUN must be a beginning of a job's identity"),
        ("half:baseline/0", "must be finished, and was stopped: ablate run takes it to its end"),
        ("ends:end=diverged/0", "has diverged (in epoch 1: train/loss was nan), and has no weights to go by"),
        ("ends:end=failed/0", "must be finished, and has crashed"),
        ("no.toml:baseline/0", "no.toml: there is no such file"),
    ],
)  # fmt: skip
def test_a_run_that_will_not_do_is_a_sentence(folder, run, said):
    out, err = predict(folder, run, folder / "digits/0000.png", code=2)
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_run_at_chance_level_is_answered_with_a_note(folder):
    _, err = predict(folder, "ends:end=chance/0", folder / "digits/0000.png")
    assert "note: ends:end=chance/0 is at chance level: test accuracy 0.0930" in err


def test_a_folder_without_pictures_is_a_mistake(folder, tmp_path):
    (tmp_path / "notes.txt").touch()
    _, err = predict(folder, RUN, tmp_path, code=2)
    assert "must be an image or a folder of images, and has none, but 1 file: 1 .txt (notes.txt)" in err


@pytest.mark.parametrize("gone", ["last.pt", "meta.json"])
def test_what_a_run_has_lost_is_named(folder, tmp_path, gone):
    store = tmp_path / "store"
    shutil.copytree(folder / "store", store)
    for path in (*store.glob(f"jobs/*/{gone}"), *store.glob(f"data/*/{gone}")):
        path.unlink()
    _, err = predict(folder, RUN, folder / "digits/0000.png", "--store", store, code=2)
    assert gone.replace("meta.json", "data/") in err
    assert "gone" in err


def test_the_picture_shows_what_the_network_saw_and_is_opened(folder, tmp_path, monkeypatch):
    opened = tmp_path / "opened.txt"
    script = tmp_path / "viewer"
    script.write_text(f"#!{sys.executable}\nimport sys\nopen({str(opened)!r}, 'w').write(sys.argv[1])\n")
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{script} %s")
    sheet = tmp_path / "sheet.png"
    _, err = predict(folder, RUN, folder / "digits", "--out", sheet, "--show")
    assert f"picture: {sheet}" in err
    assert opened.read_text() == sheet.as_uri()
    shown = np.asarray(Image.open(io.BytesIO(sheet.read_bytes())))
    first = np.asarray(Image.open(folder / "digits/0000.png").resize((192, 192), Image.Resampling.NEAREST))
    assert np.array_equal(shown[8:200, 8:200], np.stack([first] * 3, -1))
    assert shown.shape[:2] == (8 + 2 * (192 + 13 * 6 + 4 + 8), 8 + 6 * 200)


NET = """
from torch import nn

def make(classes, channels, image_size):
    first = nn.Linear(channels * image_size**2, 8)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(8, classes))
"""


@pytest.mark.slow  # a run, and processes
def test_a_network_of_ones_own_is_imported_for_its_file_alone_and_may_have_changed(folder, tmp_path):
    study, code = tmp_path / "own.toml", tmp_path / "own_net.py"
    text = RECIPE.replace('name = "cnn4", width = 0.25, head_dropout = 0.2', 'name = "own_net:make"')
    study.write_text(f'name = "own"\nseeds = 1\n{text}')
    code.write_text(NET)
    store, picture = ("--store", tmp_path / "store"), folder / "digits/0000.png"
    assert ablate("run", study, *store, "--set", "training.epochs=2")[0] == 0
    out, err = predict(folder, "own:baseline/0", picture, *store, code=2)
    assert "own_net:make is a network of your own" in err
    run = f"{study}:baseline/0"
    exit_code, out, err = ablate("predict", run, picture, *store, "--json")
    assert (exit_code, err) == (0, "")
    assert json.loads(out)["run"] == "own:baseline/0"
    passes = ablate("predict", run, picture, *store, "--mc-dropout", 3)
    assert (passes[0], passes[1]) == (2, "")
    assert "--mc-dropout needs dropout in the network, and that of own:baseline/0 has none" in passes[2]
    code.write_text(f"# moved\n{NET}")
    exit_code, again, err = ablate("predict", run, picture, *store, "--json")
    assert exit_code == 0
    assert f"note: {code} has changed since own:baseline/0 was trained" in err
    assert json.loads(again)["answers"] == json.loads(out)["answers"]
    code.write_text(NET.replace(", 8)", ", 9)").replace("Linear(8", "Linear(9"))
    exit_code, out, err = ablate("predict", run, picture, *store, "--json")
    assert (exit_code, out) == (2, "")
    assert (
        "2 layers differ from the weights: "
        "1 (weight of 8 x 256 in the weights, 9 x 256 in the network, "
        "bias of 8 in the weights, 9 in the network); "
        "3 (weight of 10 x 8 in the weights, 10 x 9 in the network)"
    ) in err
