"""The layers of a network as a table has them: the kind, the output, the size and the cost of each.

What a layer makes of an image is noted during a pass that is made anyway; the rows are made after surgery.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._pytree import tree_leaves

MOST_LAYERS = 200  # rows of one network: deeper blocks are folded until so many are left
MOST_DIMENSIONS = 8
LONGEST_NAME, LONGEST_KIND = 120, 60  # characters
HUNG = {"input_dropout": "input", "output_dropout": "output"}
"""What surgery hangs on a layer, and which shape of that layer it keeps."""

Size = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """A row: a layer, or a block that is folded to one."""

    name: str  # dotted; empty: the network itself
    kind: str  # its class; empty: all the rows that are left out
    shape: Size  # of its output, for one image; empty where it was not called
    parameters: int
    trainable_parameters: int
    macs: int
    layers: int = 0  # of a folded block, itself among them where it has parameters


@dataclass(frozen=True, slots=True)
class Seen:
    """What a module read and made last, and what all its calls cost beside those of the modules inside."""

    input: Size = ()
    output: Size = ()
    macs: int = 0


class Passage:
    """While it is entered, notes what each module of a network makes of one image.

    `count` returns the multiply-adds so far. They go to the innermost module that is at work, so that the
    rows add up to the whole, also where a module is called by another one than its parent.
    """

    def __init__(self, network: nn.Module, count: Callable[[], int]) -> None:
        self._network, self._count = network, count
        self._seen: dict[nn.Module, Seen] = {}
        self._at_work: list[int] = []  # counted when each module began, those inside it taken out
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        for hook in (
            hooks.register_module_forward_pre_hook(self._begin),
            hooks.register_module_forward_hook(self._end, always_call=True),
        ):
            self._hooks.callback(hook.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def _begin(self, _module: nn.Module, _inputs: Any) -> None:
        self._at_work.append(self._count())

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        own = self._count() - self._at_work.pop()
        self._at_work = [began + own for began in self._at_work]
        before = self._seen.get(module, Seen())
        self._seen[module] = Seen(_size(inputs), _size(output), before.macs + own)

    def seen(self) -> Mapping[str, Seen]:
        """Return what was noted by the names of modules; a module of several names costs once."""
        named = dict(self._network.named_modules(remove_duplicate=False))
        first = dict(self._network.named_modules())
        return {
            name: self._seen[module] if name in first else replace(self._seen[module], macs=0)
            for name, module in named.items()
            if module in self._seen
        }


def _size(passed: Any) -> Size:
    """Return the shape of the first tensor, without the one image where that is its first dimension."""
    tensor = next((leaf for leaf in tree_leaves(passed) if isinstance(leaf, Tensor)), None)
    shape = () if tensor is None else tuple(int(n) for n in tensor.shape)
    return (shape[1:] if shape[:1] == (1,) else shape)[:MOST_DIMENSIONS]


def layers(network: nn.Module, seen: Mapping[str, Seen]) -> tuple[Layer, ...]:
    """Return the layers of a network after surgery, in the order in which it names them.

    The numbers of the rows add up to those of the network. A block that has parameters of its own has a row
    beside those inside it.
    """
    nodes = _nodes(network, seen)
    rows: list[Layer] = []
    for depth in range(max(node.name.count(".") for node in nodes) + 1, 0, -1):
        rows = _folded(nodes, depth)
        if len(rows) <= MOST_LAYERS:
            return tuple(rows)
    shown, others = rows[: MOST_LAYERS - 1], rows[MOST_LAYERS - 1 :]
    return (*shown, _sum(Layer("", "", (), 0, 0, 0), others, len(others)))


def _nodes(network: nn.Module, seen: Mapping[str, Seen]) -> list[Layer]:
    """Return each module with what is its own; `layers` is 1 where that makes a row, else 0."""
    counted: set[int] = set()
    nodes = []
    for name, module in network.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted |= {id(parameter) for parameter in own}
        noted = seen.get(name, Seen())
        is_row = bool(own) or noted.macs > 0 or next(module.children(), None) is None
        nodes.append(
            Layer(
                name=name,
                kind=type(module).__name__[:LONGEST_KIND],
                shape=noted.output or _hung(name, seen),
                parameters=sum(parameter.numel() for parameter in own),
                trainable_parameters=sum(parameter.numel() for parameter in own if parameter.requires_grad),
                macs=noted.macs,
                layers=int(is_row),
            )
        )
    return nodes


def _hung(name: str, seen: Mapping[str, Seen]) -> Size:
    parent, _, child = name.rpartition(".")
    return getattr(seen.get(parent, Seen()), HUNG[child]) if child in HUNG else ()


def _folded(nodes: list[Layer], depth: int) -> list[Layer]:
    """Return a row for each node down to a depth; those below are added to the one above them."""
    blocks: dict[str, list[Layer]] = {}
    for node in nodes:
        blocks.setdefault(".".join(node.name.split(".")[:depth]), []).append(node)
    rows = []
    for name, block in blocks.items():
        count = sum(node.layers for node in block)
        short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
        if count:
            rows.append(_sum(replace(block[0], name=short), block[1:], count if len(block) > 1 else 0))
    return rows


def _sum(row: Layer, others: list[Layer], count: int) -> Layer:
    """Add the numbers of other rows to one."""
    return replace(
        row,
        parameters=row.parameters + sum(other.parameters for other in others),
        trainable_parameters=row.trainable_parameters + sum(o.trainable_parameters for o in others),
        macs=row.macs + sum(other.macs for other in others),
        layers=count,
    )
