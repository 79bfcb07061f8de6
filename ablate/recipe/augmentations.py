"""The augmentations by name, in the order in which they are applied; `ablate/training/augment` does them.

A new one is a field and a row here, and a file there of the same name.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ablate.recipe.section import Need, Section


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an augmentation."""

    place: Literal[
        "reading", "image", "normalized", "mix"
    ]  # as pixels are read, on floats in [0, 1], where 0 is the mean
    streams: tuple[str, ...]  # the roles of the random streams that it draws from


AUGMENTATIONS = {
    "flip": Facts("reading", ("flip",)),
    "crop": Facts("image", ("crop",)),  # random_crop happens as pixels are read
    "rotation": Facts("image", ("rotation",)),
    "color_jitter": Facts("image", ("color_jitter",)),
    "erasing": Facts("normalized", ("erasing",)),
    "cutout": Facts("normalized", ("cutout",)),
    "mixup": Facts("mix", ("mixup", "coin")),  # the coin chooses between these two
    "cutmix": Facts("mix", ("cutmix", "coin")),
}
"""By the field that switches it on."""


class ColorJitter(Section):
    """How far colours move, each by a uniform draw, in an order drawn for each image, as in torchvision."""

    brightness: float = Field(0.0, ge=0, le=1)
    """The image is scaled by a factor from [1 - brightness, 1 + brightness]."""
    contrast: float = Field(0.0, ge=0, le=1)
    """Its distance from its mean grey is scaled, likewise."""
    saturation: float = Field(0.0, ge=0, le=1)
    """Its distance from its grey image is scaled, likewise."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Its hue is turned by a share of the circle from [-hue, hue]."""


def _something(jitter: ColorJitter | None) -> ColorJitter | None:
    return None if jitter == ColorJitter() else jitter  # nothing moves


class Augment(Section):
    """What happens to a training image, drawn anew each time; in the order of these fields."""

    crop: Literal["none", "random_crop", "random_resized_crop"] = "random_crop"
    """`random_crop` pads and cuts; `random_resized_crop` has area 8..100 %, ratio 3/4..4/3 (Szegedy et al.
    2015, section 6)."""
    padding: int = Field(4, ge=0, le=64)
    """Pixels added a side before `random_crop` (4: He et al. 2016, section 4.2)."""
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    """What the padding of `random_crop` shows: black, or the image mirrored."""
    flip: bool = True
    """Mirror left to right with probability 1/2. Wrong for digits and text."""
    rotation: float = Field(0.0, ge=0, le=180)
    """Degrees: turned about the centre by a uniform draw from [-rotation, rotation], black corners."""
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """How `rotation` reads between pixels; torchvision's RandomRotation is nearest unless told otherwise."""
    color_jitter: Annotated[ColorJitter | None, AfterValidator(_something)] = None
    """Colours moved: `{ brightness = 0.2, contrast = 0.2, saturation = 0.2, hue = 0.05 }`; those left out
    are 0. Grey images have neither saturation nor hue to move."""
    erasing: float = Field(0.0, ge=0, le=1)
    """Probability that a box of 2..33 % of the area, ratio 0.3..3.3, gets the mean colour (Zhong et al.
    2020, section 4.1)."""
    cutout: int = Field(0, ge=0, le=1024)
    """Pixels a side of a square of the mean colour, centred anywhere, cut off at the borders; 0: none
    (DeVries and Taylor 2017)."""
    mixup: float = Field(0.0, ge=0, le=100)
    """alpha: each image and its label are blended with another's, by a share drawn from Beta(alpha,
    alpha); 0: off (Zhang et al. 2018)."""
    cutmix: float = Field(0.0, ge=0, le=100)
    """alpha: a box is taken from another image, its area drawn as the share of `mixup` is; 0: off (Yun et
    al. 2019, section 3.1). With both, each image gets one of them, by a coin."""


CROP = ("augment.crop", '= "random_crop"')
NEEDS = {
    "augment.padding": Need(lambda recipe: recipe.augment.crop == "random_crop", (CROP,)),
    "augment.padding_mode": Need(
        lambda recipe: recipe.augment.crop == "random_crop" and recipe.augment.padding > 0,
        (CROP, ("augment.padding", "above 0")),
    ),
    "augment.interpolation": Need(
        lambda recipe: recipe.augment.rotation > 0, (("augment.rotation", "above 0"),)
    ),
}
