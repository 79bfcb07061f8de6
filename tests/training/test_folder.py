"""Folders of images as people have them: layouts, files that are images, and the messages about the rest."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from ablate.errors import DataError
from ablate.recipe import fields, identity
from ablate.recipe.fields import Data
from ablate.training import data
from ablate.training.datasets import files, folder

PICTURES = iter(range(1_000_000))


def draw(*paths):
    """Write a picture that no other file has."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(next(PICTURES)).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(
            path, None if path.suffix.lower() in Image.registered_extensions() else "PNG"
        )


def images(root, train="train", test="test", classes=("cat", "dog"), others=None):
    """Write three images a class for training, two for testing."""
    for split, labels, count in ((train, classes, 3), (test, others or classes, 2)):
        draw(*(root / split / label / f"{i}.png" for label in labels for i in range(count)))
    return Data(name="imagefolder", root=str(root), image_size=16)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "my images"


def refusal(root):
    with pytest.raises(DataError) as caught:
        folder.survey(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Layouts

UNUSED = "images for validation are drawn from the training images (data.validation)"
LAYOUTS = {
    ("train", "test"): (),
    ("Train", "TEST"): (),
    ("Training", "Testing"): (),
    ("training_set", "test_set"): (),
    ("train", "val"): ("val/ is the test set, as there is no test/",),
    ("train", "valid"): ("valid/ is the test set, as there is no test/",),
    ("train", "Validation"): ("Validation/ is the test set, as there is no test/",),
}


@pytest.mark.parametrize("names", LAYOUTS, ids="-".join)
def test_the_usual_names_of_splits_are_taken_and_what_is_not_by_the_book_is_said(names, root):
    images(root, *names)
    found = folder.survey(root)
    assert (found.train.name, len(found.train.images), found.test.name, len(found.test.images)) == (
        names[0],
        6,
        names[1],
        4,
    )
    assert found.said == LAYOUTS[names]


def test_beside_test_a_folder_for_validation_is_not_used_and_that_is_said(root):
    images(root)
    draw(root / "val/cat/0.png")
    found = folder.survey(root)
    assert (len(found.train.images), len(found.test.images)) == (6, 4)
    assert found.said == (f"val/ is not used: {UNUSED}",)


def test_a_test_set_without_labels_gives_way_to_the_one_for_validation(root):
    images(root, test="val")
    draw(root / "test/0.png")
    assert folder.survey(root).said == ("val/ is the test set, as test/ has no folders of classes",)


@pytest.mark.skipif(os.path.normcase("A") == "a", reason="needs a disk that tells upper case from lower")
def test_the_exact_name_comes_first(root):
    images(root)
    draw(root / "Train/cat/x.png", root / "Test/cat/x.png")
    found = folder.survey(root)
    assert (len(found.train.images), len(found.test.images)) == (6, 4)
    assert found.said == ("Train/ is not used: train/ is", "Test/ is not used: test/ is")


MISPLACED = {
    "only train": (("train/a/0.png", "train/b/0.png"), "", ("{root} has train/ and must have test/ too, "
                                                           "with the same classes")),
    "no splits": (("a/0.png", "b/x/0.png"), "", ("and has folders of images without them (a, b): move those "
                                                "into train/")),
    "one below": (("set/train/a/0.png",), "", "they are one level below: set data.root to {root}/set"),
    "one above": (("train/a/0.png", "test/a/0.png"), "train", ("they are one level above: set data.root to "
                                                              "{root}")),
    "near": (("images/train/a/0.png",), "image", ("{root}/image must be a folder with train/<class>/* and "
                                                 "test/<class>/*")),
    "nearest": (("images/train/a/0.png",), "image", "(did you mean {root}/images?): check data.root"),
    "case": (("Images/train/a/0.png",), "images", "(did you mean {root}/Images?)"),
    "far": (("sets/pets/train/a/0.png",), "set/pets", "(did you mean {root}/sets/pets?)"),
    "file": (("images.png",), "images.png", ("must be a folder with train/<class>/* and test/<class>/*, and "
                                            "is a file: unpack it")),
}  # fmt: skip


@pytest.mark.parametrize("case", MISPLACED)
def test_a_folder_that_is_elsewhere_is_found_and_named(case, root):
    files, below, sentence = MISPLACED[case]
    draw(*(root / name for name in files))
    if case in ("case",) and (root / "images").exists():
        pytest.skip("this disk does not tell upper case from lower")
    assert sentence.format(root=root) in refusal(root / below)


@pytest.mark.parametrize("root", ["~nobody_has_that_name/x", "a\0b"])
def test_a_root_that_cannot_be_a_path_is_a_sentence(root, tmp_path):
    section = Data(name="imagefolder", root=root, image_size=16)
    assert data.find(section, tmp_path) is None
    with pytest.raises(DataError, match=r"^data\.root must be a folder, and .* cannot be one: "):
        data.prepare(section, tmp_path)


# Classes


def test_one_class_is_none_and_the_classes_one_level_deeper_are_seen(root):
    images(root, classes=("pictures",))
    assert refusal(root) == (
        f"{root}/train must have at least two classes, each a folder, and has one, pictures: add the "
        "folder of another class, "
        "or check data.root"
    )
    draw(root / "train/pictures/cat/0.png", root / "train/pictures/dog/0.png")
    assert refusal(root).endswith("; its own folders (cat, dog) look like classes: move them up")


@pytest.fixture
def latin(root):
    """Return a name in Latin-1, where the disk takes it."""
    name = os.fsdecode(b"caf\xe9")
    try:
        draw(root / name)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this disk has names in UTF-8 only")
    (root / name).unlink()
    return name


def test_a_class_whose_name_is_not_utf8_is_refused_before_anything_is_trained(root, latin):
    images(root, classes=("cat", latin))
    assert (
        refusal(root)
        == f"{root}/train/caf\\xe9 is a class and must have a name in UTF-8, and has not: rename it"
    )


def test_a_file_whose_name_is_not_utf8_is_an_image_and_can_be_named(root, latin, tmp_path):
    section = images(root)
    draw(root / f"train/cat/{latin}.png")
    (root / f"train/cat/{latin}.txt").write_text("x")
    prepared = data.prepare(section, tmp_path / "cache")
    assert (prepared.train, prepared.decoding) == (7, ("left out 1 file: 1 .txt (train/cat/caf\\xe9.txt)",))
    assert data.find(section, tmp_path / "cache") == prepared
    (root / f"train/cat/{latin}.png").write_text("x")
    with pytest.raises(DataError, match=r"caf\\xe9\.png: cannot identify"):
        data.prepare(section, tmp_path / "cache")


COMPOSED, APART = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_one_name_in_two_forms_of_unicode_is_one_class(root):
    images(root, classes=("bar", COMPOSED), others=("bar", APART))
    if unicodedata.normalize("NFC", APART) != COMPOSED or not (root / "test" / APART).exists():
        pytest.skip("this disk normalises names")
    found = folder.survey(root)
    assert found.classes == ("bar", COMPOSED)
    assert [label for label, _ in found.test.images] == ["bar", "bar", COMPOSED, COMPOSED]


def test_two_classes_that_read_the_same_are_refused(root):
    images(root, classes=("bar", COMPOSED, APART))
    if len(list((root / "train").iterdir())) == 2:
        pytest.skip("this disk normalises names")
    assert f"{root}/train must have one folder a class, and has two that both read caf" in refusal(root)


def test_classes_that_differ_in_case_are_two_in_one_split_and_a_mistake_between_splits(root, tmp_path):
    images(root, classes=("A", "a", "b"))
    if len(list((root / "train").iterdir())) == 2:
        pytest.skip("this disk does not tell upper case from lower")
    assert folder.survey(root).said == ("A and a are different classes, and differ in case only",)
    images(tmp_path / "other", classes=("Cat", "dog"), others=("cat", "dog"))
    assert refusal(tmp_path / "other").endswith(
        "in one of them only: Cat, cat (Cat and cat differ in case: name them alike)"
    )


# Files


@pytest.mark.parametrize(
    "suffix",
    [".gif", ".jfif", ".JPEG", ".jpe", ".tif", ".TIFF", ".apng", ".PNG", ".dib", ".pbm", ".jp2", ".tga"],
)
def test_images_of_all_endings_are_used(suffix, root, tmp_path):
    section = images(root)
    draw(root / f"train/cat/more{suffix}")
    prepared = data.prepare(section, tmp_path / "cache")
    assert (prepared.train, prepared.decoding) == (7, ())


def test_images_in_sub_folders_are_used_and_links_are_followed_but_not_back(root, tmp_path):
    images(root)
    draw(root / "train/cat/kitchen/top/1.png", root / "train/cat/x.png/0.png", tmp_path / "elsewhere/2.png")
    (root / "train/dog/more").symlink_to(tmp_path / "elsewhere")
    before = folder.survey(root)
    assert len(before.train.images) == 9
    assert before.said == ()
    (root / "train/cat/up").symlink_to("..")
    (root / "train/dog/all").symlink_to(root)
    after = folder.survey(root)
    assert after.train == before.train
    assert after.said == ("left out 2 files: 2 linked back (train/cat/up)",)


def test_what_is_no_image_is_counted_and_named_in_one_line(root, tmp_path):
    section = images(root)
    before = data.prepare(section, tmp_path / "cache")
    for name in ("Thumbs.db", ".DS_Store", "._0.png", "a.txt", "b.txt", "README"):
        (root / "train/cat" / name).write_text("x")
    draw(
        root / "train/cat/@eaDir/0.png/small.jpg",
        root / "train/__MACOSX/0.png",
        root / "test/dog/.ipynb_checkpoints/0.png",
        root / "train/loose.png",
    )
    os.mkfifo(root / "train/cat/pipe.png")  # reading it would never end
    (root / "train/cat/linked pipe.png").symlink_to(root / "train/cat/pipe.png")
    after = data.prepare(section, tmp_path / "another cache")
    assert after.fingerprint == before.fingerprint
    (line,) = after.decoding
    assert line == (
        "left out 12 files: 5 hidden (test/dog/.ipynb_checkpoints), 2 .txt (train/cat/a.txt), 2 not a file "
        "(train/cat/linked pipe.png), "
        "1 .db (train/cat/Thumbs.db), 1 in no folder of a class (train/loose.png), 1 without an ending "
        "(train/cat/README)"
    )
    assert json.loads((after.folder / "meta.json").read_text())["decoding"] == [line]


def test_an_image_of_a_kind_that_needs_another_package_says_which(root, monkeypatch):
    images(root)
    (root / "train/cat/photo.HEIC").write_text("x")
    monkeypatch.setattr(files, "readable", lambda: frozenset(files.SUFFIXES))
    assert folder.survey(root).said == (
        "left out 1 file: 1 .heic (train/cat/photo.HEIC); Pillow reads HEIC where pillow-heif is installed",
    )


# Stores that an older version has written


def older_note(section, cache, prepared):
    """Note a decoded set as versions did that knew neither sub-folders nor orientation, written out."""
    root, listing = folder.Path(section.root), []
    for split in ("train", "test"):
        for label in sorted(path for path in (root / split).iterdir() if path.is_dir()):
            files = sorted(path for path in label.iterdir() if path.suffix.lower() in {".png", ".jpg"})
            listing += [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    for path in (cache / "index").iterdir():
        path.unlink()
    key = identity.digest([section.name, str(root), section.image_size, listing])
    (cache / "index" / f"{key}.json").write_text(json.dumps({"fingerprint": prepared.fingerprint}))
    meta = json.loads((prepared.folder / "meta.json").read_text())
    del meta["decoding"]
    (prepared.folder / "meta.json").write_text(json.dumps(meta))


def test_images_that_are_read_as_before_keep_their_fingerprint_and_are_decoded_once_more(root, tmp_path):
    section, cache = images(root), tmp_path / "cache"
    first = data.prepare(section, cache)
    older_note(section, cache, first)
    assert data.find(section, cache) == first, "its results are still there"
    assert data.find(section, cache, older=False) is None
    assert data.prepare(section, cache) == first
    assert data.find(section, cache, older=False) == first


def test_images_that_were_read_otherwise_are_another_data_set(root, tmp_path):
    section, cache = images(root), tmp_path / "cache"
    first = data.prepare(section, cache)
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(root / "train/cat/0.png") as image:
        image.save(root / "train/cat/0.png", exif=exif)  # for an older version the same pixels
    older_note(section, cache, first)
    assert data.find(section, cache) == first
    now = data.prepare(section, cache)
    assert now.fingerprint != first.fingerprint
    assert now.decoding == ("1 image turned upright by EXIF orientation",)
    assert data.find(section, cache) == now


# A channel without variation


def channels(root, blue):
    for split in ("train", "test"):
        for i, label in enumerate(("a", "b")):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
            pixels[:, :, 2] = blue
            Image.fromarray(pixels).save(root / split / label / "0.png")
    return Data(name="imagefolder", root=str(root), image_size=16)


def test_a_channel_without_variation_is_divided_by_one_grey_level_and_that_is_said(root, tmp_path):
    section = channels(root, 77)
    prepared = data.prepare(section, tmp_path / "cache")
    assert prepared.std[2] == 1 / 255
    assert prepared.std[0] > 0.2
    assert data.warnings(section, prepared) == [
        "warning: blue of imagefolder hardly varies, by less than one grey level, and is divided by one"
    ]
    whole = data.open_arrays(prepared.folder)
    assert np.abs((whole.train_images / 255 - prepared.mean) / prepared.std).max() < 3
    assert data.warnings(section.model_copy(update={"normalize": "imagenet"}), prepared) == []


def test_a_normalisation_in_bytes_is_doubted(root, tmp_path):
    section = images(root)
    prepared = data.prepare(section, tmp_path / "cache")
    assert data.warnings(section, prepared) == []
    bytewise = section.model_copy(update={"normalize": fields.MeanStd(mean=(125.0,), std=(60.0,))})
    assert data.warnings(bytewise, prepared) == [
        "warning: data.normalize has 125, and images are in [0, 1]: divide mean and std by 255?"
    ]
