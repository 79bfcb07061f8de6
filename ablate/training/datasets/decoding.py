"""Image files as square 8-bit pixels, as a person sees them: upright, nothing hidden, the first frame."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Images = NDArray[np.uint8]  # (N, H, W, C), or one image (H, W, C)
Labels = NDArray[np.int64]  # (N,)
Split = tuple[Images, Labels]

VERSION = 2
"""Raised whenever files are read in another way: folders of images are then decoded again, once."""

LARGEST = 2 * (1024**3 // 4 // 3)  # pixels: what Pillow refuses beyond, as the picture takes 0.5 GB
ROOM = 192  # megapixels that are in memory at a time, over all threads
ORIENTATION = 0x0112  # the EXIF tag
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # of TIFF
DARK = 4096  # of the 65,536 levels of 16 bits: below, only 16 of 256 are left
ANIMATED = {"GIF", "PNG", "WEBP", "AVIF"}

TURNED, ON_WHITE, ANIMATION, PAGES, NEARLY_BLACK, REDUCED = MARKS = (
    "turned upright by EXIF orientation",
    "with transparent parts put on white",
    "animated, of which the first frame is taken",
    "of several pages, of which the first is taken",
    (
        f"of 16 bits and nearly black, as no pixel reaches {DARK:,} of 65,535 (to be stretched before, if "
        "that is wrong)"
    ),
    "too large to be decoded at full size, and read at a lower one",
)
"""Remarks on how a file was read."""

_gate, _room = threading.Lock(), threading.BoundedSemaphore(ROOM)


@contextmanager
def quiet() -> Iterator[None]:
    """Let Pillow open images of any size without a warning: `read` checks their size itself.

    For the thread that starts the others.
    """
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    _register_heif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _register_heif() -> None:
    """Let Pillow read HEIC where the package for that is installed; it is no dependency."""
    if find_spec("pillow_heif") is not None:
        import_module("pillow_heif").register_heif_opener()


def read(path: Path, size: int) -> tuple[Images, tuple[str, ...]]:
    """Return an image as RGB (size, size, 3), and remarks on how it was read, some of MARKS.

    Raises a ValueError that says why it cannot be read.
    """
    from PIL import Image

    if path.is_symlink() and not path.exists():
        raise ValueError("it is a link to a file that is not there")
    try:
        with Image.open(path) as image:
            marks = _shrink(image, size)
            with _held(image.width * image.height):
                raw = (
                    str(image.tile[0].args) if image.tile else ""
                )  # how the file has its pixels, which loading forgets
                image.load()
                pixels, more = _to_rgb(image, raw)
                turned = _orientation(image)
                if turned is not None:
                    pixels = pixels.transpose(turned)
                    more += (TURNED,)
                return fit(np.asarray(pixels), size), marks + more + _frames(image)
    except Exception as error:  # noqa: BLE001 (of files that are spoilt, Pillow and its decoders raise nearly everything)
        is_empty = path.is_file() and path.stat().st_size == 0
        raise ValueError(
            "the file is empty" if is_empty else str(error).strip() or type(error).__name__
        ) from None


def shorter_side(path: Path) -> int:
    """Return the shorter side of a picture in pixels, 0 where it cannot be told; nothing is decoded."""
    from PIL import Image

    try:
        with quiet(), Image.open(path) as image:
            return min(image.size)
    except Exception:  # noqa: BLE001 (as when it is read)
        return 0


@contextmanager
def _held(pixels: int) -> Iterator[None]:
    """Wait until there is room in memory for so many pixels."""
    count = min(ROOM, 1 + (pixels >> 20))
    with _gate:  # one at a time takes its parts, so that no two wait for each other
        for _ in range(count):
            _room.acquire()
    try:
        yield
    finally:
        _room.release(count)


def _shrink(image: "Image", size: int) -> tuple[str, ...]:
    """Have a JPEG that is too large decoded at a lower size, which takes less memory.

    Refuse any other one.
    """
    if image.width * image.height <= LARGEST:
        return ()
    shown = f"{image.width:,} x {image.height:,} pixels"
    if image.format in ("JPEG", "MPO") and "progressive" not in image.info:
        image.draft("RGB", (size, size))
        if image.width * image.height <= LARGEST:
            return (REDUCED,)
    raise ValueError(f"it has {shown}, and at most {LARGEST:,} are decoded: make it smaller")


def _to_rgb(image: "Image", raw: str) -> "tuple[Image, tuple[str, ...]]":
    """Return what is seen of a picture as RGB."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey, marks = _eight_bits(image)
        alpha = _key_mask(image, raw)
        return (
            _on_white(Image.merge("RGBA", [grey] * 3 + [alpha]), grey, marks)
            if alpha
            else (grey.convert("RGB"), marks)
        )
    if image.mode in ("L", "RGB", "1") and "transparency" in image.info:
        alpha = _key_mask(image, raw)
        del image.info[
            "transparency"
        ]  # Pillow compares it with the converted pixels, wrongly where the file has not 8 bits
        plain = image.convert("RGB")
        return _on_white(Image.merge("RGBA", [*plain.split(), alpha]), plain, ()) if alpha else (plain, ())
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        whole = image.convert("LA") if image.mode == "La" else image
        return _on_white(
            whole.convert("RGBA"), image if image.mode in ("RGBA", "LA", "P", "PA") else whole, ()
        )
    return image.convert("RGB"), ()


