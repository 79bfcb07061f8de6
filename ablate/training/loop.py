"""Training of one job, epoch by epoch. The caller owns every file.

A session can be saved and resumed after any epoch. The images stay on the device as uint8, whole batches are
augmented there, and the device is read once an epoch.
"""

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ablate.recipe import identity, networks, rates
from ablate.recipe.fields import Recipe
from ablate.training import data, graph, images, layout, models, optim, surgery
from ablate.training.augment import Augmentation, compose
from ablate.training.augment.streams import generators
from ablate.training.data import Arrays, Prepared
from ablate.training.images import Batch, Images

EVALUATION_BATCH = {
    "cpu": 128,
    "cuda": 1024,
}  # small batches stay in a CPU's cache: 128 is 1.2-2.7x faster than 512
EVALUATION_SIDE, LEAST_EVALUATED = 64, 16  # pixels of the largest images of which a GPU gets so many at once


@dataclass(slots=True)
class Session:
    """One training under way. Everything that decides its future is in `snapshot`."""

    recipe: Recipe
    device: torch.device
    network: nn.Module
    forward: Callable[
        [Tensor], Tensor
    ]  # the network, or what torch.compile made of it; for training steps only
    optimizer: torch.optim.Optimizer
    train: Images
    validation: Images | None
    order: Generator
    streams: dict[str, Generator]
    augmentation: Augmentation
    epoch: int = 0  # finished ones
    best: tuple[float, float] = (-math.inf, -math.inf)  # what is monitored, then the other; minus the loss
    best_epoch: int = 0
    diverged: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)
    alive: Callable[[], None] = lambda: (
        None
    )  # called for every batch, so that somebody can see that it does not stand still
    shares_device: bool = False  # with other jobs: what it does not need between two epochs is theirs
    replay: graph.Step | None = None  # a step as a graph, once it is captured

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        patience = self.recipe.training.early_stopping
        stale = patience is not None and self.epoch - self.best_epoch >= patience
        return self.diverged or stale or self.epoch >= self.recipe.training.epochs


def settle(recipe: Recipe, device: torch.device) -> None:
    """Set this process to compute as the recipe says, whatever it did before, or a user's network in it."""
    torch.set_num_threads(recipe.training.threads)
    # "fp32" shall mean it, on a CPU as well; bf16 runs are not touched. All three: torch's newer settings and
    # its older ones do not undo each other, and a variable of some containers is above the last one.
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]  # a property of the module
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    if device.type == "cuda":
        repeat_exactly(is_own=networks.is_own(recipe.model.name))


