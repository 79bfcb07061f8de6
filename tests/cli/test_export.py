"""`ablate export`: a folder that classifies images without ablate, whole or not at all."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import digit_pictures
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ablate.cli import main

GOLDEN = Path(__file__).parents[1] / "golden"
RUN = "factorial:batch_norm=false, mc_dropout=3/1"
ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import load
print(json.dumps([[load.probabilities(path).tolist() for path in sys.argv[2:]], "ablate" in sys.modules]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Unpack the golden store, beside three digits and a large turned picture."""
    made = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "store.tar.xz") as archive:
        archive.extractall(made, filter="data")
    digit_pictures.write(made / "store", made / "digits", 3)
    turned = Image.Exif()
    turned[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8)
    Image.fromarray(pixels).resize((300, 203)).save(made / "digits/wide.jpg", exif=turned)
    Image.fromarray(np.dstack([pixels, pixels[:, :, 0]])).save(made / "digits/window.png")
    return made


def call(folder, *arguments, code=0):
    """Call a command in this process: what it printed on stdout, and on stderr."""
    command = [*map(str, arguments), "--store", str(folder / "store")]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout, result.stderr


@pytest.mark.slow  # a Python of its own, and ONNX
def test_what_is_exported_answers_without_ablate_as_predict_does(folder, tmp_path):
    place = tmp_path / "new/exported"
    out, err = call(folder, "export", RUN, place, "--json")
    exported = json.loads(out)
    assert set(exported["files"]) == {path.name for path in place.iterdir()}
    assert set(exported["files"]) == {
        "load.py", "model.json", "model.safetensors", "network.py", "recipe.json",
    }  # fmt: skip
    assert "load.py makes one" in err  # the run was evaluated by three passes
    assert [path.name for path in place.parent.iterdir()] == ["exported"]
    pictures = sorted((folder / "digits").iterdir())
    asked = subprocess.run(
        [sys.executable, "-c", ASK, place, *pictures],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    shares, has_ablate = json.loads(asked.stdout)
    assert not has_ablate
    predicted = json.loads(
        call(folder, "predict", RUN, *pictures, "--mc-dropout", "0", "--top", "10", "--json")[0]
    )
    classes = json.loads((place / "model.json").read_text())["classes"]
    for own, answer in zip(shares, predicted["answers"], strict=True):
        expected = {share["class"]: share["probability"] for share in answer["top"]}
        assert dict(zip(classes, own, strict=True)) == pytest.approx(expected, abs=1e-5)


def test_the_files_say_what_was_trained_and_no_path_of_this_machine(folder, tmp_path):
    call(folder, "export", RUN, tmp_path / "x")
    about, recipe = (
        json.loads((tmp_path / "x" / f"{name}.json").read_text()) for name in ("model", "recipe")
    )
    assert (about["run"], about["job"]) == (RUN, recipe["job"])
    assert about["metrics"]["test/f1"] > 0.5
    assert recipe["recipe"]["model"]["batch_norm"] is False
    assert recipe["recipe"]["evaluation"]["mc_dropout"] == 3
    for path in (tmp_path / "x").iterdir():
        assert str(folder).encode() not in path.read_bytes()


@pytest.mark.slow  # onnxscript takes its time
def test_onnx_gives_the_answers_to_any_number_of_images(folder, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    call(folder, "export", RUN, tmp_path / "x", "--onnx")
    session = onnxruntime.InferenceSession(tmp_path / "x/model.onnx", providers=["CPUExecutionProvider"])
    sys.path.insert(0, str(tmp_path / "x"))
    try:
        import load
    finally:
        sys.path.remove(str(tmp_path / "x"))
    images = torch.randn(7, 1, 16, 16)
    (answers,) = session.run(["logits"], {"images": images.numpy()})
    assert np.abs(answers - load.forward(load.WEIGHTS, images).numpy()).max() < 1e-4


def test_a_folder_with_something_in_it_is_left_alone_and_an_empty_one_is_taken(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    call(folder, "export", RUN, tmp_path / "empty")
    assert (tmp_path / "empty/load.py").exists()
    before = {path: path.read_bytes() for path in (tmp_path / "empty").iterdir()}
    _, err = call(folder, "export", "factorial:baseline/0", tmp_path / "empty", code=2)
    assert "must be a new or an empty folder, and has something in it" in err
    assert {path: path.read_bytes() for path in (tmp_path / "empty").iterdir()} == before
    _, err = call(folder, "export", RUN, tmp_path / "empty/load.py", code=2)
    assert "and is a file" in err


def test_what_fails_leaves_nothing_behind(folder, tmp_path, monkeypatch):
    from ablate.training import export, graph_code

    monkeypatch.setattr(graph_code, "tensors", lambda program: {})
    with pytest.raises(KeyError):
        call(folder, "export", RUN, tmp_path / "x")
    monkeypatch.undo()
    real = graph_code.code
    monkeypatch.setattr(graph_code, "code", lambda *given: real(*given).replace("return ", "return 2 * "))
    _, err = call(folder, "export", RUN, tmp_path / "x", code=2)
    assert "network.py does not give the answers of the network, so nothing was exported" in err
    monkeypatch.undo()
    monkeypatch.setattr(export, "NEEDED", ("onnx", "no_such_package"))
    _, err = call(folder, "export", RUN, tmp_path / "x", "--onnx", code=2)
    assert '--onnx needs no_such_package: pip install "ablate-studies[onnx]"' in err
    assert list(tmp_path.iterdir()) == []
