"""What a trained network is handed on as: weights, its operations, a script to use them, and perhaps ONNX."""

import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate.errors import AblateError
from ablate.training import graph_code
from ablate.training.surgery import ModelError

NEAR = 1e-4  # by which answers may differ, as share of the largest
CHECKED = (1, 3)  # images at a time
WEIGHTS, CODE, SCRIPT, ONNX = "model.safetensors", "network.py", "load.py", "model.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")

USE = '''"""Classify images with {run}, without ablate: python load.py IMAGE..."""

import json
import sys
from pathlib import Path

import torch
from network import forward
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torchvision.transforms.v2.functional import pil_to_tensor

HERE = Path(__file__).parent
MODEL, WEIGHTS = json.loads((HERE / "model.json").read_text()), load_file(HERE / "model.safetensors")


def probabilities(path):
    """Return the probability of each class: of an image upright, on white, resized, cut and normalised."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    size, scale = MODEL["image_size"], MODEL["image_size"] / min(image.size)
    image = image.resize([max(size, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - size) // 2 for side in image.size)
    image = image.crop((left, top, left + size, top + size)).convert("L" if MODEL["channels"] == 1 else "RGB")
    mean, std = (torch.tensor(MODEL[name])[:, None, None] for name in ("mean", "std"))
    with torch.inference_mode():
        return forward(WEIGHTS, ((pil_to_tensor(image) / 255 - mean) / std)[None]).softmax(1)[0]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        best = probabilities(path).topk(min(5, len(MODEL["classes"])))
        answers = (f"{{MODEL['classes'][k]}} {{p:.1%}}" for p, k in zip(best.values, best.indices.tolist()))
        print(f"{{path}}: {{', '.join(answers)}}")
'''


def write(folder: Path, network: nn.Module, about: Mapping[str, Any], *, onnx: bool) -> None:
    """Write a network into an empty folder, and compare the answers of what was written with its own.

    `about`: what model.json is to say, `run`, `classes`, `channels` and `image_size` among it. Raises an
    AblateError where the network cannot be written down, or answers otherwise.
    """
    if onnx and (missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]):
        raise AblateError(
            f'--onnx needs {" and ".join(missing)}: pip install "ablate-studies[onnx]", or leave it out'
        )
    from safetensors.torch import save

    shape = (about["channels"], about["image_size"], about["image_size"])
    network = network.eval().float().requires_grad_(requires_grad=False)
    try:
        program = graph_code.recorded(network, torch.zeros(2, *shape))
        code = graph_code.code(program, len(about["classes"]))
    except ModelError as error:
        raise AblateError(f"{about['run']} cannot be exported: {error}") from None
    weights = {name: tensor.contiguous().clone() for name, tensor in graph_code.tensors(program).items()}
    (folder / WEIGHTS).write_bytes(save(weights, {"run": about["run"]}))
    (folder / CODE).write_text(code, encoding="utf-8")
    (folder / SCRIPT).write_text(USE.format(run=_plain(about["run"])), encoding="utf-8")
    (folder / "model.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    draws = torch.Generator().manual_seed(0)
    for count in CHECKED:
        images = torch.randn(count, *shape, generator=draws)
        with torch.inference_mode():
            expected = network(images)
            _compare(_forward(folder)(weights, images), expected, CODE)
        if onnx:
            if count == CHECKED[0]:
                _write_onnx(folder / ONNX, program)
            _compare(_onnx(folder / ONNX, images), expected, ONNX)


def _plain(text: str) -> str:
    """Return a text that ends no docstring, whatever it has."""
    return "".join(c if c.isprintable() and c not in '\\"' else "?" for c in text)


def _forward(folder: Path) -> Any:
    """Return the function that was just written, as the script will import it."""
    spec = importlib.util.spec_from_file_location("exported_network", folder / CODE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.forward


def _write_onnx(path: Path, program: torch.export.ExportedProgram) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of onnxscript and torch about each other
        torch.onnx.export(
            program, (), path, input_names=["images"], output_names=["logits"], dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip


def _onnx(path: Path, images: Tensor) -> Tensor:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = [each.name for each in session.get_inputs()]
    return torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _compare(answers: Tensor, expected: Tensor, name: str) -> None:
    limit = NEAR * max(1.0, float(expected.abs().max()))
    if answers.shape != expected.shape or not float((answers - expected).abs().max()) <= limit:
        raise AblateError(
            f"{name} does not give the answers of the network, so nothing was exported: please report this"
        )
