"""Shares of a machine: studies at once divide what there is."""

import pytest
from drivers import FIRST, SECOND, TWO

from ablate import hardware
from ablate.serve import shares
from ablate.serve.shares import EVERYWHERE, Machine

FOUR = Machine(("a", "b", "c", "d"))


def test_shares_never_overlap_and_are_given_only_while_they_last():
    first = FOUR.share(2, ())
    second = FOUR.share(2, first)
    assert (first, second, FOUR.share(2, (*first, *second))) == (("a", "b"), ("c", "d"), None)
    assert FOUR.share(1, ()) == FOUR.slots
    assert FOUR.share(1, ("d",)) is None
    assert FOUR.share(3, ()) == ("a",)


def test_a_run_with_the_whole_machine_needs_no_option():
    assert (FOUR.options(FOUR.slots), FOUR.environment(FOUR.slots)) == ([], {})
    assert FOUR.options(("a", "b")) == ["--jobs", "2"]
    gpus = Machine(("GPU-a", "GPU-b"), "cuda")
    assert (gpus.options(("GPU-b",)), gpus.environment(("GPU-b",))) == ([], {"CUDA_VISIBLE_DEVICES": "GPU-b"})


@pytest.mark.parametrize(
    "options", [("--executor", "slurm"), ("--executor=ray",), ("--jobs", "3"), ("--jobs=3",)]
)
def test_who_says_where_jobs_run_has_no_share(options):
    assert shares.machine(options) == EVERYWHERE
    assert EVERYWHERE.share(3, ()) == ()


def test_a_machine_without_gpus_has_a_slot_for_each_core():
    assert shares.machine(("--device", "cpu")) == Machine(tuple(f"cpu:{i}" for i in range(hardware.cores())))


def test_gpus_are_shared_by_their_names(machine):
    machine.driver(*TWO)
    assert shares.machine() == Machine((FIRST, SECOND), "cuda")
    assert shares.machine(("--device", "cpu")).device == "cpu"
