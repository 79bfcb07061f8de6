"""One training run: its fields with their defaults, its canonical form, its identity and its random streams.

Everything that can change a result is a field here, and nothing else is: device, workers, paths, labels and the study's
name are outside by construction. Defaults exist once, in this file.
"""

from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator
from pydantic.fields import FieldInfo

from ablate.recipe import networks


class Section(BaseModel):
    """One table of a recipe: frozen, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _none(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        empty = {name: None for name, info in cls.model_fields.items() if given.get(name) == "none" and is_optional(info)}
        return given | empty


def is_optional(info: FieldInfo) -> bool:
    """Whether a field may be `"none"`: TOML has no null, so the word stands for it."""
    return get_origin(info.annotation) in (Union, UnionType) and type(None) in get_args(info.annotation)


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

    A folder of images has `train/<class>/*` and `test/<class>/*`, with sub-folders of a class; `Training/`, `test_set/` and the like
    are taken too. `val/` (`valid/`, `validation/`) is the test set where there is no `test/`, and is not used where there is one.

    Images are read as a viewer shows them, as 8-bit RGB: turned upright by their EXIF orientation, transparent parts on white, the
    first frame or page, of grey ones with 9 to 16 bits the upper 8 of their range. Colour profiles are not applied. Grey images of 32
    bits have no known range and are refused, as is what cannot be decoded, by name. A JPEG of more than 178,956,970 pixels is decoded
    at a lower size, another such image is refused. Other files are left out; `plan`, the line after "decoding" and the report's
    provenance count and name them. HEIC is read where the package pillow-heif is installed.
    """

    name: Literal["cifar10", "cifar100", "svhn", "mnist", "fashion_mnist", "digits", "imagefolder"] = "cifar10"
    """`digits` are 1,797 real handwritten digits that come with scikit-learn; `imagefolder` needs `root`."""
    root: str | None = None
    """Folder of the images or of the downloaded archive; a relative one starts from the study file's folder, after `--set` from the
    current directory. A path: not part of a job's identity."""
    image_size: int = Field(32, ge=16, le=1024)
    """Pixels a side. Other sizes are resized: shorter side, antialiased bilinear, then the centre is cut out."""
    train_size: int | None = Field(None, ge=2)
    """Images to train and validate on, a class-balanced draw by each seed; none: all of them."""
    validation: Annotated[int | float, AfterValidator(_share_or_count)] = Field(0.1, ge=0)
    """Part of the training images held out: a share below 1, or a count. Drawn by each seed, class-balanced."""
    normalize: Literal["dataset", "imagenet"] | MeanStd = "dataset"
    """Per-channel mean and standard deviation: of the training images (at least 1/255: one grey level), of ImageNet, or given as
    `{ mean, std }`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name == "imagefolder" and self.root is None:
            raise ValueError("root must name the folder with train/<class>/* and test/<class>/* for an imagefolder: set data.root")
        return self


class ColorJitter(Section):
    """How far colours move, each by a uniform draw, in an order drawn for each image, as torchvision's ColorJitter does."""

    brightness: float = Field(0.0, ge=0, le=1)
    """The image is scaled by a factor from [1 - brightness, 1 + brightness]."""
    contrast: float = Field(0.0, ge=0, le=1)
    """Its distance from its mean grey is scaled, likewise."""
    saturation: float = Field(0.0, ge=0, le=1)
    """Its distance from its grey image is scaled, likewise."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Its hue is turned by a share of the circle from [-hue, hue]."""


def _something(given: ColorJitter | None) -> ColorJitter | None:
    return None if given == ColorJitter() else given  # nothing moves


class Augment(Section):
    """What happens to a training image, drawn anew each time; in the order of these fields."""

    crop: Literal["none", "random_crop", "random_resized_crop"] = "random_crop"
    """`random_crop` pads and cuts; `random_resized_crop` has area 8..100 %, ratio 3/4..4/3 (Szegedy et al. 2015, section 6)."""
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
    """Colours moved: `{ brightness = 0.2, contrast = 0.2, saturation = 0.2, hue = 0.05 }`; those left out are 0. Grey
    images have neither saturation nor hue to move."""
    erasing: float = Field(0.0, ge=0, le=1)
    """Probability that a box of 2..33 % of the area, ratio 0.3..3.3, gets the mean colour (Zhong et al. 2020, section 4.1)."""
    cutout: int = Field(0, ge=0, le=1024)
    """Pixels a side of a square of the mean colour, centred anywhere, cut off at the borders; 0: none (DeVries and Taylor 2017)."""
    mixup: float = Field(0.0, ge=0, le=100)
    """alpha: each image and its label are blended with another's, by a share drawn from Beta(alpha, alpha); 0: off (Zhang et al. 2018)."""
    cutmix: float = Field(0.0, ge=0, le=100)
    """alpha: a box is taken from another image, its area drawn as the share of `mixup` is; 0: off (Yun et al. 2019, section 3.1).
    With both, each image gets one of them, by a coin."""


