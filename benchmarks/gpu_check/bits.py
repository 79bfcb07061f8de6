"""Step 4: the same job has the same bits: again, after a stop, streamed, filled or not."""

from collections.abc import Iterator

from benchmarks.gpu_check import trainings
from benchmarks.gpu_check.part import Part, Setup

NETWORKS = ("cnn4", "resnet_small", "resnet9", "resnet18")


def same(setup: Setup) -> Iterator[Part]:
    """Train each network in each precision once as a reference, and then in each other way."""
    for name in setup.sized(NETWORKS, NETWORKS[:1]):
        for precision in ("bf16", "fp32"):
            made = trainings.recipe(
                name, precision=precision, augment=trainings.EVERYTHING, digits=setup.sized("all", "few"),
                epochs=setup.sized(4, 2), batch=setup.sized(256, 64),
            )  # fmt: skip
            prepared = trainings.digits(setup.folder, made)
            reference = trainings.bits(trainings.trained(made, prepared, setup.device))
            ways = {
                "again": {},
                "stopped and resumed": {"stop": setup.sized(2, 1)},
                "streamed": {"memory": 0},
            }
            for way, options in ways.items():
                found = trainings.bits(trainings.trained(made, prepared, setup.device, **options))
                figures = {"bits": [reference, found]}
                yield Part(f"{name} {precision}, {way}: equal bits", found == reference, figures)
            for fills in (True, False):
                found = trainings.bits(trainings.trained(made, prepared, setup.device, fills=fills))
                how = "filled with NaN" if fills else "not filled"
                yield Part(f"{name} {precision}, new tensors {how}: equal bits", found == reference)
