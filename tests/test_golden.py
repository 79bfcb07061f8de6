"""A small finished study, whose journals lie in tests/golden, says to other programs what it always said.

`PYTHONPATH=tests/builders python tests/test_golden.py` writes the JSON anew, where it changes on purpose;
with `--train` the journals too, which is needed when NUMERICS is raised.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from commands import TINY, ablate
from golden import GOLDEN, same
from PIL import Image
from sklearn.datasets import load_digits

STORE, JSON = GOLDEN / "finished", GOLDEN / "finished.json"
KEPT = (
    "recipe.json",
    "environment.json",
    "model.json",
    "journal.jsonl",
    "result.json",
    "outcomes/*/outcome.json",
)
PROMISED = {"study", "metric", "direction", "seeds", "cells", "effects", "claims"}


def reported(store):
    """Report the study as a program would ask for it, its store's place taken out."""
    code, out, err = ablate("report", "tiny", "--store", store, "--format", "json")
    assert code == 0, err
    return json.loads(out.replace(str(store), "STORE"))


def test_a_finished_study_says_what_it_always_said(tmp_path):
    shutil.copytree(STORE, tmp_path / "store")
    found = reported(tmp_path / "store")
    same(found, json.loads(JSON.read_text(encoding="utf-8")))
    assert set(found) >= PROMISED
    assert {effect["verdict"] for effect in found["effects"]} == {"hurts", "equivalent", "undecided"}
    assert found["claims"][0]["verdict"] == "confirmed"


def make(folder):
    """Train the study on images that will be gone, and keep the journals without what names a machine."""
    digits = load_digits()
    for i, (image, label) in enumerate(zip(digits.images[:700], digits.target[:700], strict=True)):
        path = folder / "images" / ("test" if i % 4 == 0 else "train") / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).resize((16, 16)).save(path)
    text = TINY.replace("seeds      = 2", "seeds      = 4")
    text = text.replace(
        '{ name = "digits", image_size = 16, train_size = 300 }',
        '{ name = "imagefolder", root = "images", image_size = 16 }',
    )
    (folder / "tiny.toml").write_text(text)
    code, _, err = ablate("run", "tiny.toml", "--store", "store", cwd=folder)
    assert code == 0, err
    store = folder / "store"
    shutil.rmtree(STORE, ignore_errors=True)
    files = [path for pattern in KEPT for path in store.glob(f"jobs/*/{pattern}")]
    for path in (*files, *store.glob("studies/*/s*.json")):
        to = STORE / path.relative_to(store)
        to.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        if path.name == "environment.json":
            content = json.loads(text)
            machine = content["machine"] | {"host": "node1", "system": "Linux", "processor": "a processor"}
            text = json.dumps(content | {"machine": machine}) + "\n"
        to.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        if "--train" in sys.argv:
            make(Path(made))
        shutil.copytree(STORE, Path(made) / "store")
        JSON.write_text(
            json.dumps(reported(Path(made) / "store"), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
