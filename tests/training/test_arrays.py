"""The files of a decoded set: a full disk is a sentence, and a torn file is decoded again."""

import json
import os
import shutil
import subprocess
import sys

import mounts
import numpy as np
import pytest
from PIL import Image

from ablate.errors import DataError
from ablate.recipe.fields import Data
from ablate.training import arrays, data

DIGITS = Data(name="digits", image_size=16)
PREPARE = (
    "import sys; from pathlib import Path\n"
    "from ablate.recipe.fields import Data; from ablate.training import data\n"
    "print(data.prepare(Data.model_validate_json(sys.argv[1]), Path(sys.argv[2])).fingerprint)"
)


def images(root):
    """Write a folder of images that take 3.7 MB when they are decoded."""
    draw = np.random.default_rng(0)
    for split, number in (("train", 140), ("test", 10)):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for i in range(number):
                pixels = draw.integers(0, 256, (64, 64, 3), np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")
    return Data(name="imagefolder", root=str(root), image_size=64)


def prepare(section, cache):
    """Decode in a process of its own, as what is tested may end it."""
    command = [sys.executable, "-c", PREPARE, section.model_dump_json(), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    ("name", "size"), [pytest.param("digits", "200k", marks=pytest.mark.slow), ("imagefolder", "3m")]
)
def test_a_full_disk_is_a_sentence_and_spoils_nothing(name, size, tmp_path):
    section = DIGITS if name == "digits" else images(tmp_path / "images")
    with mounts.small(tmp_path / "disk", size) as enlarge:
        code, _, err = prepare(section, tmp_path / "disk" / "data")
        assert code == 1, "it is no signal that has ended it"
        assert "images cannot be decoded to it (No space left on device): make room there" in err
        assert not list((tmp_path / "disk/data").glob("draft-*"))
        enlarge("60m")
        code, name, err = prepare(section, tmp_path / "disk" / "data")
        assert (code, err) == (0, "")
        assert data.is_whole(tmp_path / "disk" / "data" / name)


def test_what_is_allocated_has_its_bytes_on_the_disk(tmp_path):
    array = arrays.allocate(tmp_path / "a.npy", np.uint8, (1 << 20,))
    assert array.shape == (1 << 20,)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= 1 << 20, "a sparse file has no room of its own yet"


def test_a_saved_array_is_the_one_that_numpy_saves(tmp_path):
    for number, array in enumerate(
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3)), np.uint8([[7]]))
    ):
        arrays.save(tmp_path / f"{number}.npy", array)
        np.save(tmp_path / "numpy.npy", np.ascontiguousarray(array))
        assert (tmp_path / f"{number}.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return data.prepare(DIGITS, tmp_path_factory.mktemp("decoded")).folder.parent


def in_set(name):
    return lambda cache: next(cache.glob(f"[0-9a-f]*/{name}"))


def note(cache):
    return next(cache.glob("index/*.json"))


def changed(**fields):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def other(path):
    """Put a pipe there, which would be waited for without end."""
    path.unlink()
    os.mkfifo(path)


SPOILT = {
    "an empty array": (in_set("train_labels.npy"), lambda path: path.write_bytes(b"")),
    "an array that is cut off": (in_set("train_images.npy"), lambda path: os.truncate(path, 5000)),
    "an array of NULs": (in_set("test_labels.npy"), lambda path: path.write_bytes(bytes(5000))),
    "an array of other numbers": (in_set("train_labels.npy"), lambda path: np.save(path, np.ones(1438))),
    "too few images": (in_set("test_images.npy"), lambda p: np.save(p, np.ones((3, 16, 16, 1), np.uint8))),
    "objects": (in_set("test_labels.npy"), lambda path: np.save(path, np.array([{}], object))),
    "no array": (in_set("test_images.npy"), lambda path: path.unlink()),
    "a pipe": (in_set("test_images.npy"), other),
    "a folder": (in_set("test_images.npy"), lambda path: [path.unlink(), path.mkdir()]),
    "an empty meta.json": (in_set("meta.json"), lambda path: path.write_text("")),
    "a list as meta.json": (in_set("meta.json"), lambda path: path.write_text("[]")),
    "a pipe as meta.json": (in_set("meta.json"), other),
    "no classes": (in_set("meta.json"), changed(classes=None)),
    "classes that are numbers": (in_set("meta.json"), changed(classes=list(range(10)))),
    "text for a number": (in_set("meta.json"), changed(train="many")),
    "a huge number": (in_set("meta.json"), changed(image_size=10**400)),
    "no mean": (in_set("meta.json"), changed(mean=[])),
    "nested meta.json": (in_set("meta.json"), lambda path: path.write_text("[" * 100_000)),
    "an empty index": (note, lambda path: path.write_text("")),
    "a number as index": (note, lambda path: path.write_text("3")),
    "an index of another place": (note, changed(fingerprint="../images")),
    "an index of nothing": (note, changed(fingerprint="0" * 64)),
    "a pipe as index": (note, other),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_spoilt_counts_as_not_decoded_and_is_decoded_again(name, whole, tmp_path):
    find, spoil = SPOILT[name]
    cache = tmp_path / "data"
    shutil.copytree(whole, cache)
    expected = data.find(DIGITS, cache)
    assert expected is not None
    spoil(find(cache))
    assert data.find(DIGITS, cache) is None
    again = data.prepare(DIGITS, cache)
    assert again == expected
    assert data.find(DIGITS, cache) == expected
    assert not list(cache.glob("draft-*"))
    for name in data.ARRAYS:
        ours, theirs = again.folder / f"{name}.npy", whole / again.fingerprint / f"{name}.npy"
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_job_whose_images_are_cut_off_is_told_what_to_do(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "data")
    empty = in_set("train_labels.npy")(tmp_path / "data")
    empty.write_bytes(b"")
    with pytest.raises(
        DataError, match=f"{empty}: must be images .* cut off.*: remove {empty.parent}, and run"
    ):
        data.open_arrays(empty.parent)
