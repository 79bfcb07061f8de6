"""How far a study is, and how the terminal shows it."""

import io

import record_files
from rich.console import Console

from ablate.analysis import outcomes
from ablate.analysis.status import Status, summarise
from ablate.cli.status import show_status
from ablate.planning.plan import Plan
from ablate.recipe import identity
from ablate.recipe.fields import Evaluation
from ablate.store import files
from ablate.store.layout import Store
from ablate.study.grid import Job


def status(made: Plan, here: Store) -> Status:
    return summarise(outcomes.read(made.runs, here))


def shown(found: Status, *, terminal: bool = False, width: int = 80) -> str:
    out = io.StringIO()
    show_status(
        Console(file=out, force_terminal=terminal, width=width, highlight=False, color_system=None), found
    )
    return out.getvalue()


def judge(
    here: Store, job: Job, status: str = "finished", reason: str = "", evaluation: Evaluation | None = None
) -> None:
    judged = job.recipe.model_copy(update={"evaluation": evaluation or Evaluation()})
    confusion = [[10, 0], [10, 0]] if status == "at_chance" else [[9, 1], [1, 9]]
    content = record_files.evaluation(
        status=status, reason=reason, metrics={"test/accuracy": 0.9}, classes=["a", "b"], confusion=confusion
    )
    files.write_json(here.job(job.id).outcome(identity.evaluation_id(judged)) / "outcome.json", content)
