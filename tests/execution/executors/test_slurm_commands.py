"""Options of sbatch as users write them."""

import pytest

from ablate.errors import AblateError
from ablate.execution.executors import slurm_commands


def test_options_are_read_with_the_commas_of_their_values():
    read = slurm_commands.options(
        ("partition=gpu,time=2:00:00,gres=gpu:1,shard:2,exclusive", "--nodelist=n1,n2,mem=4G")
    )
    assert read == {
        "partition": "gpu",
        "time": "2:00:00",
        "gres": "gpu:1,shard:2",
        "exclusive": "",
        "nodelist": "n1,n2",
        "mem": "4G",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("array=0-9", "--slurm array: ablate sets that itself: leave it out"),
        ("output=/tmp/x", "--slurm output: ablate sets that itself"),
        ("time=", "--slurm time must have a value after the =, or no ="),
        ("two words=1", "must be options of sbatch such as .*, got 'two words=1'"),
        ("$(rm -r x)=1", "must be options of sbatch"),
        ("", "must be options of sbatch"),
    ],
)
def test_what_is_no_option_or_ours_is_a_sentence(text, sentence):
    with pytest.raises(AblateError, match=sentence):
        slurm_commands.options((text,))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 300), ("5:30", 330), ("2:00:00", 7200), ("1-0", 86400), ("1-12:30", 131400), ("1-2:3:4", 93784),
     ("UNLIMITED", None), ("", None)],
)  # fmt: skip
def test_a_time_limit_is_read_as_sbatch_reads_it(text, seconds):
    assert slurm_commands.limit(text) == seconds


def test_a_job_is_told_two_minutes_before_its_limit_and_later_where_that_is_short():
    assert [slurm_commands.lead(time) for time in ("", "2:00:00", "4", "1", "0:20")] == [120, 120, 60, 15, 10]


@pytest.mark.parametrize(
    ("chosen", "count"),
    [({}, 0), ({"gres": "gpu:2"}, 2), ({"gres": "gpu:a100:4"}, 4), ({"gres": "shard:8"}, 0),
     ({"gpus": "3"}, 3), ({"gpus-per-node": "v100:2"}, 2), ({"gres": "gpu"}, 1),
     ({"gres": "shard:1,gpu:2"}, 2)],
)  # fmt: skip
def test_the_gpus_of_an_element_are_those_that_are_asked_for(chosen, count):
    assert slurm_commands.gpus(chosen) == count
