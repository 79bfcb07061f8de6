"""One image file at a time: what a viewer shows is what is trained on, and what is not read is said."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from ablate.errors import DataError
from ablate.recipe.fields import Data
from ablate.training import data
from ablate.training.datasets import decoding

RED, GREEN, BLUE, GREY, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90), (255, 255, 255)
FOUR = Image.fromarray(
    np.kron(np.array([[RED, GREEN], [BLUE, GREY]], np.uint8), np.ones((8, 8, 1), np.uint8))
)
TURNS = Image.Transpose
STORED = {  # by orientation tag: how an upright picture is stored
    1: None, 2: TURNS.FLIP_LEFT_RIGHT, 3: TURNS.ROTATE_180, 4: TURNS.FLIP_TOP_BOTTOM,
    5: TURNS.TRANSPOSE, 6: TURNS.ROTATE_90, 7: TURNS.TRANSVERSE, 8: TURNS.ROTATE_270,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet():
    """Read as a whole folder is read: what Pillow warns of stops nothing."""
    with decoding.quiet():
        yield


def written(path, image, kind, **options):
    image.save(path, kind, **options)
    return path


def quarters(pixels):
    """Return the mean colours of the four quarters."""
    return [
        tuple(pixels[i : i + 8, j : j + 8].reshape(-1, 3).mean(0).round().astype(int).tolist())
        for i in (0, 8)
        for j in (0, 8)
    ]


def near(found, expected, by=0):
    return np.abs(np.array(found) - np.array(expected)).max() <= by


# Orientation


def oriented(path, tag, kind, **options):
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = tag
    return written(
        path, FOUR if STORED.get(tag) is None else FOUR.transpose(STORED[tag]), kind, exif=exif, **options
    )


KINDS = {
    "JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {},
    "packed TIFF": {"compression": "tiff_lzw"}, "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tag", STORED)
def test_a_picture_is_upright_however_it_was_stored(kind, tag, tmp_path):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write it")
    path = oriented(tmp_path / "x", tag, kind.rpartition(" ")[2], **KINDS[kind])
    pixels, marks = decoding.read(path, 16)
    assert near(quarters(pixels), [RED, GREEN, BLUE, GREY], by=3)
    if "TIFF" not in kind:  # which Pillow turns, and always has
        assert marks == ((decoding.TURNED,) if tag > 1 else ())


def test_a_photo_that_is_not_square_is_cut_after_it_was_turned(tmp_path):
    upright = Image.new("RGB", (16, 40), BLUE)
    upright.paste(RED, (0, 0, 16, 12))
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    pixels, _ = decoding.read(
        written(tmp_path / "x.png", upright.transpose(TURNS.ROTATE_90), "PNG", exif=exif), 16
    )
    assert quarters(pixels) == [BLUE] * 4


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", "nine"], ids=str
)
def test_spoilt_metadata_turn_nothing_and_stop_nothing(exif, tmp_path):
    if exif == "nine":
        exif = Image.Exif()
        exif[decoding.ORIENTATION] = 9
    path = written(tmp_path / "x.jpg", FOUR, "JPEG", exif=exif, quality=95, subsampling=0)
    pixels, marks = decoding.read(path, 16)
    assert near(quarters(pixels), [RED, GREEN, BLUE, GREY], by=3)
    assert marks == ()


# What lies under transparent pixels

ALPHA = np.dstack([np.asarray(FOUR), np.kron([[0, 255], [255, 255]], np.ones((8, 8))).astype(np.uint8)])
INDEXED = FOUR.quantize(4)
FIRST = INDEXED.getpixel((0, 0))
TRANSPARENT = {
    "RGBA.png": (Image.fromarray(ALPHA), {}),
    "RGBA.webp": (Image.fromarray(ALPHA), {"lossless": True, "exact": True}),
    "RGBA.tiff": (Image.fromarray(ALPHA), {}),
    "RGBA.tga": (Image.fromarray(ALPHA), {}),
    "one index.png": (INDEXED, {"transparency": FIRST}),
    "one index.gif": (INDEXED, {"transparency": FIRST}),
    "a table.png": (INDEXED, {"transparency": bytes(0 if i == FIRST else 255 for i in range(4))}),
    "one colour.png": (FOUR, {"transparency": RED}),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_what_nobody_can_see_is_white(name, tmp_path):
    image, options = TRANSPARENT[name]
    path = written(tmp_path / name, image, name.rpartition(".")[2].upper(), **options)
    pixels, marks = decoding.read(path, 16)
    assert quarters(pixels) == [WHITE, GREEN, BLUE, GREY]
    assert marks == (decoding.ON_WHITE,)


def test_what_shows_through_is_mixed_with_white_and_grey_has_alpha_too(tmp_path):
    half = written(tmp_path / "half.png", Image.new("RGBA", (16, 16), (200, 100, 0, 51)), "PNG")
    assert quarters(decoding.read(half, 16)[0]) == [(244, 224, 204)] * 4
    grey = written(tmp_path / "grey.png", Image.new("LA", (16, 16), (0, 51)), "PNG")
    assert quarters(decoding.read(grey, 16)[0]) == [(204, 204, 204)] * 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_picture_that_could_be_transparent_and_is_not_is_as_it_was(mode, tmp_path):
    image = INDEXED if mode == "P" else FOUR.convert(mode)
    pixels, marks = decoding.read(
        written(tmp_path / "x.png", image, "PNG", **({"transparency": 255} if mode == "P" else {})), 16
    )
    assert np.array_equal(pixels, np.asarray(image.convert("RGB")))
    assert marks == ()


def test_a_bitmap_whose_fourth_byte_was_never_set_is_not_empty(tmp_path):
    image = Image.fromarray(np.dstack([np.asarray(FOUR), np.zeros((16, 16), np.uint8)]))
    pixels, marks = decoding.read(written(tmp_path / "x.bmp", image, "BMP"), 16)
    assert (quarters(pixels), marks) == ([RED, GREEN, BLUE, GREY], ())


def png(depth, colour, row, key):
    """Return a PNG of 16 equal rows, with one transparent colour: Pillow cannot write all of them."""

    def chunk(name, content):
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head, rows = struct.pack(">IIBBBBB", 16, 16, depth, colour, 0, 0, 0), zlib.compress((b"\0" + row) * 16)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"tRNS", key)
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


KEYED = {  # left half, right half; the left one is the key
    "1 bit": (png(1, 0, b"\x00\xff", b"\0\0"), 255),
    "2 bits": (png(2, 0, b"\xff\xff\x55\x55", b"\0\3"), 85),
    "4 bits": (png(4, 0, b"\xff" * 4 + b"\x11" * 4, b"\0\x0f"), 17),
    "8 bits": (png(8, 0, b"\x05" * 8 + b"\x06" * 8, b"\0\5"), 6),
    "16 bits": (png(16, 0, struct.pack(">16H", *[1000] * 8, *[40_000] * 8), struct.pack(">H", 1000)), 156),
    "colour of 16 bits": (
        png(16, 2, struct.pack(">48H", *[1000] * 24, *[40_000] * 24), struct.pack(">3H", *[1000] * 3)),
        156,
    ),
}


@pytest.mark.parametrize("name", KEYED)
def test_a_transparent_colour_is_found_in_files_of_any_depth(name, tmp_path):
    content, right = KEYED[name]
    (tmp_path / "x.png").write_bytes(content)
    pixels, marks = decoding.read(tmp_path / "x.png", 16)
    assert quarters(pixels) == [WHITE, (right,) * 3] * 2
    assert marks == (decoding.ON_WHITE,)


# Grey of more than 8 bits

DEEP = np.kron([[20_000, 60_000]], np.ones((16, 8))).astype(np.uint16)


def twelve_bits():
    """Make a TIFF of 12 bits a pixel, two in three bytes: Pillow cannot write one."""
    row = bytes([2500 >> 4, (2500 & 15) << 4 | 1250 >> 8, 1250 & 255]) * 8
    fields = [
        (256, 16),
        (257, 16),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 16),
        (279, 16 * len(row)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + 16 * len(row))
        + row * 16
        + struct.pack("<H", len(fields))
        + directory
        + bytes(4)
    )


def bytes_of(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


GREYS = {
    "PNG": bytes_of(Image.fromarray(DEEP), "PNG"),
    "TIFF": bytes_of(Image.fromarray(DEEP), "TIFF"),
    "packed TIFF": bytes_of(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
    "big-endian TIFF": bytes_of(Image.frombytes("I;16B", (16, 16), DEEP.astype(">u2").tobytes()), "TIFF"),
    "TIFF of which 0 is white": bytes_of(Image.fromarray(65_535 - DEEP), "TIFF", tiffinfo={262: 0}),
    "PGM": bytes_of(Image.fromarray(DEEP), "PPM"),
    "JPEG 2000": bytes_of(Image.fromarray(DEEP), "JPEG2000"),
}


@pytest.mark.parametrize("name", GREYS)
def test_grey_of_sixteen_bits_keeps_its_upper_eight_in_any_file(name, tmp_path):
    (tmp_path / "x").write_bytes(GREYS[name])
    pixels, marks = decoding.read(tmp_path / "x", 16)
    assert quarters(pixels) == [(78,) * 3, (234,) * 3] * 2
    assert marks == ()


def test_grey_of_twelve_bits_has_the_range_of_twelve_bits(tmp_path):
    (tmp_path / "x").write_bytes(twelve_bits())
    pixels, _ = decoding.read(tmp_path / "x", 16)
    assert pixels[0, :2, 0].tolist() == [2500 >> 4, 1250 >> 4]


def test_twelve_bits_that_were_saved_as_sixteen_are_said_to_be_nearly_black(tmp_path):
    path = written(tmp_path / "x.png", Image.fromarray(DEEP // 16), "PNG")
    assert decoding.read(path, 16)[1] == (decoding.NEARLY_BLACK,)


# Other colours, several pictures in one file


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_spaces_of_colour_become_rgb(mode, tmp_path):
    image = FOUR.convert(mode) if mode != "LAB" else None
    if image is None:
        image = ImageCms.profileToProfile(
            FOUR, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    pixels, _ = decoding.read(written(tmp_path / "x.tiff", image, "TIFF"), 16)
    assert near(quarters(pixels), [RED, GREEN, BLUE, GREY], by=25)  # no colour of ink or Lab is that pure


MANY = {
    "GIF": ({"duration": 50}, decoding.ANIMATION),
    "WEBP": ({"lossless": True}, decoding.ANIMATION),
    "PNG": ({}, decoding.ANIMATION),
    "TIFF": ({}, decoding.PAGES),
    "MPO": ({"quality": 95, "subsampling": 0}, None),
}


@pytest.mark.parametrize("kind", MANY)
def test_of_several_pictures_the_first_is_taken_and_that_is_said(kind, tmp_path):
    options, mark = MANY[kind]
    path = written(
        tmp_path / "x",
        FOUR,
        kind,
        save_all=True,
        append_images=[Image.new("RGB", (16, 16), WHITE)],
        **options,
    )
    pixels, marks = decoding.read(path, 16)
    assert near(quarters(pixels), [RED, GREEN, BLUE, GREY], by=3)
    assert marks == ((mark,) if mark else ())


# Large images, and those that cannot be read


def test_a_jpeg_beyond_the_limit_is_decoded_smaller_and_any_other_file_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "LARGEST", 10_000)
    large = FOUR.resize((400, 200), Image.Resampling.NEAREST).crop((100, 0, 300, 200))
    path = written(tmp_path / "x.jpg", large, "JPEG", quality=95, subsampling=0)
    pixels, marks = decoding.read(path, 16)
    assert near(quarters(pixels), [RED, GREEN, BLUE, GREY], by=12)
    assert marks == (decoding.REDUCED,)
    for name, kind, options in (("x.png", "PNG", {}), ("y.jpg", "JPEG", {"progressive": True})):
        with pytest.raises(
            ValueError, match=r"^it has 200 x 200 pixels, and at most 10,000 are decoded: make it smaller$"
        ):
            decoding.read(written(tmp_path / name, large, kind, **options), 16)


def test_an_image_that_pillow_takes_for_a_bomb_is_a_sentence(tmp_path):
    with (tmp_path / "x.png").open("wb") as file:
        Image.new("1", (14_000, 13_000)).save(file, "PNG")
    with pytest.raises(ValueError, match="it has 14,000 x 13,000 pixels, and at most"):
        decoding.read(tmp_path / "x.png", 16)


def test_a_thread_of_pixels_is_cut_before_it_is_enlarged(tmp_path):
    path = written(
        tmp_path / "x.png", Image.new("RGB", (60_000, 1), (9, 8, 7)), "PNG"
    )  # 60,000 x 1,024 times as large: 200 GB
    pixels, _ = decoding.read(path, 1024)
    assert pixels.shape == (1024, 1024, 3)
    assert (pixels == (9, 8, 7)).all()


def test_threads_share_the_room_in_memory_and_give_it_back(tmp_path):
    for pixels in (1, 2**22, 2**40):  # also one that would need more than there is
        with decoding._held(pixels):
            pass
    taken = 0
    while decoding._room.acquire(blocking=False):
        taken += 1
    decoding._room.release(taken)
    assert taken == decoding.ROOM


def test_pillow_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)
    with decoding.quiet():
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS == 7


UNREADABLE = {
    "empty.jpg": (b"", "the file is empty"),
    "page.png": (b"<html>404</html>", "cannot identify image file"),
    "half.gif": (bytes_of(INDEXED, "GIF")[:-60], "truncated"),
    "half.tif": (bytes_of(FOUR, "TIFF")[:400], "truncated"),
    "float.tif": (
        bytes_of(Image.fromarray(np.zeros((16, 16), np.float32)), "TIFF"),
        "32 bits and no known range",
    ),
    "signed.tif": (
        bytes_of(Image.fromarray(DEEP), "TIFF", tiffinfo={339: 2}),
        "16 bits with a sign and no known range",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_said_with_its_reason(name, tmp_path):
    content, reason = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        decoding.read(tmp_path / name, 16)


def test_a_link_that_leads_nowhere_is_named_and_no_crash(tmp_path):
    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            written(tmp_path / "images" / split / label / "0.png", FOUR, "PNG")
    (tmp_path / "images/train/a/1.png").symlink_to(tmp_path / "gone.png")
    section = Data(name="imagefolder", root=str(tmp_path / "images"), image_size=16)
    assert data.find(section, tmp_path / "cache") is None
    with pytest.raises(
        DataError,
        match=r"replace or remove them\n  .*/train/a/1\.png: it is a link to a file that is not there",
    ):
        data.prepare(section, tmp_path / "cache")