def repeat_exactly(*, is_own: bool) -> None:
    """Let a GPU compute the same bits each time; `is_own`: a network that a user wrote."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # noqa: FBT003 (torch's own signature)
    # Else every new tensor is filled with NaN, so that reading it before it is written shows: 12-15 % of the
    # time of others' trainings, and the same bits.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    # torch warns of this in each backward pass, but adds up by atomics only where windows overlap. Those of
    # our networks, and torchvision's, are one window; of a user's own nobody knows.
    overlap = "adaptive_max_pool2d_backward_cuda does not have a deterministic implementation"
    warnings.filterwarnings("default" if is_own else "ignore", overlap)


def start(
    recipe: Recipe,
    seed: int,
    prepared: Prepared,
    arrays: Arrays,
    device: torch.device,
    *,
    memory: int | None = None,
    split: int | None = None,
) -> Session:
    """Set up a training from its first epoch: images, weights, optimizer, a generator for every role.

    `memory`: the bytes that images may take on the device, see `images.place`; it changes no number. `split`:
    the seed that splits the images, if it is not this one.
    """
    settle(recipe, device)
    shape = models.Shape(prepared.channels, prepared.image_size, len(prepared.classes))
    network = models.build(recipe.model, shape, seed=identity.stream_seed(seed, "init"))
    settle(recipe, device)  # again: it was built by code that may be a user's own
    network = layout.place(network, recipe.model, shape, recipe.training.precision, device)
    chosen, held = data.split(recipe.data, arrays.train_labels, seed if split is None else split)
    train = images.for_training(recipe, prepared, arrays, chosen, device, memory=memory)
    validation = (
        images.for_training(recipe, prepared, arrays, held, device, memory=memory) if len(held) else None
    )
    streams = generators(seed)
    # The global generator is left to dropout alone: every other draw has a generator of its own.
    torch.manual_seed(identity.stream_seed(seed, "dropout"))
    optimizer = optim.optimizer(network, recipe.optimizer)
    if recipe.training.compile == "graph":
        optim.make_capturable(optimizer, device)
    return Session(
        recipe=recipe,
        device=device,
        network=network,
        forward=_compiled(network) if recipe.training.compile is True else network,
        optimizer=optimizer,
        train=train,
        validation=validation,
        order=torch.Generator().manual_seed(identity.stream_seed(seed, "order")),
        streams=streams,
        augmentation=compose(recipe.augment, streams),
    )


def epochs(session: Session) -> Iterator[dict[str, Any]]:
    """Train to the end; yield a journal line after each epoch: epoch, timestamp in ms, seconds, metrics."""
    compiling = (
        {"time/compile_seconds": compile_step(session)}
        if session.recipe.training.compile and not session.finished
        else {}
    )
    began = time.perf_counter()
    while not session.finished:
        metrics = _train_epoch(session) | compiling
        compiling = {}
        session.epoch += 1
        session.diverged = not math.isfinite(metrics["train/loss"])
        if session.validation is not None and not session.diverged:
            loss, accuracy = score(session.network, session.validation, session.recipe, session.alive)
            if session.shares_device:
                torch.cuda.empty_cache()  # its batches are larger than those of a training
            metrics |= {"validation/loss": loss, "validation/accuracy": accuracy}
            session.diverged = not math.isfinite(loss)  # the last step may be the one that broke it
            by_loss = session.recipe.training.monitor == "loss"
            worth = (-loss, accuracy) if by_loss else (accuracy, -loss)
            if not session.diverged and worth > session.best:
                session.best, session.best_epoch = worth, session.epoch
        line = {
            "epoch": session.epoch,
            "timestamp": time.time_ns() // 1_000_000,
            "seconds": round(time.perf_counter() - began, 4),
            "metrics": metrics,
        }
        began = time.perf_counter()  # what the caller does with this epoch is of the next one's time
        session.history.append(line)
        yield line


def _compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a network that torch compiles at its first call, without graphs of earlier jobs.

    Else a graph of a network with the same layers is taken for this one: torch does not look at hooks, and
    dropout is one.
    """
    torch.compiler.reset()
    compiled: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=False)
    return compiled


def compile_step(session: Session) -> float:
    """Let torch.compile work, or a graph be captured, in steps that leave no trace; return the seconds.

    Evaluation, with its smaller batches, runs uncompiled: every other shape would be compiled anew.
    """
    began = time.perf_counter()
    if session.recipe.training.compile == "graph":
        capture(session)
        return round(time.perf_counter() - began, 4)
    before = snapshot(session)
    surgery.train(session.network)
    size = min(session.recipe.training.batch_size, len(session.train))
    batch = next(session.train.batches(size, torch.arange(size)))
    with autocast(session.recipe, session.device):
        logits = session.forward(batch.images)
    loss, _ = _loss(logits.float(), batch, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]
    session.optimizer.zero_grad(set_to_none=True)
    restore(session, before)
    return round(time.perf_counter() - began, 4)


def capture(session: Session) -> None:
    """Make a graph of the training step. All of a training's batches are whole, so that one is enough."""
    before, size = snapshot(session), min(session.recipe.training.batch_size, len(session.train))
    surgery.train(session.network)
    example = next(session.train.batches(size, torch.arange(size), session.augmentation))

    def undo() -> None:
        restore(session, before | {"optimizer": optim.with_slots(before["optimizer"], session.optimizer)})
        session.optimizer.zero_grad(set_to_none=True)  # those of the graph are its own

    session.replay = graph.captured(lambda batch: step(session, batch), example, undo)


def _train_epoch(session: Session) -> dict[str, float]:
    """Train on every image once, in whole batches (the rest is left out, another rest each epoch)."""
    total, batches = torch.zeros(2, device=session.device), 0
    for batches, step in enumerate(steps(session), start=1):  # noqa: B007 (their number is wanted after the last one)
        total += step
    loss, accuracy = total.tolist()  # the only time in the epoch that the device is read
    return {"train/loss": loss / batches, "train/accuracy": accuracy / batches}


def steps(session: Session) -> Iterator[Tensor]:
    """Train for one epoch, giving loss and accuracy (2,) of every step, on the device."""
    if session.recipe.training.compile == "graph" and session.replay is None:
        capture(session)
    surgery.train(session.network)
    batches, epochs = batches_an_epoch(session), session.recipe.training.epochs
    for i, batch in enumerate(shuffled(session)):
        factor = rates.lr_factor(
            session.recipe.schedule, session.epoch * batches + i, batches * epochs, epochs
        )
        set_lr(session, session.recipe.optimizer.lr * factor)
        session.alive()
        yield step(session, batch) if session.replay is None else session.replay(batch)


