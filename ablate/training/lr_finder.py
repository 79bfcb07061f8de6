"""The learning-rate range test of a recipe (Smith 2017, arXiv 1506.01186): a training at ever higher rates.

It is thrown away: nothing of it stays in the process, nor in another training under way in it. Its curve is
read by `ablate.recipe.range_test`.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ablate.recipe import identity, range_test
from ablate.recipe.fields import Recipe
from ablate.recipe.range_test import Curve, Sweep
from ablate.training import loop, surgery
from ablate.training.data import Arrays, Prepared
from ablate.training.images import Batch
from ablate.training.loop import Session

BLOCK = 10  # steps between two looks at the device; it changes no number


class Stopped(Exception):  # noqa: N818 (no error: the answer to a request)
    """Raised by a range test that was asked to stop: half a curve would suggest something else."""


def sweep(
    recipe: Recipe,
    seed: int,
    prepared: Prepared,
    arrays: Arrays,
    device: torch.device,
    plan: Sweep,
    *,
    memory: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda _done: None,
) -> Curve:
    """Train a new network at each rate of a plan in turn, until its end or until the training diverges.

    It is trained as the recipe says, but for the rate, which is the plan's and not the schedule's, and for
    torch.compile, which would cost more than it saves. Its images are those that a job of this seed trains
    on, so that the rate is not chosen on that job's validation images; every other draw is from streams of
    its own. Of an epoch at each rate, the loss and the accuracy are means over its batches. `memory`: see
    `images.place`. `progress` gets the number of rates that are done, from time to time; `should_stop` is
    asked before each step, and ends the test with `Stopped`.
    """
    plain = recipe.model_copy(update={"training": recipe.training.model_copy(update={"compile": False})})
    measured: list[list[float]] = []
    with undisturbed(device):
        session = loop.start(
            plain, identity.stream_seed(seed, "range"), prepared, arrays, device, memory=memory, split=seed
        )
        surgery.train(session.network)
        for block in _blocks(_measured(session, plan, should_stop), BLOCK if plan.per == "batch" else 1):
            measured += torch.stack(block).tolist()  # the only time that the device is read
            progress(len(measured))
            if range_test.divergence([loss for loss, _ in measured], plan.steps) is not None:
                break
    return _curve(plan, measured)


def _curve(plan: Sweep, measured: list[list[float]]) -> Curve:
    """Return the curve up to the step that diverged: how much was read after it depends on the block."""
    end = range_test.divergence([loss for loss, _ in measured], plan.steps)
    kept = measured if end is None else measured[: end + 1]
    losses, accuracies = zip(*kept, strict=True)
    return Curve(
        range_test.rates(plan)[: len(kept)], losses, accuracies, "end" if end is None else "diverged"
    )


def _measured(session: Session, plan: Sweep, should_stop: Callable[[], bool]) -> Iterator[Tensor]:
    """Train at each rate; yield its loss and accuracy (2,), on the device."""
    batches = _forever(session)
    steps = loop.batches_an_epoch(session) if plan.per == "epoch" else 1
    for rate in range_test.rates(plan):
        loop.set_lr(session, rate)
        total = torch.zeros(2, device=session.device)
        for _ in range(steps):
            if should_stop():
                raise Stopped
            total += loop.step(session, next(batches))
        yield total / steps


def _forever(session: Session) -> Iterator[Batch]:
    """Yield the batches of one epoch after another, each in an order of its own."""
    while True:
        yield from loop.shuffled(session)


def _blocks(measured: Iterator[Tensor], size: int) -> Iterator[list[Tensor]]:
    block: list[Tensor] = []
    for value in measured:
        block.append(value)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Leave torch as it was: generators, threads, determinism, cuDNN's settings, warnings, grad mode.

    All of them are set by `loop.start`, as a job owns its process. Inside, gradients are computed, whatever
    the caller does.
    """
    # Elsewhere there is no state yet, and asking for it would make one.
    cuda = device.type == "cuda" or torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    generators = torch.get_rng_state(), torch.cuda.get_rng_state_all() if cuda else []
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark, exact = cudnn.benchmark, _exactness()
    try:
        with torch.inference_mode(mode=False), torch.enable_grad(), warnings.catch_warnings():
            yield
    finally:
        torch.set_rng_state(generators[0])
        torch.cuda.set_rng_state_all(generators[1])
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        cudnn.benchmark = benchmark
        torch.backends.fp32_precision, cudnn.allow_tf32, products = exact  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision(products)


def _exactness() -> tuple[str, bool, str]:
    """Return how exactly torch computes in fp32: in general, in convolutions, in matrix products."""
    try:
        return (
            torch.backends.fp32_precision,  # type: ignore[attr-defined]
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
        )
    except RuntimeError:  # a user's network has set one operation apart, and torch has no single answer then
        return "ieee", False, "highest"
