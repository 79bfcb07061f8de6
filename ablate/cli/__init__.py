"""The commands: options to one workflow call to an exit code. The only home of click; no logic lives here."""

from ablate.cli import keeping, looking, running, worker
from ablate.cli.group import main

for command in (
    running.run, running.search, running.lr_find, running.plan,
    looking.status, looking.logs, looking.explain, looking.report, looking.check, looking.compare,
    keeping.sync, keeping.ui, keeping.doctor, keeping.gc, worker.worker,
):  # fmt: skip
    main.add_command(command)

__all__ = ["main"]
