"""The steps: what each is about, what is expected of it, and its limit."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the check."""

    title: str
    expected: str
    function: str  # module:function, which yields its parts
    limit: float  # seconds; on a GPU all of them together are ten minutes


_HERE = "benchmarks.gpu_check"
STEPS = {
    1: Step(
        "the machine", "driver, torch and doctor agree; an H100: (9, 0), bf16", f"{_HERE}.machine:facts", 45
    ),
    2: Step("tests", "all tests that need a GPU pass, none is skipped", f"{_HERE}.machine:tests", 150),
    3: Step("a run", "two workers open the GPU, and nobody else", f"{_HERE}.machine:run", 75),
    4: Step("bits", "equal bits: again, resumed, streamed, filled or not", f"{_HERE}.bits:same", 90),
    5: Step("faults", "each costs an attempt, and nothing else", f"{_HERE}.faults:check", 180),
    6: Step("waits", "no step waits for the device, no network warns", f"{_HERE}.speed:waits", 60),
    7: Step("kernels", "resnet9: 170-230 a step, over 90 % busy at 512", f"{_HERE}.speed:kernels", 45),
    8: Step("speed", "resnet9 at 512: 68-85 thousand images/s", f"{_HERE}.speed:rates", 150),
    9: Step("checkpoints", "under 5 % of a job's time", f"{_HERE}.speed:checkpoints", 60),
    10: Step("sharing", "cnn4: four jobs do more than one; MPS helps", f"{_HERE}.sharing:jobs", 120),
    11: Step("compile", "one graph, no break, once; few helpers", f"{_HERE}.sharing:compiled", 75),
    12: Step("streaming", "0.95 of the speed; fp32 is fp32", f"{_HERE}.speed:streaming", 60),
    13: Step("graphs", "resnet_small at 128: twice the speed; same bits", f"{_HERE}.graphs:graphs", 60),
}
