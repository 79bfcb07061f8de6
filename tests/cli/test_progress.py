"""What a terminal shows of jobs while they run, here without one: a line for each that has ended."""

import io

import pytest
from rich.console import Console

from ablate.cli.progress import Terminal
from ablate.execution import events
from ablate.execution.executors.base import Event


def shown(*details):
    out = io.StringIO()
    terminal = Terminal(Console(file=out, width=200))
    terminal.observe(events.StageStarted("training 1 job on 1 slot", 1))
    progress = [Event("progress", "a", "cpu:0", detail=detail) for detail in details]
    for event in (Event("started", "a", "cpu:0"), *progress, Event("finished", "a", "cpu:0")):
        terminal.observe(events.of_task(event, "baseline/0"))
    return out.getvalue().splitlines()[-1]


EPOCH = {"epoch": 2, "epochs": 3, "metrics": {"train/loss": 0.5}}


@pytest.mark.parametrize(
    ("details", "line"),
    [
        ([EPOCH], "epoch 2/3 train/loss 0.5"),
        (
            [{"elsewhere": "waits for process 7 (study A), which trains it"}, EPOCH],
            "epoch 2/3 train/loss 0.5",
        ),
        (
            [{"elsewhere": "trained by process 7 (study [red]A[/]\x1b[2J)"}],
            "trained by process 7 (study [red]A[/] [2J)",
        ),
        ([{"evaluating": True}], "evaluated"),
    ],
)
def test_a_line_says_who_has_trained_a_job(details, line):
    assert shown(*details) == f"[1/1] baseline/0: {line}"
