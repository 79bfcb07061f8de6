"""Training of one job, epoch by epoch. The caller owns every file; a session can be put away and taken up at any epoch.

The images stay on the device as uint8, whole batches are augmented there, and the device is read once an epoch.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ablate import recipe as recipes
from ablate.recipe import MeanStd, Recipe
from ablate.training import augment, data, models, optim
from ablate.training.data import Arrays, Prepared

IMAGENET = MeanStd(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # torchvision's reference training
EVALUATION_BATCH = {"cpu": 128, "cuda": 1024}  # small batches stay in a CPU's cache: 128 is 1.2-2.7x faster than 512


@dataclass(frozen=True, slots=True)
class Images:
    """Images (N, H, W, C) uint8 and labels (N,) int64 on the device, and how to scale them."""

    pixels: Tensor
    labels: Tensor
    mean: Tensor  # (1, C, 1, 1)
    std: Tensor

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    def batch(self, chosen: Tensor | slice, steps: tuple[augment.Step, ...] = ()) -> Tensor:
        """Give some images as normalised floats (B, C, H, W), channels last, after the augmentations."""
        x = self.pixels[chosen].permute(0, 3, 1, 2).to(torch.float32).mul_(1 / 255)
        for step in steps:
            x = step(x)
        return ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


@dataclass(slots=True)
class Session:
    """One training under way. Everything that decides its future is in `snapshot`."""

    recipe: Recipe
    device: torch.device
    network: nn.Module
    optimizer: torch.optim.Optimizer
    train: Images
    validation: Images | None
    order: Generator
    streams: dict[str, Generator]
    steps: tuple[augment.Step, ...]
    epoch: int = 0  # finished ones
    best: tuple[float, float] = (-math.inf, -math.inf)  # validation accuracy, then minus its loss
    best_epoch: int = 0
    diverged: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        """Say whether there is nothing left to train."""
        patience = self.recipe.training.early_stopping
        stale = patience is not None and self.epoch - self.best_epoch >= patience
        return self.diverged or stale or self.epoch >= self.recipe.training.epochs


def start(recipe: Recipe, seed: int, prepared: Prepared, arrays: Arrays, device: torch.device) -> Session:
    """Set up a training from its first epoch: data on the device, weights, optimizer, a generator for every role."""
    torch.set_num_threads(recipe.training.threads)
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)  # noqa: FBT003 (torch's own signature)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False  # "fp32" shall mean it; bf16 runs are not touched
    shape = models.Shape(prepared.channels, prepared.image_size, len(prepared.classes))
    network = models.build(recipe.model, shape, seed=recipes.stream_seed(seed, "init"))
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    chosen, held = data.split(recipe.data, arrays.train_labels, seed)
    streams = augment.generators(seed)
    # The global generator is left to dropout alone: every other draw has a generator of its own.
    torch.manual_seed(recipes.stream_seed(seed, "dropout"))
    return Session(
        recipe=recipe,
        device=device,
        network=network,
        optimizer=optim.optimizer(network, recipe.optimizer),
        train=to_device(recipe, prepared, arrays.train_images[chosen], arrays.train_labels[chosen], device),
        validation=to_device(recipe, prepared, arrays.train_images[held], arrays.train_labels[held], device) if len(held) else None,
        order=torch.Generator().manual_seed(recipes.stream_seed(seed, "order")),
        streams=streams,
        steps=augment.compose(recipe.augment, streams),
    )


def to_device(recipe: Recipe, prepared: Prepared, pixels: Any, labels: Any, device: torch.device) -> Images:
    """Put images (N, H, W, C) uint8 and labels (N,) on the device, with the normalisation that the recipe asks for."""
    normalize = recipe.data.normalize
    if normalize == "dataset":
        normalize = MeanStd(mean=prepared.mean, std=prepared.std)
    elif normalize == "imagenet":
        normalize = IMAGENET
    assert isinstance(normalize, MeanStd)
    if len(normalize.mean) not in (1, prepared.channels):
        raise ValueError(f"data.normalize has {len(normalize.mean)} channels, and the images have {prepared.channels}")
    mean, std = (torch.tensor(part, dtype=torch.float32, device=device).view(1, -1, 1, 1) for part in (normalize.mean, normalize.std))
    return Images(torch.from_numpy(pixels).to(device), torch.from_numpy(labels).to(device), mean, std)


def epochs(session: Session) -> Iterator[dict[str, Any]]:
    """Train until the end, yielding a journal line after each epoch: epoch, timestamp in ms, seconds, metrics."""
    while not session.finished:
        began = time.perf_counter()
        metrics = _train_epoch(session)
        session.epoch += 1
        session.diverged = not math.isfinite(metrics["train/loss"])
        if session.validation is not None and not session.diverged:
            loss, accuracy = score(session.network, session.validation, session.recipe)
            metrics |= {"validation/loss": loss, "validation/accuracy": accuracy}
            session.diverged = not math.isfinite(loss)  # the last step may be the one that broke it
            if not session.diverged and (accuracy, -loss) > session.best:
                session.best, session.best_epoch = (accuracy, -loss), session.epoch
        line = {
            "epoch": session.epoch,
            "timestamp": time.time_ns() // 1_000_000,
            "seconds": round(time.perf_counter() - began, 4),
            "metrics": metrics,
        }
        session.history.append(line)
        yield line


def _train_epoch(session: Session) -> dict[str, float]:
    """Train on every image once, in whole batches (the rest is left out, another rest each epoch)."""
    network, training, images = session.network, session.recipe.training, session.train
    network.train()
    size = min(training.batch_size, len(images))
    batches = len(images) // size
    order = torch.randperm(len(images), generator=session.order).to(session.device)
    total = torch.zeros(2, device=session.device)  # loss and right answers: read once, at the end of the epoch
    for i in range(batches):
        _set_lr(session, session.epoch * batches + i, batches * training.epochs)
        chosen = order[i * size : (i + 1) * size]
        labels = images.labels[chosen]
        x = images.batch(chosen, session.steps)  # not under autocast: bf16 is too coarse to say where a pixel comes from
        with autocast(session.recipe, session.device):
            logits = network(x)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=training.label_smoothing)
        session.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip)
        session.optimizer.step()
        total += torch.stack([loss.detach(), (logits.detach().argmax(1) == labels).float().mean()])
    loss_sum, accuracy_sum = total.tolist()
    return {"train/loss": loss_sum / batches, "train/accuracy": accuracy_sum / batches}


def _set_lr(session: Session, step: int, steps: int) -> None:
    factor = optim.lr_factor(session.recipe.schedule, step, steps, session.recipe.training.epochs)
    for group in session.optimizer.param_groups:
        group["lr"] = session.recipe.optimizer.lr * factor


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Give the context in which the network runs: bf16 where the recipe says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.training.precision == "bf16")


def score(network: nn.Module, images: Images, recipe: Recipe) -> tuple[float, float]:
    """Give mean cross-entropy and accuracy of one plain pass over some images."""
    network.eval()
    device, size = images.labels.device, EVALUATION_BATCH[images.labels.device.type]
    total = torch.zeros(2, device=device)
    with torch.inference_mode(), autocast(recipe, device):
        for i in range(0, len(images), size):
            labels = images.labels[i : i + size]
            logits = network(images.batch(slice(i, i + size))).float()
            total += torch.stack([F.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(1) == labels).sum()])
    loss, right = (total / len(images)).tolist()
    return loss, right


def snapshot(session: Session) -> dict[str, Any]:
    """Copy everything that decides the rest of the training: tensors and plain values only (safe to load)."""
    state = {
        "epoch": session.epoch,
        "best": list(session.best),
        "best_epoch": session.best_epoch,
        "diverged": session.diverged,
        "history": session.history,
        "network": session.network.state_dict(),
        "optimizer": session.optimizer.state_dict(),
        "order": session.order.get_state(),
        "streams": {role: generator.get_state() for role, generator in session.streams.items()},
        "dropout": torch.get_rng_state(),
    }
    if session.device.type == "cuda":
        state["dropout_cuda"] = torch.cuda.get_rng_state(session.device)
    return copy.deepcopy(state)


def restore(session: Session, state: dict[str, Any]) -> None:
    """Put a session where `snapshot` was taken."""
    session.epoch, session.best_epoch, session.diverged = state["epoch"], state["best_epoch"], state["diverged"]
    session.best = (state["best"][0], state["best"][1])
    session.history = list(state["history"])
    session.network.load_state_dict(state["network"])
    session.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch would go on in the very tensors of the snapshot
    session.order.set_state(state["order"])
    for role, generator in session.streams.items():
        generator.set_state(state["streams"][role])
    torch.set_rng_state(state["dropout"])
    if session.device.type == "cuda" and "dropout_cuda" in state:
        torch.cuda.set_rng_state(state["dropout_cuda"], session.device)
