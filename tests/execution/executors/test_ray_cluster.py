"""How slots are laid out over the nodes of a cluster, and what is refused: no cluster is needed for that."""

import re
from pathlib import Path

import pytest

from ablate.errors import AblateError
from ablate.execution.executors import ray_cluster, ray_host
from ablate.execution.executors.base import Options
from ablate.execution.executors.ray_cluster import Node

CPUS = (Node("1", "ant", 4, 0), Node("2", "bee", 2, 0))
GPUS = (Node("1", "ant", 8, 2), Node("2", "bee", 1, 2))


def names(options: Options, there: tuple[Node, ...]) -> list[str]:
    return [slot.name for place in ray_cluster.places(options, there) for slot in place.slots]


def test_slots_lie_evenly_over_the_nodes() -> None:
    assert names(Options(), CPUS) == [
        "ant/cpu:0", "bee/cpu:0", "ant/cpu:1", "bee/cpu:1", "ant/cpu:2", "ant/cpu:3",
    ]  # fmt: skip
    assert names(Options(jobs=3), CPUS) == ["ant/cpu:0", "bee/cpu:0", "ant/cpu:1"]
    assert names(Options(threads=2), CPUS) == ["ant/cpu:0", "bee/cpu:0", "ant/cpu:1"]
    assert names(Options(most=1), CPUS) == ["ant/cpu:0"]
    assert names(Options("cpu", most=2), GPUS) == ["ant/cpu:0", "bee/cpu:0"]


def test_jobs_share_gpus_evenly() -> None:
    assert names(Options(), GPUS) == ["ant/cuda:0", "bee/cuda:0", "ant/cuda:1", "bee/cuda:1"]
    assert names(Options(jobs_per_gpu=2, devices=1), GPUS) == ["ant/cuda:0"] * 2
    assert names(Options(jobs=5), GPUS) == [
        "ant/cuda:0", "ant/cuda:0", "bee/cuda:0", "ant/cuda:1", "bee/cuda:1",
    ]  # fmt: skip
    assert names(Options(jobs=1), GPUS) == ["ant/cuda:0"]


def test_a_gpu_has_cores_as_far_as_its_node_has_as_many() -> None:
    two = ray_cluster.places(Options(jobs_per_gpu=2), GPUS)
    assert [(place.where, place.gpus, place.cpus) for place in two] == [
        ("ant", 1, 2), ("bee", 1, 0), ("ant", 1, 2), ("bee", 1, 0),
    ]  # fmt: skip


def test_slots_share_the_memory_of_a_gpu_or_of_a_nodes_cpus() -> None:
    cpu = ray_cluster.places(Options(), CPUS)
    gpu = ray_cluster.places(Options(), GPUS)
    assert len({place.memory for place in cpu}) == 2
    assert len({place.memory for place in gpu}) == 4
    there = ray_cluster.resources(cpu, "bf16", shares_store=False)
    assert (there.slots, there.device, there.precision, there.shares_memory, there.shares_store) == (
        6, "cpu", "bf16", True, False,
    )  # fmt: skip
    assert not ray_cluster.resources(gpu, "fp32", shares_store=True).shares_memory


@pytest.mark.parametrize(
    ("options", "there", "says"),
    [
        (Options("cuda"), CPUS, "--device cuda: the Ray cluster has no GPU: ant 4 CPUs and 0 GPUs, bee"),
        (Options(jobs=7), CPUS, "7 jobs at a time (--jobs) with 1 CPU each can never run on the Ray cluster"),
        (Options(threads=5), CPUS, "a job with 5 CPUs each can never run on the Ray cluster, which has"),
        (Options(), (), "which has room for 0: no node"),
    ],
)  # fmt: skip
def test_what_can_never_be_had_is_refused_with_what_there_is(
    options: Options, there: tuple[Node, ...], says: str
) -> None:
    with pytest.raises(AblateError, match=re.escape(says)):
        ray_cluster.places(options, there)


def test_a_node_sees_the_store_by_a_file_and_its_content_alone(tmp_path: Path) -> None:
    token = tmp_path / ".token.12345678"
    assert not ray_host.sees(str(token), b"x" * ray_host.TOKEN)
    token.write_bytes(b"y" * ray_host.TOKEN)
    assert not ray_host.sees(str(token), b"x" * ray_host.TOKEN)
    assert ray_host.sees(str(token), b"y" * ray_host.TOKEN)
    token.write_bytes(b"y" * (ray_host.TOKEN + 1))
    assert not ray_host.sees(str(token), b"y" * ray_host.TOKEN)
    link = tmp_path / "link"
    link.symlink_to(token)
    assert not ray_host.sees(str(link), b"y" * ray_host.TOKEN)
