"""Copies of a training's state in the memory of the host, taken while the training goes on."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Copy:
    """Tensors and plain values as they were when the copy was asked for, whatever came after."""

    _content: dict[str, Any]
    _copied: torch.cuda.Event | None  # on a GPU: when the last tensor has arrived

    def content(self) -> dict[str, Any]:
        """Return the copy, once all of it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._content


def copied(content: dict[str, Any], device: torch.device) -> Copy:
    """Copy the tensors and plain values of a training on a device.

    A GPU is not waited for: its copies are queued before whatever changes the tensors next.
    """
    if device.type != "cuda":
        return Copy(copy.deepcopy(content), None)
    kept = replaced(content, _fetched)
    arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # else a wait takes a whole core
    arrived.record(torch.cuda.current_stream(device))
    return Copy(kept, arrived)


def replaced(content: dict[str, Any], fetch: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Return a deep copy in which `fetch` has made each tensor's copy, once for all its places."""
    made: dict[int, Tensor] = {}
    for tensor in _tensors(content):
        if id(tensor) not in made:
            made[id(tensor)] = fetch(tensor)
    return copy.deepcopy(content, dict[int, Any](made))


def _fetched(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor.clone()
    pinned = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return pinned.copy_(tensor, non_blocking=True)


def _tensors(content: object) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict):
        for part in content.values():
            yield from _tensors(part)
    elif isinstance(content, list | tuple):
        for part in content:
            yield from _tensors(part)
