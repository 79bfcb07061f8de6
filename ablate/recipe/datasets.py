"""The data sets by name, with what is known before decoding; `ablate/training/datasets` reads them.

A new one is a row here and a function there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ablate.recipe.section import Section


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a data set; nothing of its images where it is a folder of the user's own."""

    source: Literal["torchvision", "scikit-learn", "local"]  # where the images come from
    train: int | None  # images
    test: int | None
    channels: int
    classes: int | None
    package: str = ""  # whose version decides the images; none: they are the same everywhere

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of the user's own."""
        return self.source == "local"


DATASETS = {
    "cifar10": Facts("torchvision", 50_000, 10_000, 3, 10),
    "cifar100": Facts("torchvision", 50_000, 10_000, 3, 100),
    "svhn": Facts("torchvision", 73_257, 26_032, 3, 10),
    "mnist": Facts("torchvision", 60_000, 10_000, 1, 10),
    "fashion_mnist": Facts("torchvision", 60_000, 10_000, 1, 10),
    "digits": Facts("scikit-learn", 1_442, 355, 1, 10, package="scikit-learn"),
    "imagefolder": Facts("local", None, None, 3, None),
}
if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(DATASETS)]


def is_folder(name: str) -> bool:
    """Whether a data set is a folder of the user's own."""
    facts = DATASETS.get(name)  # a store may name one of a later version
    return facts is not None and facts.is_folder


class MeanStd(Section):
    """Per-channel normalisation of images in [0, 1]."""

    mean: tuple[float, ...] = Field(strict=False, min_length=1)
    std: tuple[float, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError("mean and std must have one number a channel, and each std must be above 0")
        return self


def _share_or_count(images: float) -> float:
    if isinstance(images, float) and images >= 1:
        raise ValueError(f"must be a share below 1, or a whole count of images, got {images}")
    return images


class Data(Section):
    """The images, and how they are split.

    A folder of images has `train/<class>/*` and `test/<class>/*`, with sub-folders of a class; `Training/`,
    `test_set/` and the like are taken too. `val/` (`valid/`, `validation/`) is the test set where there is no
    `test/`, and is not used where there is one.

    Images are read as a viewer shows them, as 8-bit RGB: turned upright by their EXIF orientation,
    transparent parts on white, the first frame or page, of grey ones with 9 to 16 bits the upper 8 of their
    range. Colour profiles are not applied. Grey images of 32 bits have no known range and are refused, as is
    what cannot be decoded, by name. A JPEG of more than 178,956,970 pixels is decoded at a lower size,
    another such image is refused. Other files are left out; `plan`, the line after "decoding" and the
    report's provenance count and name them. HEIC is read where the package pillow-heif is installed.
    """

    name: Name = "cifar10"
    """`digits` are 1,797 real handwritten digits that come with scikit-learn; `imagefolder` needs `root`."""
    root: str | None = None
    """Folder of the images or of the downloaded archive; a relative one starts from the study file's
    folder, after `--set` from the current directory. A path: not part of a job's identity."""
    image_size: int = Field(32, ge=16, le=1024)
    """Pixels a side. Other sizes are resized: shorter side, antialiased bilinear, then the centre is cut
    out."""
    train_size: int | None = Field(None, ge=2)
    """Images to train and validate on, a class-balanced draw by each seed; none: all of them."""
    validation: Annotated[int | float, AfterValidator(_share_or_count)] = Field(0.1, ge=0)
    """Part of the training images held out: a share below 1, or a count. Drawn by each seed,
    class-balanced."""
    normalize: Literal["dataset", "imagenet"] | MeanStd = "dataset"
    """Per-channel mean and standard deviation: of the training images (at least 1/255: one grey level), of
    ImageNet, or given as `{ mean, std }`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if is_folder(self.name) and self.root is None:
            raise ValueError(
                "root must name the folder with train/<class>/* and test/<class>/* for an imagefolder: set "
                "data.root"
            )
        return self
