"""A training step as one CUDA graph: launched in one go, where Python would launch hundreds of kernels.

Of a small network a GPU does each kernel faster than Python launches the next. A graph is what a step has
launched once, at the same addresses: its batches are copied to where the first one lay, its learning rate is
a tensor, and its optimizer's state is there before. The draws of dropout are those of an uncaptured step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ablate.training.augment import Mixed
from ablate.training.images import Batch
from ablate.training.surgery import ModelError

Step = Callable[[Batch], Tensor]
READING = {
    "_local_scalar_dense": "item", "equal": "equal", "nonzero": "nonzero", "masked_select": "masked_select",
    "_unique2": "unique", "unique_dim": "unique", "unique_consecutive": "unique",
}  # fmt: skip
WARMUP = 3  # steps before a capture, as torch advises: libraries take their memory, kernels are loaded


@dataclass(frozen=True, slots=True)
class Place:
    """Where the batches of a graph lie: tensors that stay, all of one shape."""

    batch: Batch

    def fill(self, batch: Batch) -> None:
        """Copy a batch there."""
        for there, new in zip(_tensors(self.batch), _tensors(batch), strict=True):
            assert there.shape == new.shape, "all batches of a training are whole"  # else it is expanded
            there.copy_(new)


def captured(step: Step, example: Batch, undo: Callable[[], None]) -> Step:
    """Return `step` for batches like `example`: on a GPU as a graph, elsewhere as it is, from the same place.

    It is warmed up by steps with the example; `undo` takes back what they did, before the capture, which
    computes nothing, and records where the tensors of the training lie.
    """
    place, device = Place(_copy(example)), example.images.device
    if device.type != "cuda":
        _warm_up(step, place)
        undo()
        return _replayed(place, lambda: step(place.batch))
    ours, aside = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    aside.wait_stream(ours)
    with torch.cuda.stream(aside):
        _warm_up(step, place)
    ours.wait_stream(aside)
    undo()
    recorded = torch.cuda.CUDAGraph()
    # The global generator is dropout's: at each replay it goes on by as much as a step has drawn.
    recorded.register_generator_state(torch.cuda.default_generators[torch.cuda.current_device()])
    try:
        # thread_local: other threads, which copy images and checkpoints, may go on meanwhile.
        with torch.cuda.graph(recorded, stream=aside, capture_error_mode="thread_local"):
            told = step(place.batch)
    except RuntimeError as error:
        if (sentence := refusal(error)) is None:
            raise
        raise ModelError(sentence) from error

    def run() -> Tensor:
        recorded.replay()
        return told.clone()  # the next replay writes there again

    return _replayed(place, run)


def refusal(error: RuntimeError) -> str | None:
    """Return the sentence for a step that cannot be captured; none for an error of another kind."""
    chain = (str(each) for each in (error, error.__context__) if each is not None)
    why = next((text.splitlines()[0] for text in chain if "captur" in text), None)
    return why and f"this training step cannot be a CUDA graph ({why}): take training.compile = false"


def _warm_up(step: Step, place: Place) -> None:
    for _ in range(WARMUP):
        step(place.batch)


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names what brings numbers of a device to Python, or makes tensors of a size that they decide."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do what is asked, and note it where a graph could not."""
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(which, Tensor) and which.dtype in (torch.bool, torch.uint8) for which in args[1]
        )
        if by_mask or name in READING:
            self.seen.append("indices by a mask" if by_mask else READING[name])
        return func(*args, **(kwargs or {}))


def _replayed(place: Place, run: Callable[[], Tensor]) -> Step:
    def replay(batch: Batch) -> Tensor:
        place.fill(batch)
        return run()

    return replay


def _copy(batch: Batch) -> Batch:
    """Return a batch in tensors of its own, in the same memory format."""
    mixed = batch.mixed
    images = batch.images.clone()
    copies = None if mixed is None else Mixed(images, mixed.share.clone(), mixed.partner.clone())
    return Batch(images, batch.labels.clone(), copies)


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    mixed = () if batch.mixed is None else (batch.mixed.share, batch.mixed.partner)
    return batch.images, batch.labels, *mixed