def _on_white(rgba: "Image", plain: "Image", marks: tuple[str, ...]) -> "tuple[Image, tuple[str, ...]]":
    """Return a picture on white where it is transparent; `plain` is the same without its transparency."""
    from PIL import Image

    lowest, highest = rgba.getchannel("A").getextrema()
    if lowest == 255 or (
        highest == 0 and plain.format == "BMP"
    ):  # such BMPs have not set their fourth byte: nobody sees them empty
        return plain.convert("RGB"), marks
    background = Image.new("RGBA", rgba.size, "white")
    background.alpha_composite(rgba)
    return background.convert("RGB"), (*marks, ON_WHITE)


def _key_mask(image: "Image", raw: str) -> "Image | None":
    """Return the alpha of a picture in which one colour stands for transparent (PNG's tRNS).

    None where it has no such colour.

    The colour is as the file has it; pixels of 2 or 4 bits are spread over 8 by now, and of colours of 16
    bits 8 are left.
    """
    from PIL import Image

    key = image.info.get("transparency")
    if key is None or isinstance(key, bytes):
        return None
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    wanted = np.atleast_1d(np.asarray(key, np.int64))
    if raw == "RGB;16B":
        wanted = wanted >> 8
    elif raw in ("L;2", "L;4"):
        wanted = wanted * (85 if raw == "L;2" else 17)
    same = pixels == wanted if pixels.ndim == 2 else (pixels == wanted).all(-1)
    return Image.fromarray(np.where(same, 0, 255).astype(np.uint8))


def _eight_bits(image: "Image") -> "tuple[Image, tuple[str, ...]]":
    """Return a grey picture of more than 8 bits as L.

    Pillow's own conversion cuts off at 255, which leaves white.
    """
    from PIL import Image

    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        (bits, *_) = getattr(image, "tag_v2", {}).get(BITS, (32,))
        have = f"{bits} bits" if bits > 16 else f"{bits} bits with a sign"
        raise ValueError(f"its pixels have {have} and no known range, save it with 8 or 16")
    values = np.asarray(image).astype(np.int64)  # of PNG, PGM and JPEG 2000, from 0 to 65,535
    bits = 16
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        (bits, *_) = tags.get(BITS, (16,))
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            values = 2**bits - 1 - values
    dark = (NEARLY_BLACK,) if bits == 16 and values.max() < DARK else ()
    return Image.fromarray((values >> (bits - 8)).clip(0, 255).astype(np.uint8)), dark


def _orientation(image: "Image") -> Any:
    """Return how a loaded picture must be turned to be upright, or none. Pillow has turned a TIFF already."""
    from PIL import Image

    try:
        tag = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 (spoilt metadata are no reason not to show the picture)
        return None
    turns = Image.Transpose
    ways = {
        2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE,
        6: turns.ROTATE_270, 7: turns.TRANSVERSE, 8: turns.ROTATE_90,
    }  # fmt: skip
    return ways.get(tag) if isinstance(tag, int) else None


def _frames(image: "Image") -> tuple[str, ...]:
    """Return the message that a file has more than what was read."""
    try:
        several = getattr(image, "is_animated", False)
    except Exception:  # noqa: BLE001 (what comes after the first frame is spoilt)
        return ()
    if not several:
        return ()
    return (ANIMATION,) if image.format in ANIMATED else (PAGES,) if image.format == "TIFF" else ()


def fit(image: Images, size: int) -> Images:
    """Return an image (H, W) or (H, W, C) as a square: shorter side to `size`, antialiased, centre cut."""
    if image.shape[:2] != (size, size):
        from PIL import Image

        height, width = image.shape[:2]
        scale = size / min(height, width)
        to = max(size, round(width * scale)), max(size, round(height * scale))
        if to[0] * to[1] > LARGEST:  # a thread of pixels: cut before it is made larger than the memory
            side = min(height, width)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box))
        resized = Image.fromarray(image).resize(to, Image.Resampling.BILINEAR)
        top, left = (resized.height - size) // 2, (resized.width - size) // 2
        image = np.asarray(resized)[top : top + size, left : left + size]
    return image if image.ndim == 3 else image[:, :, None]
