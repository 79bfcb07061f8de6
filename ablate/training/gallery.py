"""A picture of the test images that a network got wrong, with what they are and what it said."""

import io
import unicodedata

from ablate.training.datasets.decoding import Images
from ablate.training.evaluate import Wrong

COLUMNS, TILE, TEXT = 6, 96, 30
LETTERS = 16  # that fit under an image


def draw(wrong: tuple[Wrong, ...], images: Images, classes: tuple[str, ...]) -> bytes:
    """Draw a PNG of the images (N, H, W, C) uint8, the most confident mistakes first.

    An empty one if there are none.
    """
    from PIL import Image, ImageDraw

    rows = max(1, -(-len(wrong) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * (TILE + 8) + 8, rows * (TILE + TEXT + 8) + 8), "white")
    pen = ImageDraw.Draw(sheet)
    for i, one in enumerate(wrong):
        left, top = 8 + i % COLUMNS * (TILE + 8), 8 + i // COLUMNS * (TILE + TEXT + 8)
        pixels = images[one.index]
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
        sheet.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
        pen.text((left, top + TILE + 2), _short(f"true: {classes[one.label]}"), "black")
        pen.text(
            (left, top + TILE + 15), _short(f"{classes[one.answer]}", f", {one.confidence:.0%}"), "#b00020"
        )
    if not wrong:
        pen.text((8, 8), "every test image was answered rightly", "black")
    held = io.BytesIO()
    sheet.save(held, "PNG")  # optimize=True: 5 % smaller, and 49 ms instead of 11
    return held.getvalue()


def _short(name: str, end: str = "") -> str:
    """Cut a name so that it fits under its image with what stands behind it.

    The font of Pillow has no accents.
    """
    name = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c)).replace(
        "ß", "ss"
    )
    room = LETTERS - len(end)
    return (name if len(name) <= room else f"{name[: room - 1]}…") + end
