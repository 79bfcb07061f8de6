"""The networks by name, with what is known of each without building one: checks need no torch.

A new one is a row here, and a function in a module of `ablate/training/models`, both of that name.
"""

import difflib
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ablate.messages import near, show
from ablate.recipe.section import Need, Section


@dataclass(frozen=True, slots=True)
class Option:
    """An argument of a network of ablate's own."""

    default: bool | int | str
    allowed: Container[Any]
    words: str  # what is allowed
    about: str  # what it does, and its source
    matters: Callable[[Mapping[str, Any]], bool] = lambda _model: True  # asked of the other fields of a model


def _switch(about: str) -> Option:
    return Option(default=True, allowed=(True, False), words="true or false", about=about)


SHORTCUT = _switch(
    "false takes the shortcuts away: each block is two convolutions and no more (He et al. 2016, "
    "section 4.1: plain networks)."
)
OPTIONS = {
    "cnn4": {
        "first_pool": _switch(
            "false: `block1` keeps the size of the image, and the last map has four times the places."
        ),
        "norm": Option(
            "before", ("before", "after"), "before or after",
            "BatchNorm before the activation (Ioffe and Szegedy 2015, section 3.2) or after it.",
            matters=lambda model: model.get("batch_norm", True),
        ),
    },
    "resnet_small": {
        "depth": Option(2, range(1, 33), "a whole number from 1 to 32",
                        "Residual blocks a stage: 6n + 2 layers (He et al. 2016, section 4.2)."),
        "shortcut": SHORTCUT,
    },
    "resnet9": {"shortcut": SHORTCUT},
}  # fmt: skip
"""By the network that takes them. A network draws its weights as without options, and is changed afterwards:
what both have starts from the same weights."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a network."""

    speed: float | None = None
    """Images a second, trained on one CPU thread at 32x32 in bf16, with crop and flip (2 cores of a Xeon
    with AMX): a guess."""
    no_batch_norm: bool = False  # whether it surely has none
    width: bool = False  # whether `model.width` scales it
    stem: bool = False  # whether `model.stem` chooses its first layers, as of torchvision's residual networks
    weights: str = ""  # the network of torchvision whose pretrained ones it starts from
    drawn: tuple[str, ...] = ()  # layers for which these have none, where that is more than the last one
    dropout: bool = False  # whether it may have some of its own
    side_heads: bool = False  # for training, with which its forward would return a tuple
    sized: str = ""  # the argument of torchvision's function that takes the size of the images
    options: Mapping[str, Option] = field(default_factory=dict)  # arguments of one of ours


BUILT_IN = {
    "baseline_cnn": Facts(3500.0, no_batch_norm=True, width=True),
    "cnn4": Facts(2100.0, width=True, options=OPTIONS["cnn4"]),
    "resnet_small": Facts(1000.0, width=True, options=OPTIONS["resnet_small"]),
    "resnet9": Facts(180.0, width=True, options=OPTIONS["resnet9"]),
    "depthwise_dilated": Facts(400.0, width=True),
    "fusion": Facts(100.0, stem=True, weights="resnet18", drawn=("hidden", "head")),
}

_CLASSIFIERS = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121",
    "densenet161", "densenet169",
    "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3",
    "efficientnet_b4", "efficientnet_b5",
    "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s",
    "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small",
    "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf",
    "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf",
    "regnet_y_800mf",
    "regnet_y_8gf", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50", "resnext101_32x8d",
    "resnext101_64x4d",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "squeezenet1_0",
    "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t", "vgg11", "vgg11_bn",
    "vgg13", "vgg13_bn",
    "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32",
    "wide_resnet101_2",
    "wide_resnet50_2",
)  # fmt: skip
_STEMS, _SIDE_HEADS = ("resnet", "resnext", "wide_resnet"), ("googlenet", "inception_v3")
_SIZED, _SPEED = {"vit": "image_size", "maxvit": "input_size"}, {"resnet18": 100.0}


def _classifier(name: str) -> Facts:
    stem, sized = name.startswith(_STEMS), _SIZED.get(name.split("_", maxsplit=1)[0], "")
    return Facts(
        _SPEED.get(name),
        stem=stem,
        weights=name,
        dropout=not stem,
        side_heads=name in _SIDE_HEADS,
        sized=sized,
    )


TORCHVISION = {name: _classifier(name) for name in _CLASSIFIERS}
"""torchvision's classifiers, as of 0.24 to 0.29."""
NETWORKS = BUILT_IN | TORCHVISION
WITHOUT_BATCH_NORM = frozenset(name for name, facts in NETWORKS.items() if facts.no_batch_norm)
UNKNOWN = Facts(dropout=True)  # the user's own

OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def check(name: str) -> str:
    """Return the name, or raise a ValueError that says which networks there are."""
    if name in BUILT_IN or name in TORCHVISION or OWN.fullmatch(name):
        return name
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):  # no network has a dot in its name
        raise ValueError(f'"{name}" is not a network: your own is written "{":".join(name.rsplit(".", 1))}"')
    close = difflib.get_close_matches(name, [*BUILT_IN, *TORCHVISION], n=1, cutoff=0.5)
    meant = f" (did you mean {close[0]}?)" if close else ""
    others = 'a classifier of torchvision, such as resnet18, or your own "package.module:function"'
    raise ValueError(f'"{name}" is not a network{meant}: take {", ".join(BUILT_IN)}, {others}')


def is_own(name: str) -> bool:
    """Whether a network is the user's own function."""
    return ":" in name


