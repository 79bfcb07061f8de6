"""Pictures to ask about are read as the images of a folder are to train on, pixel for pixel."""

import numpy as np
import pytest
from pictures import noise
from PIL import Image

from ablate.errors import DataError
from ablate.recipe.fields import Data
from ablate.training import data
from ablate.training.datasets import pictures


def save(folder):
    """Write pictures of every kind that is not read by the book; return their paths."""
    folder.mkdir(parents=True)
    wide = Image.fromarray(noise(0, 30, 47, 3))
    turned = Image.Exif()
    turned[0x0112] = 6
    wide.save(folder / "a turned.jpg", exif=turned, quality=90)
    Image.fromarray(noise(1, 40, 30, 4)).save(folder / "b transparent.png")
    Image.fromarray(noise(2, 30, 30).astype(np.uint16) << 8).save(folder / "c sixteen bits.png")
    wide.convert("P").save(folder / "d palette.gif")
    wide.convert("L").save(folder / "e grey.bmp")
    return sorted(folder.iterdir())


def test_pixels_and_remarks_are_those_of_the_training(tmp_path):
    files = save(tmp_path / "set/train/x")
    save(tmp_path / "set/train/y")
    for name in "xy":
        save(tmp_path / "set/test" / name)
    prepared = data.prepare(
        Data(name="imagefolder", root=str(tmp_path / "set"), image_size=24), tmp_path / "cache"
    )
    trained = data.open_arrays(prepared.folder).train_images[: len(files)]
    read = pictures.read(files, 24, 3)
    assert [picture.error for picture in read] == [""] * len(files)
    assert np.array_equal(np.stack([picture.pixels for picture in read]), trained)
    assert [len(picture.remarks) for picture in read] == [1, 1, 0, 0, 0]


def test_a_network_of_grey_images_gets_the_brightness(tmp_path):
    *_, grey = save(tmp_path / "x")
    (picture,) = pictures.read([grey], 24, 1)
    (colour,) = pictures.read([grey], 24, 3)
    assert picture.pixels.shape == (24, 24, 1)
    assert np.array_equal(picture.pixels.repeat(3, 2), colour.pixels)


def test_folders_are_opened_in_the_order_of_their_names_and_files_are_taken_at_their_word(tmp_path):
    files = save(tmp_path / "x")
    odd = tmp_path / "odd"
    odd.write_bytes(files[0].read_bytes())
    (tmp_path / "x/.hidden.png").touch()
    meant, left = pictures.files_of([odd, tmp_path / "x", files[2]])
    assert meant == (odd, *files)
    assert left == f"left out of {tmp_path / 'x'}: 1 file: 1 hidden (.hidden.png)"
    assert pictures.read([odd], 16, 3)[0].error == ""


def test_what_cannot_be_read_says_why(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "text.png").write_text("hello")
    read = pictures.read([tmp_path / name for name in ("none.png", "link", "text.png")], 16, 3)
    assert [picture.pixels for picture in read] == [None] * 3
    assert [picture.error for picture in read][:2] == [
        "there is no such file", "it is a link to a file that is not there",
    ]  # fmt: skip
    assert "cannot identify image file" in read[2].error


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"must be an image or a folder of images, and has none$"):
        pictures.files_of([tmp_path])
