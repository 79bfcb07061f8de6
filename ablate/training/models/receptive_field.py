"""The pixels that one place of a feature map can see, followed from tensor to tensor while an image passes.

The formula is that of Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks"
(Distill): a window of k places that are d apart sees (k - 1) d more of the places it reads, which lie `jump`
pixels apart; its stride multiplies the jump. Branches count by the one that sees most.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

POOLING = {"max_pool2d_with_indices", "avg_pool2d"}
WHOLE_POOLING = {"_adaptive_avg_pool2d", "adaptive_max_pool2d"}
REDUCTIONS = {"mean", "sum", "amax", "max"}
PRODUCTS = {"bmm", "baddbmm"}


@dataclass(frozen=True, slots=True)
class View:
    """What one place of a tensor sees, (height, width) in pixels, and how far places lie apart.

    `pooled`: it has no places any more.
    """

    field: tuple[float, float] = (1, 1)
    jump: tuple[float, float] = (1, 1)
    pooled: bool = False

    def through(self, kernel: Any, stride: Any, dilation: Any) -> "View":
        """Pass a window; a pooled tensor has nothing left to pass it over."""
        if self.pooled:
            return self
        (k, d, s) = (_pair(each) for each in (kernel, dilation, stride))
        field = [self.field[axis] + (k[axis] - 1) * d[axis] * self.jump[axis] for axis in (0, 1)]
        return View((field[0], field[1]), (self.jump[0] * s[0], self.jump[1] * s[1]))


EVERYTHING = (math.inf, math.inf)


class ReceptiveField(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, follows what is made of `image` (B, C, H, W).

    Flattening is no end, as a linear layer may be what mixes the channels of each place; one that mixes
    places is not seen. Networks that enlarge their maps again are not followed exactly: places are then taken
    to be as far apart as before. Norms are taken to work place by place, though the statistics of some are
    those of the whole image.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: dict[int, tuple[Tensor, View]] = {
            id(image): (image, View())
        }  # the tensor is kept, so that its id stays its own

    def of(self, tensor: Tensor) -> int | None:
        """Return the pixels a side that the last map before `tensor` sees; None: all of them."""
        view = self._view(tensor)
        largest = max(view.field) if view else 0
        return None if math.isinf(largest) else int(largest)

    def _view(self, tensor: Any) -> View | None:
        return self._seen[id(tensor)][1] if id(tensor) in self._seen else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        views = [view for leaf in tree_leaves((args, kwargs)) if (view := self._view(leaf))]
        if views:
            view = _view_of(func.overloadpacket.__name__, args, kwargs, views)
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    self._seen[id(leaf)] = (leaf, view)
        return result


def _view_of(operation: str, args: Any, kwargs: Any, views: list[View]) -> View:
    """Return what the result of an operation sees, from what its inputs see."""
    first = views[0]
    if operation == "convolution":
        _, weight, _, stride, _, dilation, *_ = args
        return first.through(weight.shape[2:], stride, dilation)
    if operation in POOLING:
        stride = args[2] if len(args) > 2 and args[2] else args[1]
        return first.through(args[1], stride, args[4] if operation.startswith("max") and len(args) > 4 else 1)
    if operation in WHOLE_POOLING or (operation in REDUCTIONS and _over_places(args, kwargs)):
        return replace(first, pooled=True)
    attends = "scaled_dot_product" in operation or (operation in PRODUCTS and len(views) > 1)
    mixed = len({view.pooled for view in views}) > 1  # an average of the whole image comes back to its places
    field = [EVERYTHING] if attends or mixed else [view.field for view in views]
    jump = [view.jump for view in views]
    return View(
        (max(f[0] for f in field), max(f[1] for f in field)),
        (max(j[0] for j in jump), max(j[1] for j in jump)),
        pooled=all(view.pooled for view in views),
    )


def _over_places(args: Any, kwargs: Any) -> bool:
    """Whether a reduction of (B, C, H, W) is over its height or width."""
    over = args[1] if len(args) > 1 else kwargs.get("dim")
    dims = range(args[0].ndim) if over in (None, []) else _several(over)
    return args[0].ndim == 4 and any(dim % 4 in (2, 3) for dim in dims)


def _several(given: Any) -> list[int]:
    return [given] if isinstance(given, int) else list(given)


def _pair(given: Any) -> tuple[int, int]:
    several = _several(given)
    return (several[0], several[-1])
