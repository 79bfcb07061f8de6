"""`ablate worker`: one task of a file, in this process."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablate.cli import options

if TYPE_CHECKING:
    from ablate.workflow.worker import Ended

EXIT = {"finished": 0, "stopped": 130, "unwritable": 2}
"""Exit codes of the ends; 1 for all others."""


@click.command()
@click.option(
    "--tasks", "path", required=True, metavar="FILE", type=click.Path(path_type=Path),
    help="File of tasks, one a line. Trust it as a script: it says which code of your own is imported.",
)  # fmt: skip
@click.option(
    "--index", required=True, type=click.IntRange(0), metavar="I",
    envvar=["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"],
    help="Line of the task, from 0; by default SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX.",
)  # fmt: skip
@options.DEVICE
@options.JSON
def worker(path: Path, index: int, device: str, *, as_json: bool) -> None:
    """Run one task of a file: what clusters call.

    It trains a job and evaluates it, or measures one curve of a range test, from where an earlier attempt has
    left it, and prints one line about how it ended. SIGTERM stops it after the running epoch, with the
    checkpoint kept. A task that another process runs is waited for, and the error stream says so.

    Exit codes: 0 done (also a training that diverged), 1 failed or out of memory, 2 the file, the store,
    its disk or the GPU cannot be used, 130 stopped: the same command goes on.

    \b
    Example:
      ablate worker --tasks tasks.jsonl --index 3
      sbatch --array=0-59 --wrap 'ablate worker --tasks tasks.jsonl'
    """
    from ablate.execution.interruption import Interruption
    from ablate.messages import printable
    from ablate.workflow import answers
    from ablate.workflow import worker as workflow

    terminal = os.dup(2)  # while it runs, whatever is printed goes to the log of the job
    with (
        Interruption() as interruption,
        os.fdopen(terminal, "w", buffering=1, errors="backslashreplace") as errors,
    ):
        ended = workflow.run(
            path, index, device, lambda text: click.echo(printable(text), file=errors), interruption.asked
        )
    click.echo(answers.line(ended) if as_json else _line(ended))
    sys.exit(EXIT.get(ended.kind, 1))


def _line(ended: "Ended") -> str:
    """Return how a task ended, in one line."""
    from ablate.messages import printable

    if ended.kind == "stopped":
        return f"{ended.name}: stopped; the same command goes on from its last epoch"
    if ended.kind == "finished":
        return f"{ended.name}: {ended.status or 'finished'}"
    reason = next(iter(ended.error.splitlines()), "")
    return printable(f"{ended.name}: {ended.kind.replace('_', ' ')}: {reason}")
