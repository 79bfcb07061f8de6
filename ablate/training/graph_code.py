"""A trained network as plain Python: the operations of one forward pass, each on a line, on named weights.

What torch.export records of the network with all its surgery is written down, so that nothing but torch is
needed to run it: neither ablate nor the code of a user's own network.
"""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ablate.training.surgery import ModelError

HEADER = '''"""The network as torch.export has recorded it, one operation a line; it needs torch alone."""

import operator

import torch
from torch import Tensor


def forward(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """Return the logits (N, {classes}) of normalised images (N, {channels}, {size}, {size})."""
'''


def recorded(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Return what a network does with any number of images like these.

    Raises a ModelError where that depends on what is in them, or cannot be recorded for another reason.
    """
    network.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(
                network, (example,), dynamic_shapes=({0: torch.export.Dim("images", min=1)},)
            )
    except Exception as error:  # torch raises nearly everything
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"torch.export cannot record it: {said[0]}") from error


def tensors(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Return the weights that the operations read, and the constants, by name."""
    named = {**program.state_dict, **program.constants}
    return {name: named[name] for name in _names(program).values()}


def code(program: torch.export.ExportedProgram, classes: int) -> str:
    """Return the source of a function `forward(weights, images)` that does the same."""
    (images,) = program.graph_signature.user_inputs
    names = _names(program)
    lines, written = [], {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            written[node.name] = f'weights["{names[node.name]}"]' if node.name in names else "images"
        elif node.op == "call_function" and _is_work(node):
            arguments = [_text(part, written) for part in node.args]
            arguments += [f"{key}={_text(part, written)}" for key, part in node.kwargs.items()]
            written[node.name] = node.name
            lines.append(f"    {node.name} = {_function(node.target)}({', '.join(arguments)})")
        elif node.op == "output":
            lines.append(f"    return {_text(node.args[0][0], written)}")
    shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == images)
    header = HEADER.format(classes=classes, channels=int(shape[1]), size=int(shape[2]))
    return header + "\n".join(lines) + "\n"


def _names(program: torch.export.ExportedProgram) -> Mapping[str, str]:
    signature = program.graph_signature
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    sources = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {name: source for name, source in sources.items() if name in used}


def _is_work(node: fx.Node) -> bool:
    """Whether an operation computes something: not one that only checks its input."""
    return bool(node.users) or "_assert" not in str(node.target)


def _function(target: Any) -> str:
    if inspect.isbuiltin(target):
        return f"operator.{target.__name__}"
    return f"torch.ops.{target}"


def _text(part: Any, written: Mapping[str, str]) -> str:
    """Return an argument as Python has it."""
    match part:
        case fx.Node():
            return written[part.name]
        case list() | tuple():
            return f"[{', '.join(_text(each, written) for each in part)}]"
        case torch.device():
            return f'torch.device("{part}")'
        case None | bool() | int() | float() | str() | torch.dtype() | torch.memory_format() | torch.layout():
            return repr(part)
    raise ModelError(f"an operation has an argument that cannot be written down: {type(part).__name__}")
