"""The processors of this machine, found without importing torch: `ablate plan` needs to know and must be quick."""

from ablate.errors import AblateError
from ablate.execution.executors.base import Slot
from ablate.hardware import cores, list_gpus


def slots(device: str, jobs: int | None, threads: int = 1, per_gpu: int = 1) -> tuple[Slot, ...]:
    """Lay out the slots: `per_gpu` a GPU, or one for every `threads` CPU cores; `jobs` sets their number. `device`: auto, cpu, cuda.

    Raises an AblateError when CUDA is asked for and there is no GPU.
    """
    gpus = list_gpus()
    if device == "cuda" and not gpus:
        raise AblateError("--device cuda needs an NVIDIA GPU that nvidia-smi lists, and there is none: use --device cpu")
    if device == "cpu" or not gpus:
        count = jobs or max(1, cores() // threads)
        return tuple(Slot(f"cpu:{i}", "cpu", {"CUDA_VISIBLE_DEVICES": ""}) for i in range(count))
    count = jobs or len(gpus) * per_gpu
    return tuple(Slot(f"cuda:{gpus[i % len(gpus)][0]}", "cuda", {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)][0]}) for i in range(count))
