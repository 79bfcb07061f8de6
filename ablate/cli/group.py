"""The command `ablate`: its table of commands, each imported when it is called, and how errors end it.

Exit codes: 0 done, 1 some jobs failed (the report is still written) or a claim is refuted, 2 the user's
mistake, 3 no claim could be tested, or one is open under `check --strict`, 130 interrupted, by Ctrl-C or by
the end of `--budget`, 141 whoever read the output has gone, as after `| head`.
"""

import atexit
import errno
import gc
import os
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn, TextIO

import click

from ablate import __version__
from ablate.cli import streams
from ablate.errors import AblateError

NO_READER = 141
"""128 + SIGPIPE: what a shell reports of a program that was stopped by writing to a closed pipe."""


@dataclass(frozen=True, slots=True)
class Row:
    """A command: its module in `ablate.cli`, which has it under that name too, and its help in a line."""

    module: str
    help: str
    is_hidden: bool = False  # left out of the list in `ablate --help`


COMMANDS: Mapping[str, Row] = {
    "init": Row("init", "Write a study file to begin with"),
    "plan": Row("plan", "Show what a run would do: cells, jobs, time, detectable effects"),
    "run": Row("run", "Train every cell under every seed, and report the effects"),
    "search": Row("search", "Run the range tests and searches of a study, and nothing else"),
    "lr-find": Row("lr_find", "Find a learning rate by a range test"),
    "status": Row("status", "Show the progress of a study, or list the studies of a store"),
    "logs": Row("logs", "Print the log of a job"),
    "report": Row("report", "Write the report: a page, JSON, Markdown, LaTeX or CSV"),
    "check": Row("check", "Test the claims of a study, with an exit code for CI"),
    "compare": Row("compare", "Compare two studies, or two cells of one study"),
    "explain": Row("explain", "Show what a job consists of, or how two jobs differ"),
    "predict": Row("predict", "Classify images with the network of a finished run"),
    "serve": Row("serve", "Run the submissions of a store, with an HTTP interface and pages"),
    "submit": Row("submit", "Put a study into the queue, to be run by `ablate serve`"),
    "queue": Row("queue", "List the submissions: running, waiting in their order, ended"),
    "cancel": Row("cancel", "End a submission for good"),
    "pause": Row("pause", "Let a submission wait until it is resumed"),
    "resume": Row("resume", "Let a submission go on"),
    "move": Row("move", "Change the place of a submission in the queue"),
    "export": Row("export", "Write the network of a finished run for use without ablate"),
    "ui": Row("ui", "Open the store in MLflow's web interface"),
    "sync": Row("sync", "Send MLflow what it is missing of a study"),
    "doctor": Row("doctor", "Check a store and this machine for problems"),
    "gc": Row("gc", "Remove what no study of a store needs"),
    "schema": Row("schema", "Print the JSON Schema of study files, for editors"),
    "worker": Row("worker", "Run one task of a file: what clusters call", is_hidden=True),
}
"""In the order of `ablate --help`. A new command is a file of this package and a row here."""

SELDOM = (100_000, 50, 50)
"""Collections: by default they take a sixth of the time that 10,000 runs are read in, and find nothing."""


def _leave() -> None:
    """Spare the interpreter's end its walks through all objects: 0.9 s with MLflow and pandas."""
    if "torch" not in sys.modules:  # libraries that it brings complain of objects that are left
        gc.freeze()


class Group(click.Group):
    """The commands of the table, and errors as sentences without a traceback."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None where the table has none of this name."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        command: click.Command = getattr(import_module(f"ablate.cli.{row.module}"), row.module)
        command.hidden = row.is_hidden  # also from a shell's completion
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:  # fmt: skip
        """Find the command that is meant; a misspelt one is answered with the nearest."""
        name, dashed = args[0], args[0].startswith("-")
        if name not in COMMANDS and not dashed and not ctx.resilient_parsing:
            from ablate.messages import near

            ctx.fail(f"No such command '{name}'{near(name, COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.help) for name, row in COMMANDS.items() if not row.is_hidden])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, with the terminal guarded from the first word on."""
        streams.guard()
        gc.set_threshold(*SELDOM)
        atexit.register(_leave)
        with _safe_path():
            return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a user's mistake ends it with 2, Ctrl-C with 130, a lost reader with 141."""
        from ablate.messages import printable

        try:
            return super().invoke(ctx)
        except AblateError as error:
            click.echo(printable(str(error)), err=True)
            sys.exit(2)
        except OSError as error:
            if error.errno == errno.EPIPE:
                if any(lost_reader(stream) for stream in (sys.stdout, sys.stderr)):
                    end_unread()
                raise RuntimeError("a pipe to another process is broken") from error  # click would hide it
            if error.filename is None:
                raise
            reason = f"{error.filename}: cannot be used: {error.strerror}: check the path and its permissions"
            click.echo(printable(reason), err=True)
            sys.exit(2)
        except EOFError as error:
            raise RuntimeError("a file ends too early") from error  # click would say Aborted! and hide it
        except KeyboardInterrupt:
            click.echo("interrupted; everything that was finished is kept", err=True)
            sys.exit(130)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Let no child, whichever library starts it, import anything from the current directory."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:  # of whoever calls the command as a function
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def lost_reader(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nobody reads any more."""
    watch = select.poll()
    try:
        watch.register(stream.fileno(), 0)  # errors are told whatever is asked for
    except (OSError, ValueError):  # not a file, or closed
        return False
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in watch.poll(0))


def end_unread() -> NoReturn:
    """End the process without a word, as nobody reads it; what was finished is kept."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if lost_reader(stream):  # Python would write what is left in its buffer at the end, and complain
            os.dup2(nowhere, stream.fileno())
    sys.exit(NO_READER)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ablate")
def main() -> None:
    """Find out which of your training choices really help.

    \b
    Example:
      ablate plan studies/quickstart.toml
      ablate run studies/quickstart.toml
      ablate report studies/quickstart.toml
      ablate ui

    Every command that shows something has --json: JSON goes to stdout, notes and progress to stderr.
    """
