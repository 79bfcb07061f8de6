"""The networks by name, and what can be said of them without building one: a study is checked in no time, without torch."""

import difflib
import re
from typing import Any

BUILT_IN = ("baseline_cnn", "cnn4", "resnet_small", "resnet9", "depthwise_dilated", "fusion")
WITHOUT_BATCH_NORM = frozenset({"baseline_cnn"})  # of the built-in ones

TORCHVISION = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121", "densenet161", "densenet169",
    "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5",
    "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
    "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf", "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf",
    "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf",
    "regnet_y_8gf", "resnet101", "resnet152", "resnet18", "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet1_0",
    "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn",
    "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2",
    "wide_resnet50_2",
)  # fmt: skip
"""torchvision's classifiers, as of 0.24 to 0.29."""

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


def is_certain(model: Any) -> bool:
    """Whether a network surely can be built as the recipe asks, which all other checks have seen: else only building it tells."""
    return (model.name in BUILT_IN or has_stem(model.name)) and model.trainable in ("all", "head")


def may_have_dropout(name: str) -> bool:
    """Whether a network may have dropout of its own; the built-in ones and torchvision's residual networks have none."""
    return name not in BUILT_IN and not has_stem(name)


def has_width(name: str) -> bool:
    """Whether `model.width` scales a network."""
    return name in BUILT_IN and name != "fusion"


def has_stem(name: str) -> bool:
    """Whether a network is one of torchvision's residual networks, whose first layers `model.stem` chooses."""
    return name == "fusion" or (name in TORCHVISION and name.startswith(("resnet", "resnext", "wide_resnet")))


def has_weights(name: str) -> bool:
    """Whether torchvision has pretrained weights for a network."""
    return name == "fusion" or name in TORCHVISION
