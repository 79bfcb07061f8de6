"""A picture of the test images that a network got wrong, with their classes and its answers."""

import io
import unicodedata

from ablate.training.datasets.decoding import Images
from ablate.training.evaluate import Wrong

COLUMNS, TILE, TEXT = 6, 96, 30
LETTERS = 16  # that fit under an image


def draw(wrong: tuple[Wrong, ...], images: Images, classes: tuple[str, ...]) -> bytes:
    """Return a PNG of mistakes among the images (N, H, W, C) uint8, the most confident ones first."""
    from PIL import Image, ImageDraw

    rows = max(1, -(-len(wrong) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * (TILE + 8) + 8, rows * (TILE + TEXT + 8) + 8), "white")
    pen = ImageDraw.Draw(sheet)
    for i, mistake in enumerate(wrong):
        left, top = 8 + i % COLUMNS * (TILE + 8), 8 + i // COLUMNS * (TILE + TEXT + 8)
        pixels = images[mistake.index]
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
        sheet.paste(picture.resize((TILE, TILE), Image.Resampling.NEAREST), (left, top))
        pen.text((left, top + TILE + 2), _short(f"true: {classes[mistake.label]}"), "black")
        pen.text(
            (left, top + TILE + 15),
            _short(f"{classes[mistake.answer]}", f", {mistake.confidence:.0%}"),
            "#b00020",
        )
    if not wrong:
        pen.text((8, 8), "every test image was answered rightly", "black")
    png = io.BytesIO()
    sheet.save(png, "PNG")  # optimize=True: 5 % smaller, and 49 ms instead of 11
    return png.getvalue()


def _short(name: str, end: str = "") -> str:
    """Return a name cut to fit under its image together with `end`; the font of Pillow has no accents."""
    name = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    name = name.replace("ß", "ss")
    room = LETTERS - len(end)
    return (name if len(name) <= room else f"{name[: room - 1]}…") + end