def batches_an_epoch(session: Session) -> int:
    """Count the whole batches of an epoch, at least 1: a batch is never larger than the images."""
    return len(session.train) // min(session.recipe.training.batch_size, len(session.train))


def shuffled(session: Session) -> Iterator[Batch]:
    """Yield the augmented batches of one epoch, in an order that is drawn anew."""
    size = min(session.recipe.training.batch_size, len(session.train))
    order = torch.randperm(len(session.train), generator=session.order)[: batches_an_epoch(session) * size]
    # Augmentation is not under autocast: bf16 is too coarse to say where a pixel comes from.
    yield from session.train.batches(size, order, session.augmentation)


def step(session: Session, batch: Batch) -> Tensor:
    """Take one step of the optimizer, of a network in training mode.

    Return loss and accuracy (2,) before it, on the device. An optimizer may ask for the gradient more than
    once; the first answer counts.
    """
    network, training, before = session.network, session.recipe.training, list[Tensor]()

    def gradient() -> Tensor:
        with autocast(session.recipe, session.device):
            logits = session.forward(batch.images)
        loss, right = _loss(logits.float(), batch, training.label_smoothing)
        session.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip)
        before.append(torch.stack([loss.detach(), right]))
        return loss

    session.optimizer.step(gradient)  # type: ignore[arg-type]  # a tensor: a float would wait for the device
    return before[0]


def set_lr(session: Session, lr: float) -> None:
    """Set the learning rate of the next steps."""
    optim.set_lr(session.optimizer, lr)


def _loss(logits: Tensor, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and accuracy, means over the batch.

    Of mixed images both labels count, by their share.
    """
    right = logits.detach().argmax(1)
    if batch.mixed is None:
        return F.cross_entropy(logits, batch.labels, label_smoothing=smoothing), (
            right == batch.labels
        ).float().mean()
    share, others = batch.mixed.share, batch.labels[batch.mixed.partner]
    own, other = (
        F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        for labels in (batch.labels, others)
    )
    accuracy = share * (right == batch.labels) + (1 - share) * (right == others)
    return (share * own + (1 - share) * other).mean(), accuracy.mean()


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Return the context in which the network runs: bf16 where the recipe says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.training.precision == "bf16")


def evaluation_batch(device: torch.device, side: int) -> int:
    """Return how many images of so many pixels a side are evaluated at once.

    Of what may be free it must not depend: MC dropout draws for whole batches.
    """
    most = EVALUATION_BATCH[device.type]
    if device.type == "cpu":
        return most
    return max(LEAST_EVALUATED, min(most, most * EVALUATION_SIDE**2 // side**2))


def score(
    network: nn.Module, images: Images, recipe: Recipe, alive: Callable[[], None] = lambda: None
) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy of one plain pass over some images.

    `alive` is called for every batch.
    """
    network.eval()
    total = torch.zeros(2, device=images.device)
    with torch.inference_mode(), autocast(recipe, images.device):
        for batch in images.batches(evaluation_batch(images.device, images.side)):
            alive()
            logits = network(batch.images).float()
            total += torch.stack(
                [
                    F.cross_entropy(logits, batch.labels, reduction="sum"),
                    (logits.argmax(1) == batch.labels).sum(),
                ]
            )
    loss, right = (total / len(images)).tolist()
    return loss, right


def snapshot(session: Session) -> dict[str, Any]:
    """Copy everything that decides the rest of the training."""
    return copy.deepcopy(state(session))


def state(session: Session) -> dict[str, Any]:
    """Return everything that decides the rest of the training: tensors and plain values (safe to load).

    They are the training's own: it changes them.
    """
    everything = {
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
        everything["dropout_cuda"] = torch.cuda.get_rng_state(session.device)
    return everything


def restore(session: Session, state: dict[str, Any]) -> None:
    """Restore a session to where `snapshot` was taken."""
    session.epoch, session.best_epoch, session.diverged = (
        state["epoch"],
        state["best_epoch"],
        state["diverged"],
    )
    session.best = (state["best"][0], state["best"][1])
    session.history = list(state["history"])
    session.network.load_state_dict(state["network"])
    optim.load(session.optimizer, state["optimizer"])
    session.replay = None  # it works on the optimizer's state as it was
    session.order.set_state(state["order"])
    for role, generator in session.streams.items():
        generator.set_state(state["streams"][role])
    torch.set_rng_state(state["dropout"])
    if session.device.type == "cuda" and "dropout_cuda" in state:
        torch.cuda.set_rng_state(state["dropout_cuda"], session.device)
