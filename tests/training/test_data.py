"""Data sets: real images decoded once, found again by their content, or refused with a sentence."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from pictures import noise, whole
from PIL import Image
from sklearn.datasets import load_digits

from ablate.errors import DataError
from ablate.recipe.fields import Data
from ablate.training import data


def write_images(root, *, size=(20, 24), per_class=3, classes=("a", "b ü"), suffix="png"):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in classes:
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(per_class):
                Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{i}.{suffix}")
    return Data(name="imagefolder", root=str(root), image_size=16)


def fingerprint(section, tmp_path, name="cache"):
    return data.prepare(section, tmp_path / name).fingerprint


def child(code, *arguments, **options):
    """Start Python with some code in which `section` and `cache` are what was given."""
    start = (
        "import sys; from pathlib import Path; from ablate.recipe.fields import Data; from ablate.training "
        "import data\n"
        "section, cache = Data.model_validate_json(sys.argv[1]), Path(sys.argv[2])\n"
    )
    command = [
        sys.executable,
        "-c",
        start + code,
        *(a.model_dump_json() if isinstance(a, Data) else str(a) for a in arguments),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


# The digits


def test_digits_are_scikit_learns_with_every_fifth_of_a_class_held_back_for_testing(tmp_path):
    prepared = data.prepare(Data(name="digits", image_size=16), tmp_path)
    arrays = data.open_arrays(prepared.folder)
    assert (prepared.train, prepared.test, prepared.channels, prepared.image_size) == (1442, 355, 1, 16)
    assert prepared.classes == tuple("0123456789")
    bunch = load_digits()
    counts = np.bincount(bunch.target)
    assert np.bincount(arrays.test_labels).tolist() == [n // 5 for n in counts]
    assert (np.bincount(arrays.train_labels) + np.bincount(arrays.test_labels)).tolist() == counts.tolist()
    zeros = bunch.images[bunch.target == 0]
    train, test = arrays.train_images[arrays.train_labels == 0], arrays.test_images[arrays.test_labels == 0]
    for part, ranks in ((train, (0, 1, 2, 3, 5)), (test, (4, 9))):
        for image, rank in zip(part, ranks, strict=False):
            small = Image.fromarray((zeros[rank] * 255 / 16).round().astype(np.uint8))
            assert np.array_equal(
                image[:, :, 0], np.asarray(small.resize((16, 16), Image.Resampling.BILINEAR))
            )
    scaled = arrays.train_images / 255
    assert prepared.mean == pytest.approx([scaled.mean()], abs=1e-6)
    assert prepared.std == pytest.approx([scaled.std()], abs=1e-6)


def test_another_size_of_the_digits_is_another_data_set(tmp_path):
    small, large = (data.prepare(Data(name="digits", image_size=size), tmp_path) for size in (16, 24))
    assert small.fingerprint != large.fingerprint
    assert data.open_arrays(large.folder).train_images.shape == (1442, 24, 24, 1)
    assert data.find(Data(name="digits", image_size=16), tmp_path) == small


# Folders of images


def test_a_folder_of_images_is_cut_square_and_in_order(tmp_path):
    section = write_images(tmp_path / "images")
    prepared = data.prepare(section, tmp_path / "cache")
    arrays = data.open_arrays(prepared.folder)
    assert prepared.classes == ("a", "b ü")
    assert (prepared.train, prepared.test, prepared.channels) == (6, 6, 3)
    assert arrays.train_images.shape == (6, 16, 16, 3)
    assert arrays.train_images.dtype == np.uint8
    assert arrays.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    with Image.open(tmp_path / "images/train/a/2.png") as image:
        resized = np.asarray(
            image.resize((19, 16), Image.Resampling.BILINEAR)
        )  # 20 x 24 (high x wide): shorter side to 16
    assert np.array_equal(arrays.train_images[2], resized[:, 1:17])
    scaled = arrays.train_images.reshape(-1, 3) / 255
    assert prepared.mean == pytest.approx(scaled.mean(0).tolist(), abs=1e-6)
    assert prepared.std == pytest.approx(scaled.std(0).tolist(), abs=1e-6)


def test_images_of_the_right_size_are_taken_as_they_are(tmp_path):
    section = write_images(tmp_path / "images", size=(16, 16))
    arrays = data.open_arrays(data.prepare(section, tmp_path / "cache").folder)
    with Image.open(tmp_path / "images/test/b ü/0.png") as image:
        assert np.array_equal(arrays.test_images[3], np.asarray(image))


# What a file holds, how it is saved, and the colour that it has for a network.
FILES = {
    "grey.png": (Image.new("L", (16, 16), 100), {}, (100, 100, 100)),
    "grey.jpg": (Image.new("L", (16, 16), 100), {"quality": 100}, (100, 100, 100)),
    "colour.jpeg": (
        Image.new("RGB", (16, 16), (200, 100, 50)),
        {"quality": 100, "subsampling": 0},
        (200, 100, 50),
    ),
    "SHOUTED.PNG": (Image.new("RGB", (16, 16), (200, 100, 50)), {}, (200, 100, 50)),
    "opaque.png": (Image.new("RGBA", (16, 16), (200, 100, 50, 255)), {}, (200, 100, 50)),
    "palette.png": (Image.new("RGB", (16, 16), (200, 100, 50)).quantize(4), {}, (200, 100, 50)),
    "black and white.png": (Image.new("1", (16, 16), 1), {}, (255, 255, 255)),
    "sixteen bits.png": (Image.fromarray(np.full((16, 16), 40_000, np.uint16)), {}, (156, 156, 156)),
    "sixteen bits.tif": (Image.fromarray(np.full((16, 16), 300, np.uint16)), {}, (1, 1, 1)),
    "cmyk.jpg": (Image.new("CMYK", (16, 16)), {"quality": 100}, (255, 255, 255)),
    "lossless.webp": (Image.new("RGB", (16, 16), (200, 100, 50)), {"lossless": True}, (200, 100, 50)),
    "bitmap.bmp": (Image.new("RGB", (16, 16), (200, 100, 50)), {}, (200, 100, 50)),
    "wide.png": (Image.new("RGB", (90, 20), (200, 100, 50)), {}, (200, 100, 50)),
    "thin.png": (Image.new("RGB", (1, 50), (200, 100, 50)), {}, (200, 100, 50)),
    "weiße Rose.png": (Image.new("RGB", (16, 16), (200, 100, 50)), {}, (200, 100, 50)),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_image_becomes_eight_bit_colour(name, tmp_path):
    image, options, colour = FILES[name]
    for folder in ("train/grün", "test/grün", "train/rot", "test/rot"):
        (tmp_path / "my images" / folder).mkdir(parents=True)
        image.save(tmp_path / "my images" / folder / name, **options)
    arrays = data.open_arrays(
        data.prepare(
            Data(name="imagefolder", root=str(tmp_path / "my images"), image_size=16), tmp_path
        ).folder
    )
    assert arrays.train_images.shape == (2, 16, 16, 3)
    lossy = 2 if "quality" in options else 0
    assert np.abs(arrays.train_images.astype(int) - colour).max() <= lossy


def test_hidden_and_other_files_are_no_images_and_no_classes(tmp_path):
    section = write_images(tmp_path / "images")
    before = fingerprint(section, tmp_path)
    folder = tmp_path / "images/train"
    (folder / "a/notes.txt").write_text("x")
    (folder / "a/.hidden.png").write_text("x")
    (folder / "a/Thumbs.db").write_text("x")
    (folder / "README.md").write_text("x")
    (folder / ".cache").mkdir()
    Image.new("RGB", (16, 16)).save(folder / ".cache/0.png")
    assert fingerprint(section, tmp_path, "other cache") == before


def test_the_fingerprint_is_of_the_content_and_not_of_the_place_or_the_times_or_the_file_names(tmp_path):
    section = write_images(tmp_path / "images")
    shutil.copytree(tmp_path / "images", tmp_path / "a copy")
    for path in (tmp_path / "a copy").rglob("*.png"):
        os.utime(path, (1, 1))
        path.rename(path.with_name(f"renamed {path.name}"))
    copy = section.model_copy(update={"root": str(tmp_path / "a copy")})
    assert fingerprint(section, tmp_path, "one") == fingerprint(copy, tmp_path, "two")
    assert data.prepare(copy, tmp_path / "one").folder.parent == tmp_path / "one"
    assert len(list((tmp_path / "one").glob("*/meta.json"))) == 1, "one content, stored once"


def change_pixel(root):
    path = root / "train/a/0.png"
    with Image.open(path) as image:
        red, green, blue = image.getpixel((10, 10))
        image.putpixel((10, 10), (red, green, blue ^ 1))
        image.save(path)


def change_test_pixel(root):
    shutil.copy(root / "test/a/1.png", root / "test/a/0.png")


def change_label(root):
    (root / "train/a/2.png").rename(root / "train/b ü/00.png")  # the same images in the same order


def change_class_name(root):
    for split in ("train", "test"):
        (root / split / "a").rename(root / split / "aa")


def move_to_test(root):
    (root / "train/b ü/2.png").rename(root / "test/a/00.png")


@pytest.mark.parametrize(
    "change", [change_pixel, change_test_pixel, change_label, change_class_name, move_to_test]
)
def test_another_pixel_label_or_class_is_another_data_set(tmp_path, change):
    section = write_images(tmp_path / "images", size=(16, 16))
    before = fingerprint(section, tmp_path)
    change(tmp_path / "images")
    assert data.find(section, tmp_path / "cache") is None
    assert fingerprint(section, tmp_path) != before


def test_corrupt_images_are_named_all_of_them_up_to_ten(tmp_path):
    section = write_images(tmp_path / "images", per_class=12)
    bad = sorted((tmp_path / "images/train/a").iterdir())
    for path in bad:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        data.prepare(section, tmp_path / "cache")
    lines = str(caught.value).splitlines()
    assert lines[0] == "these images cannot be decoded: replace or remove them"
    assert [line.split(":")[0].strip() for line in lines[1:11]] == [str(path) for path in bad[:10]]
    assert lines[11:] == ["and 2 more"]
    assert data.find(section, tmp_path / "cache") is None
    for path in bad[2:]:
        shutil.copy(tmp_path / "images/test/a/0.png", path)
    with pytest.raises(DataError) as caught:
        data.prepare(section, tmp_path / "cache")
    assert len(str(caught.value).splitlines()) == 3
    assert "more" not in str(caught.value)


def truncated(kind):
    file = io.BytesIO()
    Image.fromarray(noise(0, 32, 32, 3)).save(file, kind)
    return file.getvalue()[: len(file.getvalue()) // 2]


CORRUPT = {
    "half.png": truncated("PNG"),
    "half.jpg": truncated("JPEG"),
    "half.bmp": truncated("BMP"),
    "half.webp": truncated("WEBP"),
    "empty.png": b"",
    "text.jpg": b"<html>404 Not Found</html>",
    "zeros.png": bytes(1000),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_an_image_is_corrupt_in_many_ways_and_always_named(name, tmp_path):
    section = write_images(tmp_path / "images")
    path = tmp_path / "images/test/b ü" / name
    path.write_bytes(CORRUPT[name])
    with pytest.raises(DataError, match=re.escape(f"replace or remove them\n  {path}: ")):
        data.prepare(section, tmp_path / "cache")
    path.unlink()
    assert data.prepare(section, tmp_path / "cache").test == 6


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_an_image_whose_pixels_have_no_known_range_is_refused_by_name(kind, tmp_path):
    section = write_images(tmp_path / "images")
    Image.fromarray(np.zeros((16, 16), kind)).save(tmp_path / "images/test/a/x.tif")
    with pytest.raises(
        DataError, match=r"x\.tif: its pixels have 32 bits and no known range, save it with 8 or 16"
    ):
        data.prepare(section, tmp_path / "cache")


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    for root, make in ((tmp_path / "one", "train"), (tmp_path / "two", "other")):
        (root / make).mkdir(parents=True)
        with pytest.raises(DataError) as caught:
            data.prepare(Data(name="imagefolder", root=str(root)), tmp_path / "cache")
        assert str(caught.value) == (
            f"{root}/train must have images as <class>/<name>.jpg (or png, ...), and there are none: "
            "check data.root, or try --set data.name=digits"
        )
    with pytest.raises(
        DataError,
        match=r"tw must be a folder with .* and is not there \(did you mean .*/two\?\): check data.root$",
    ):
        data.prepare(Data(name="imagefolder", root=str(tmp_path / "tw")), tmp_path / "cache")


def test_a_class_without_images_is_a_sentence_and_never_just_left_out(tmp_path):
    section = write_images(tmp_path / "images")
    for split in ("test", "train"):
        (tmp_path / "images" / split / "c").mkdir()
        (tmp_path / "images" / split / "c/0.xyz").write_text("an image of a kind that is not known")
        with pytest.raises(DataError) as caught:
            data.prepare(section, tmp_path / "cache")
        assert str(caught.value) == (
            f"{tmp_path}/images/{split}/c must have images (.jpg, .png, ...), and there are none (but 1 "
            "file: 1 .xyz (0.xyz)): "
            "add some, or remove this folder of a class"
        )
    assert data.find(section, tmp_path / "cache") is None


@pytest.mark.parametrize("split", ["train", "test"])
def test_train_and_test_must_have_the_same_classes(split, tmp_path):
    section = write_images(tmp_path / "images", classes=tuple("abcd"))
    for label in "ac":
        shutil.rmtree(tmp_path / "images" / split / label)
    with pytest.raises(DataError) as caught:
        data.prepare(section, tmp_path / "cache")
    assert str(caught.value) == (
        f"{tmp_path}/images: train/ and test/ must have the same classes, and these are in one of them "
        "only: a, c"
    )


# Prepared once


def test_a_second_time_nothing_is_decoded(tmp_path):
    section = write_images(tmp_path / "images")
    assert data.find(section, tmp_path / "cache") is None
    first = data.prepare(section, tmp_path / "cache")
    for path in (tmp_path / "images").rglob("*.png"):  # same size, same time, no image any more
        known = path.stat()
        path.write_bytes(b"x" * known.st_size)
        os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert data.prepare(section, tmp_path / "cache") == first
    assert data.find(section, tmp_path / "cache") == first == data.read(first.folder)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns + 1))
    with pytest.raises(DataError, match="cannot be decoded"):
        data.prepare(section, tmp_path / "cache")


def test_a_second_time_no_library_of_images_is_imported(tmp_path):
    section = Data(name="digits", image_size=16)
    known = data.prepare(section, tmp_path)
    code = (
        "import json; found = data.prepare(section, cache)\n"
        "data.open_arrays(found.folder)\n"
        "heavy = [name for name in ('torch', 'torchvision', 'sklearn', 'PIL') if name in sys.modules]\n"
        "print(json.dumps([heavy, found.fingerprint]))"
    )
    out, err = child(code, section, tmp_path).communicate()
    assert json.loads(out) == [[], known.fingerprint], err


@pytest.mark.slow  # a new Python
def test_preparing_digits_and_folders_imports_no_torch(tmp_path):
    write_images(tmp_path / "images")
    code = (
        "assert 'torch' not in sys.modules\n"
        "data.prepare(section, cache); data.prepare(Data(name='digits'), cache)\n"
        "data.split(section, data.open_arrays(data.find(section, cache).folder).train_labels, 0)\n"
        "assert 'torch' not in sys.modules"
    )
    process = child(code, Data(name="imagefolder", root=str(tmp_path / "images")), tmp_path / "cache")
    _, err = process.communicate()
    assert process.returncode == 0, err


def test_a_note_whose_data_were_removed_is_no_answer(tmp_path):
    section = write_images(tmp_path / "images")
    first = data.prepare(section, tmp_path / "cache")
    shutil.rmtree(first.folder)
    assert data.find(section, tmp_path / "cache") is None
    assert data.prepare(section, tmp_path / "cache") == first


def test_arrays_are_mapped_and_nothing_that_is_done_to_them_reaches_the_disk(tmp_path):
    folder = data.prepare(write_images(tmp_path / "images"), tmp_path / "cache").folder
    arrays = data.open_arrays(folder)
    assert all(
        isinstance(part, np.memmap)
        for part in (arrays.train_images, arrays.train_labels, arrays.test_images, arrays.test_labels)
    )
    before = arrays.train_images.copy()
    arrays.train_images[:] = 0
    arrays.train_labels[:] = 7
    assert np.array_equal(data.open_arrays(folder).train_images, before)
    assert data.open_arrays(folder).train_labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on the size of files")
@pytest.mark.parametrize(
    "limit", [0, *(pytest.param(limit, marks=pytest.mark.slow) for limit in (50_000, 369_000))]
)
def test_a_process_that_is_killed_in_the_middle_of_writing_leaves_nothing_that_looks_finished(
    limit, tmp_path
):
    # The kernel kills the child at that very byte of a file: 369,280 are the training images.
    code = (
        "import resource, signal\n"
        "from sklearn.datasets import load_digits; load_digits(); signal.signal(signal.SIGXFSZ, "
        "signal.SIG_DFL)\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); resource.setrlimit(resource.RLIMIT_FSIZE, "
        "(int(sys.argv[3]),) * 2)\n"
        "data.prepare(section, cache)"
    )
    section = Data(name="digits", image_size=16)
    process = child(code, section, tmp_path / "cache", limit)
    _, err = process.communicate()
    assert process.returncode == -signal.SIGXFSZ, err
    assert list((tmp_path / "cache").glob("draft-*")), "it was killed before it wrote anything"
    assert not whole(tmp_path / "cache")
    assert data.find(section, tmp_path / "cache") is None
    prepared = data.prepare(section, tmp_path / "cache")
    assert whole(tmp_path / "cache") == [prepared.folder]
    assert not list((tmp_path / "cache").glob("draft-*")), "what the killed process left is cleared away"
    assert prepared.fingerprint == fingerprint(section, tmp_path, "undisturbed")


@pytest.mark.slow  # many kills
def test_a_process_that_is_killed_at_any_moment_leaves_nothing_that_looks_finished(tmp_path):
    section = write_images(tmp_path / "images", per_class=200, size=(64, 64))
    for delay in (0, 0.01, 0.03):
        process = child("data.prepare(section, cache)", section, tmp_path / "cache")
        end = time.monotonic() + 300
        while not (tmp_path / "cache").exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.communicate()
        whole(tmp_path / "cache")
    prepared = data.prepare(section, tmp_path / "cache")
    assert whole(tmp_path / "cache") == [prepared.folder]
    assert prepared.fingerprint == fingerprint(section, tmp_path, "undisturbed")


@pytest.mark.slow  # a new Python
def test_a_disk_that_is_full_is_an_error_and_leaves_no_draft(tmp_path):
    code = (
        "import resource; from sklearn.datasets import load_digits; load_digits()\n"
        # Python ignores the signal, so that writing fails
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "data.prepare(section, cache)"
    )
    process = child(code, Data(name="digits", image_size=16), tmp_path / "cache")
    _, err = process.communicate()
    assert process.returncode == 1
    assert "UnwritableError" in err
    assert "images cannot be decoded to it (File too large): make room there" in err
    assert not whole(tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("draft-*"))


def test_processes_that_prepare_the_same_set_at_once_agree(tmp_path):
    section = write_images(tmp_path / "images", per_class=40)
    children = [
        child("print(data.prepare(section, cache).fingerprint)", section, tmp_path / "cache")
        for _ in range(3)
    ]
    found = [process.communicate() for process in children]
    assert {out.strip() for out, _ in found} == {fingerprint(section, tmp_path)}, found
    assert len(whole(tmp_path / "cache")) == 1
    assert not list((tmp_path / "cache").glob("draft-*"))
