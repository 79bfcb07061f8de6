"""Ask NVIDIA's driver for the GPUs that CUDA programs get here, and print them as JSON.

Run as a process of its own, `python -I -S driver.py`: a sick driver hangs, or ends whoever calls it. No
context is made, so nothing is left on a GPU. Masks, MIG and the order are the driver's, as for torch.
"""

import ctypes
import json
import uuid

LIBRARY = "libcuda.so.1"  # as torch loads it
MAJOR, MINOR, COMPUTE_MODE = 75, 76, 20  # CUdevice_attribute
MODES = {1: "exclusive", 2: "prohibited", 3: "exclusive"}  # CUcomputemode; 0: default


def main() -> None:
    """Print what the driver says."""
    try:
        cuda = ctypes.CDLL(LIBRARY)
    except OSError as error:
        print(json.dumps({"state": "missing", "error": str(error)}))
        return
    try:
        answer = {"state": "fine", "gpus": _gpus(cuda)}
    except DriverError as error:
        code, name = error.args
        answer = {"state": "none" if code == 100 else "broken", "error": name}  # 100: no device
    print(json.dumps(answer))


class DriverError(Exception):
    """A call that the driver refused: its code, and its name in words."""


def _gpus(cuda: ctypes.CDLL) -> list[dict[str, object]]:
    _call(cuda, "cuInit", 0)
    count = ctypes.c_int()
    _call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    return [_gpu(cuda, number) for number in range(count.value)]


def _gpu(cuda: ctypes.CDLL, number: int) -> dict[str, object]:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    model, identity = ctypes.create_string_buffer(256), (ctypes.c_ubyte * 16)()
    _call(cuda, "cuDeviceGet", ctypes.byref(device), number)
    _call(cuda, "cuDeviceGetName", model, 256, device)
    _call(cuda, "cuDeviceGetUuid_v2", identity, device)  # v2: of the MIG instance, not of its card
    _call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    name = model.value.decode(errors="replace")
    return {
        "name": f"{'MIG' if ' MIG ' in name else 'GPU'}-{uuid.UUID(bytes=bytes(identity))}",
        "model": name,
        "capability": [_attribute(cuda, MAJOR, device), _attribute(cuda, MINOR, device)],
        "memory": memory.value,
        "mode": MODES.get(_attribute(cuda, COMPUTE_MODE, device), "default"),
    }


def _attribute(cuda: ctypes.CDLL, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    _call(cuda, "cuDeviceGetAttribute", ctypes.byref(value), which, device)
    return value.value


def _call(cuda: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = getattr(cuda, function)(*arguments)
    if code:
        name = ctypes.c_char_p()
        cuda.cuGetErrorName(code, ctypes.byref(name))
        raise DriverError(code, f"{function} answers {(name.value or b'an error').decode()} ({code})")


if __name__ == "__main__":
    main()
