"""The processors of this machine, found without importing torch, as `ablate plan` must be quick."""

from ablate import hardware
from ablate.errors import AblateError
from ablate.execution.executors.base import Options, Slot
from ablate.hardware import Resources, cores, list_gpus


def slots(
    device: str, jobs: int | None, threads: int = 1, per_gpu: int = 1, devices: int | None = None
) -> tuple[Slot, ...]:
    """Lay out the slots: `per_gpu` a GPU, or one for every `threads` CPU cores; `jobs` sets their number.

    `device`: auto, cpu, cuda; `devices`: so many GPUs only. Raises an AblateError when CUDA is asked for and
    there is no GPU.
    """
    gpus = list_gpus()[:devices]
    if device == "cuda" and not gpus:
        raise AblateError(
            "--device cuda needs an NVIDIA GPU that nvidia-smi lists, and there is none: use --device cpu"
        )
    if device == "cpu" or not gpus:
        count = jobs or max(1, cores() // threads)
        return tuple(Slot(f"cpu:{i}", "cpu", {"CUDA_VISIBLE_DEVICES": ""}) for i in range(count))
    names = [gpus[i % len(gpus)][0] for i in range(jobs or len(gpus) * per_gpu)]
    return tuple(Slot(f"cuda:{name}", "cuda", {"CUDA_VISIBLE_DEVICES": name}) for name in names)


def slots_of(options: Options) -> tuple[Slot, ...]:
    """Return the slots that a user's options ask for."""
    laid_out = slots(options.device, options.jobs, options.threads, options.jobs_per_gpu, options.devices)
    return laid_out[: options.most]


def resources(laid_out: tuple[Slot, ...]) -> Resources:
    """Return what slots of this machine offer."""
    by_name: dict[str, int] = {}
    by_memory: dict[str, int] = {}
    for slot in laid_out:
        by_name[slot.name] = by_name.get(slot.name, 0) + 1
        by_memory[slot.memory] = by_memory.get(slot.memory, 0) + 1
    device = laid_out[0].device if laid_out else "cpu"
    return Resources(
        slots=len(laid_out),
        device=device,
        precision=hardware.precision(device),
        jobs_a_device=max(by_name.values(), default=1),
        shares_memory=max(by_memory.values(), default=1) > 1,
        shares_store=True,
    )
