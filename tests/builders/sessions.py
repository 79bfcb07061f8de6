"""Short trainings of a small network, the bits that they leave, and what they read from the device."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ablate.recipe.fields import Recipe
from ablate.training import data, loop

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def make(**changes):
    """Return the recipe of a short training; changes are sections, merged into it."""
    fields = {
        "data": {"name": "digits", "image_size": 16, "train_size": 120, "validation": 20},
        "augment": {"crop": "random_crop", "padding": 2, "flip": True},
        "model": {"name": "cnn4", "width": 0.25},
        "optimizer": {"lr": 0.05},
        "training": {"epochs": 3, "batch_size": 32, "precision": "fp32"},
    }
    for section, values in changes.items():
        fields[section] = fields.get(section, {}) | values
    return Recipe.model_validate(fields)


JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}
EVERYTHING = {
    "augment": {
        "crop": "random_resized_crop",
        "rotation": 15.0,
        "color_jitter": JITTER,
        "erasing": 0.5,
        "cutout": 4,
        "mixup": 0.5,
        "cutmix": 1.0,
    },
    "model": {"conv_dropout": 0.1, "head_dropout": 0.2},
    "training": {"label_smoothing": 0.1, "gradient_clip": 1.0, "early_stopping": 3, "epochs": 4},
}


def start(recipe, prepared, seed=0):
    return loop.start(recipe, seed, prepared, data.open_arrays(prepared.folder), CPU)


def on_gpu(recipe, prepared, memory=None):
    return loop.start(recipe, 0, prepared, data.open_arrays(prepared.folder), CUDA, memory=memory)


def end(session):
    """Train to the end; return the session."""
    for _ in loop.epochs(session):
        pass
    return session


def train(recipe, prepared, seed=0):
    return end(start(recipe, prepared, seed))


def without_times(history):
    return [{"epoch": line["epoch"], "metrics": line["metrics"]} for line in history]


def fingerprint(state):
    """Hash any nest of tensors and plain values by their bits."""
    whole = hashlib.sha256()

    def add(part):
        if isinstance(part, torch.Tensor):
            bits = part.detach().cpu().contiguous().view(-1).view(torch.uint8)
            whole.update(f"{part.dtype}{tuple(part.shape)}".encode() + bits.numpy().tobytes())
        elif isinstance(part, dict):
            for key, value in part.items():
                whole.update(repr(key).encode())
                add(value)
        elif isinstance(part, list | tuple):
            whole.update(b"[")
            for value in part:
                add(value)
        else:
            whole.update(repr(part).encode())

    add(state)
    return whole.hexdigest()


def outcome(session):
    """Return the bits of all that a training leaves: weights, metrics, optimizer, best epoch, generators."""
    state = loop.snapshot(session)
    return fingerprint(state | {"history": without_times(state["history"])})


# What is trained twice, and put away and taken up at each of its epochs.
TRAININGS: dict[str, dict[str, dict[str, object]]] = {
    "plain": {"augment": {"crop": "none", "flip": False}},
    "crop, flip": {},
    "everything": EVERYTHING,
    "everything in bf16": EVERYTHING | {"training": EVERYTHING["training"] | {"precision": "bf16"}},
    "stopping early": {
        "optimizer": {"lr": 0.5},
        "training": {"early_stopping": 2, "epochs": 8},
        "augment": {"rotation": 15.0},
    },
    "adam": {"optimizer": {"name": "adam", "lr": 0.003}, "model": {"conv_dropout": 0.2}},
    "adamw, step": {
        "optimizer": {"name": "adamw", "lr": 0.003},
        "schedule": {"name": "step", "step_epochs": 1},
    },
    "cosine, no batch norm": {"schedule": {"name": "cosine"}, "model": {"batch_norm": False}},
    "no validation": {"data": {"validation": 0}, "augment": {"rotation": 30.0, "padding_mode": "reflect"}},
    "sgd without momentum": {"optimizer": {"momentum": 0.0, "lr": 0.05}, "schedule": {"name": "constant"}},
    "diverging": {
        "optimizer": {"lr": 100.0},
        "model": {"batch_norm": False},
        "schedule": {"name": "constant"},
        "training": {"batch_size": 10},
    },
}
# The child trains these after other jobs; the parent trains each first.
IN_CHILD = ["everything", "everything in bf16", "adam"]


def is_drawing():
    """Whether random parameters are being drawn or sorted, which is on the CPU whatever the device."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name.startswith(("sample_", "_sort_by_hue", "_without_colour")):
            return True
        frame = frame.f_back
    return False


class Reads(TorchFunctionMode):
    """Count the calls that wait for the device and bring its numbers to Python."""

    NAMES = (
        "item",
        "tolist",
        "numpy",
        "cpu",
        "equal",
        "nonzero",
        "is_nonzero",
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "__array__",
    )

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func.__name__ in self.NAMES and not is_drawing():
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Scalars(TorchDispatchMode):
    """Count the same where torch does it itself."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.equal.default,
        )
        if func in waits and not is_drawing():
            self.seen.append(func)
        return func(*args, **(kwargs or {}))


def numbered(number, size=16):
    """Make images that say which they are: every pixel of image i is i."""
    pixels = np.broadcast_to(
        np.arange(number, dtype=np.uint8)[:, None, None, None], (number, size, size, 1)
    ).copy()
    labels = np.arange(number, dtype=np.int64) % 2
    prepared = data.Prepared(Path(), "", ("even", "odd"), number, number, 1, size, (0.0,), (1.0,))
    return prepared, data.Arrays(pixels, labels, pixels, labels)