def _parts(given: str | tuple[str, ...]) -> str | tuple[str, ...]:
    parts = (given,) if isinstance(given, str) else tuple(sorted(set(given)))
    parts = tuple(part for part in parts if part != "head") or parts  # the head is always trained
    if "" in parts or ("all" in parts and len(parts) > 1):
        raise ValueError(f"must be all, head, or names of parts, got {', '.join(parts)}")
    return parts[0] if len(parts) == 1 else parts


Parts = Annotated[str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)], AfterValidator(_parts)]


class Model(Section):
    """The network. `batch_norm` and the dropouts are surgery on any network, not variants of one."""

    name: Annotated[str, AfterValidator(networks.check)] = "resnet18"
    """Small ones: `baseline_cnn` (no BatchNorm), `cnn4`, `resnet_small`, `resnet9`, `depthwise_dilated`; any classifier of torchvision by
    its name, such as `resnet18`; `fusion` (layer3 and layer4 of a ResNet-18 side by side); your own: `package.module:function`."""
    pretrained: bool = False
    """Start from torchvision's newest ImageNet weights; needs `stem = "imagenet"` where there is a stem."""
    trainable: Parts = "all"
    """`all`; `head`: the last layer alone; or a part, such as `layer4`, or a list of parts: these and the head. What is frozen keeps
    its weights and the statistics of its BatchNorm."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """First layers of a torchvision resnet: 3x3 stride 1 without pooling, for images up to 64 pixels, or 7x7 stride 2 with pooling."""
    width: float = Field(1.0, gt=0, le=16)
    """Factor on the channels of a small network."""
    batch_norm: bool = True
    """False takes every BatchNorm out and gives the convolutions before them their bias back."""
    conv_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropout after every convolution; 0: none."""
    head_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropout before the last linear layer; 0: none."""


DEFAULT_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}
"""Customary rates: SGD of He et al. 2016, section 4.2; Adam of Kingma and Ba 2015, section 2."""


class Optimizer(Section):
    """How the weights are updated."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(gt=0, le=100)
    """Peak learning rate. Left out: 0.1 for sgd, 0.001 for adam and adamw. In a study, `"find"`: what a range test of the cell suggests."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of sgd."""
    weight_decay: float = Field(5e-4, ge=0, le=1)
    """On every parameter: an L2 gradient for sgd and adam, decoupled for adamw (Loshchilov and Hutter 2019)."""
    nesterov: bool = True
    """Of sgd with momentum (Sutskever et al. 2013, section 2)."""

    @model_validator(mode="wrap")
    @classmethod
    def _default_lr(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in the rate of the optimizer where none is given; then `lr` is not among the fields that are set, see `with_fields`."""
        name = given.get("name", "sgd") if isinstance(given, dict) and "lr" not in given else None
        if name not in DEFAULT_LR:
            return handler(given)
        made = handler({**given, "lr": DEFAULT_LR[name]})
        made.model_fields_set.discard("lr")
        return made


class Schedule(Section):
    """The learning rate over the training, as a share of `optimizer.lr`, set before every step."""

    name: Literal["constant", "step", "cosine", "one_cycle"] = "one_cycle"
    """`one_cycle`: up from 1/25 and down to 1/250,000, both by a cosine (Smith and Topin 2018; torch's OneCycleLR)."""
    warmup: float = Field(0.2, ge=0, lt=1)
    """Share of the training in which `one_cycle` rises."""
    step_epochs: int = Field(10, ge=1)
    """Epochs between two drops of `step`."""
    gamma: float = Field(0.1, gt=0, le=1)
    """Factor of each drop of `step`."""


class Training(Section):
    """The loop."""

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(128, ge=2)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Szegedy et al. 2016, section 7."""
    early_stopping: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better validation accuracy; none: never."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest L2 norm of the whole gradient; none: not clipped."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 is autocast with fp32 weights. `auto` is settled before a job gets its identity: bf16 where the hardware has it."""
    threads: int = Field(1, ge=1, le=256)
    """CPU threads of a job. It changes the order of sums, hence the last bits, hence it is part of the identity."""
    compile: bool = False
    """torch.compile of the training step: half a minute before the first one (`time/compile_seconds`), 0.9-1.2x the speed on a CPU."""


class Evaluation(Section):
    """How a trained model is judged. Cells that differ only here share one training."""

    select: Literal["last", "best_validation"] = "last"
    """The weights that are judged: after the last epoch, or of the epoch with the best validation accuracy."""
    mc_dropout: int = Field(0, ge=0, le=1000)
    """Passes with dropout left on whose probabilities are averaged (Gal and Ghahramani 2016); 0: one usual pass."""
    tta: Literal["none", "flip"] = "none"
    """Test-time augmentation: `flip` averages the probabilities of each image and its mirror image."""


class Recipe(Section):
    """Everything that decides the numbers of one training run but its seed."""

    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    optimizer: Optimizer = Optimizer.model_validate({})
    schedule: Schedule = Schedule()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for needs, name in (
            (self.evaluation.select == "best_validation", 'evaluation.select = "best_validation"'),
            (self.training.early_stopping is not None, "training.early_stopping"),
        ):
            if needs and self.data.validation == 0:
                raise ValueError(f"{name} needs validation images, and data.validation is 0: set data.validation, such as 0.1")
        augment = self.augment
        if augment.crop == "random_crop" and augment.padding_mode == "reflect" and augment.padding >= self.data.image_size:
            size = self.data.image_size
            raise ValueError(f"augment.padding must be below data.image_size to be mirrored, got {augment.padding} and {size}")
        model = self.model
        if model.pretrained and not networks.has_weights(model.name):
            raise ValueError(f"model.pretrained needs a network of torchvision or fusion, and there are no weights of {model.name}")
        if model.pretrained and networks.has_stem(model.name) and model.stem != "imagenet":
            raise ValueError('model.pretrained needs model.stem = "imagenet": the weights are of those first layers')
        if not model.batch_norm and model.name in networks.WITHOUT_BATCH_NORM:
            raise ValueError(f"model.batch_norm = false has nothing to remove: {model.name} has no BatchNorm")
        return self


ACTIVE: dict[str, Callable[[Recipe], bool]] = {
    "augment.padding": lambda r: r.augment.crop == "random_crop",
    "augment.padding_mode": lambda r: r.augment.crop == "random_crop" and r.augment.padding > 0,
    "augment.interpolation": lambda r: r.augment.rotation > 0,
    "model.stem": lambda r: networks.has_stem(r.model.name),
    "model.width": lambda r: networks.has_width(r.model.name),
    "optimizer.momentum": lambda r: r.optimizer.name == "sgd",
    "optimizer.nesterov": lambda r: r.optimizer.name == "sgd" and r.optimizer.momentum > 0,
    "schedule.warmup": lambda r: r.schedule.name == "one_cycle",
    "schedule.step_epochs": lambda r: r.schedule.name == "step",
    "schedule.gamma": lambda r: r.schedule.name == "step",
    "evaluation.mc_dropout": lambda r: r.model.conv_dropout > 0 or r.model.head_dropout > 0 or networks.may_have_dropout(r.model.name),
}
"""Fields that only matter beside others. Where one does not, it is no part of the identity, and no factor of the cell."""


BELONGS: dict[str, tuple[tuple[str, str], ...]] = {
    "augment.padding": (("augment.crop", '= "random_crop"'),),
    "augment.padding_mode": (("augment.crop", '= "random_crop"'), ("augment.padding", "above 0")),
    "augment.interpolation": (("augment.rotation", "above 0"),),
    "model.stem": (("model.name", "of a residual network of torchvision"),),
    "model.width": (("model.name", "of a small network of ablate's own"),),
    "optimizer.momentum": (("optimizer.name", '= "sgd"'),),
    "optimizer.nesterov": (("optimizer.name", '= "sgd"'), ("optimizer.momentum", "above 0")),
    "schedule.warmup": (("schedule.name", '= "one_cycle"'),),
    "schedule.step_epochs": (("schedule.name", '= "step"'),),
    "schedule.gamma": (("schedule.name", '= "step"'),),
    "evaluation.mc_dropout": (("model.conv_dropout", "above 0"), ("model.head_dropout", "above 0, or a network with dropout")),
}
"""What `ACTIVE` asks of other fields, in words."""


def fields() -> dict[str, FieldInfo]:
    """List every field by its dotted path, such as `augment.crop`, in the order of the file."""
    return {
        f"{section}.{name}": info for section, part in Recipe.model_fields.items() for name, info in section_type(part).model_fields.items()
    }


def short(path: str) -> str:
    """Return what a field is called where one can tell: `rotation`; the section of a name, which a name alone does not tell."""
    section, last = path.split(".")
    return section if last == "name" else last


def section_type(info: FieldInfo) -> type[Section]:
    """Return the class of one section of a recipe."""
    assert isinstance(info.annotation, type)
    assert issubclass(info.annotation, Section)
    return info.annotation


def value(recipe: Recipe, path: str) -> Any:
    """Read a field by its dotted path."""
    section, name = path.split(".")
    return getattr(getattr(recipe, section), name)


def is_active(recipe: Recipe, path: str) -> bool:
    """Whether a field can change this recipe's result at all."""
    return path not in ACTIVE or ACTIVE[path](recipe)