def facts(name: str) -> Facts:
    """Return what is known of a network; of the user's own, next to nothing."""
    return NETWORKS.get(name, UNKNOWN)


def is_certain(model: Any) -> bool:
    """Whether a network that passed all other checks can surely be built: else only building it tells."""
    known = model.name in BUILT_IN or (facts(model.name).stem and not model.options.given)
    return known and model.trainable in ("all", "head")


def may_have_dropout(name: str) -> bool:
    """Whether a network may have dropout of its own; ours and torchvision's residual networks have none."""
    return facts(name).dropout


def has_width(name: str) -> bool:
    """Whether `model.width` scales a network."""
    return facts(name).width


def has_stem(name: str) -> bool:
    """Whether a network is a residual one of torchvision, whose first layers `model.stem` chooses."""
    return facts(name).stem


def has_weights(name: str) -> bool:
    """Whether torchvision has pretrained weights for a network."""
    return bool(facts(name).weights)


def takes(name: str, option: str) -> bool:
    """Whether a network has an argument; of torchvision's and the user's own only building one tells."""
    return name not in BUILT_IN or option in BUILT_IN[name].options


def option(model: Any, name: str) -> Any:
    """Return the value of an argument of a network: as given, or the default; None where none is known."""
    known = facts(model.name).options
    return model.options.given.get(name, known[name].default if name in known else None)


def _parts(given: str | tuple[str, ...]) -> str | tuple[str, ...]:
    parts = (given,) if isinstance(given, str) else tuple(sorted(set(given)))
    parts = tuple(part for part in parts if part != "head") or parts  # the head is always trained
    if "" in parts or ("all" in parts and len(parts) > 1):
        raise ValueError(f"must be all, head, or names of parts, got {', '.join(parts)}")
    return parts[0] if len(parts) == 1 else parts


Parts = Annotated[str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)], AfterValidator(_parts)]


class Options(Section):
    """Arguments of a network, by their names."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int | float | str]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.given:
            if not name.isidentifier():
                raise ValueError(f"{show(name)} cannot be the name of an argument")
        return self

    @property
    def given(self) -> dict[str, bool | int | float | str]:
        """The arguments, by name."""
        return self.__pydantic_extra__

    def __hash__(self) -> int:
        """Return what equal options have in common; pydantic's own leaves out what is not declared."""
        return hash(tuple(sorted(self.given)))


class Model(Section):
    """The network. `batch_norm` and the dropouts are surgery on any network, not variants of one."""

    name: Annotated[str, AfterValidator(check)] = "resnet18"
    """Small ones: `baseline_cnn` (no BatchNorm), `cnn4`, `resnet_small`, `resnet9`, `depthwise_dilated`;
    any classifier of torchvision by its name, such as `resnet18`; `fusion` (layer3 and layer4 of a
    ResNet-18 side by side); your own: `package.module:function`."""
    pretrained: bool = False
    """Start from torchvision's newest ImageNet weights; needs `stem = "imagenet"` where there is a stem."""
    trainable: Parts = "all"
    """`all`; `head`: the last layer alone; or a part, such as `layer4`, or a list of parts: these and the
    head. What is frozen keeps its weights and the statistics of its BatchNorm."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """First layers of a torchvision resnet: 3x3 stride 1 without pooling, for images up to 64 pixels, or
    7x7 stride 2 with pooling."""
    width: float = Field(1.0, gt=0, le=16)
    """Factor on the channels of a small network."""
    batch_norm: bool = True
    """False takes every BatchNorm out and gives the convolutions before them their bias back."""
    conv_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropout after every convolution; 0: none."""
    head_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of dropout before the last linear layer; 0: none."""
    options: Options = Options()
    """Arguments of the network, such as `{ depth = 3 }`; each is a field, `model.options.depth`, and may be a
    factor. Those of the small networks are below; torchvision's and your own take what their functions do."""

    @field_validator("options")
    @classmethod
    def _options(cls, options: Options, info: ValidationInfo) -> Options:
        """Check the options of a network of ours; those that change nothing are left out."""
        name = info.data.get("name")
        if not options.given or name not in BUILT_IN:
            return options
        known, kept = BUILT_IN[name].options, {}
        for option, value in options.given.items():
            _check_option(name, option, value)
            if value != known[option].default and known[option].matters(info.data):
                kept[option] = value
        return Options.model_validate(kept)


def _check_option(network: str, name: str, value: Any) -> None:
    """Raise a ValueError where a network of ours does not take an option, or not with this value."""
    known = BUILT_IN[network].options
    if name not in known:
        takes = f"takes {', '.join(known)}" if known else "takes none"
        raise ValueError(f"model.options.{name}: {network} {takes}{near(name, known)}")
    facts = known[name]
    if type(value) is not type(facts.default) or value not in facts.allowed:
        raise ValueError(f"model.options.{name} of {network} must be {facts.words}, got {show(value)}")


NEEDS = {
    "model.stem": Need(
        lambda recipe: has_stem(recipe.model.name), (("model.name", "of a residual network of torchvision"),)
    ),
    "model.width": Need(
        lambda recipe: has_width(recipe.model.name), (("model.name", "of a small network of ablate's own"),)
    ),
    "evaluation.mc_dropout": Need(
        lambda recipe: (
            recipe.model.conv_dropout > 0
            or recipe.model.head_dropout > 0
            or may_have_dropout(recipe.model.name)
        ),
        (("model.conv_dropout", "above 0"), ("model.head_dropout", "above 0, or a network with dropout")),
    ),
}
