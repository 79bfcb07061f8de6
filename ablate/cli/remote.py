"""Commands that may mean a service instead of a store here: `--server`, or the variable ABLATE_SERVER."""

import functools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ablate.messages import printable

if TYPE_CHECKING:
    from ablate.serve.client import Client

SERVER = click.option(
    "--server", metavar="URL", envvar="ABLATE_SERVER", show_envvar=True,
    help="Ask this service, instead of a store here.",
)  # fmt: skip


def client(server: str | None, store_path: str) -> "Client | None":
    """Return the service that a command line means; None where it means a store here."""
    sources = click.get_current_context().get_parameter_source
    is_store = sources("store_path") == ParameterSource.COMMANDLINE
    if server is None or (is_store and sources("server") != ParameterSource.COMMANDLINE):
        return None
    if is_store:
        raise click.UsageError("--server and --store are two places: choose one of them")
    from ablate.serve.client import connect

    return connect(server, Path(store_path))


def reachable(command: Callable[..., None]) -> Callable[..., None]:
    """Add --server to a command; with it, the function of its name here is called instead."""

    @functools.wraps(command)
    def either(*, server: str | None, **given: Any) -> None:
        service = client(server, given["store_path"])
        if service is None:
            command(**given)
        else:
            del given["store_path"]
            REMOTE[command.__name__](service, **given)

    return SERVER(either)


def _name(study: str, **others: Any) -> str:
    """Return the name of a study: a file's, or as it is. Raises a UsageError for options of a store here."""
    from ablate.study import file
    from ablate.workflow import argument

    used = [f"--{name}" for name, value in others.items() if value]
    if used:
        raise click.UsageError(f"{', '.join(used)} cannot be used with --server, which shows what was run")
    if not argument.is_file(study):
        return study
    return file.parse(argument.read(study), study, (), str(Path(study).absolute().parent)).name


def status(
    service: "Client", *, study: str | None, sets: tuple[str, ...], seeds: int | None, as_json: bool,
    watch: bool,
) -> None:  # fmt: skip
    """Show the progress of a study of a service, or list its studies."""
    from ablate.analysis import status as standing
    from ablate.cli import status as local
    from ablate.cli import terminal
    from ablate.workflow import answers

    console = terminal.console()
    if study is None:
        if watch or sets or seeds:
            raise click.UsageError("--watch, --set and --seeds need a STUDY")
        studies = service.studies()
        if as_json:
            click.echo(answers.text(studies))
        else:
            local.show_studies(console, studies, Path(service.server))
        return
    read = partial(service.status, _name(study, set=sets, seeds=seeds))
    if watch:
        local.show_changes(console, standing.follow(read), as_json=as_json)
    elif as_json:
        click.echo(answers.text(read()))
    else:
        local.show_status(console, read())


def logs(service: "Client", *, job: str, follow: bool) -> None:
    """Print the log of a job of a service."""
    from ablate.cli import logs as local

    local.show(service.log(job, follow=follow), follow=follow)


def report(
    service: "Client", *, study: str, sets: tuple[str, ...], seeds: int | None, form: str | None,
    out: Path | None, metric: str | None, cells: tuple[str, ...], figures: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Print the report of a study of a service, or where its page is."""
    from ablate.cli import report as local
    from ablate.report import publish
    from ablate.serve.addresses import segment

    form = local.form_of(form, as_json=as_json)
    is_page = form == "html"
    name = _name(study, set=sets, seeds=seeds, cell=cells, figures=figures, metric=metric if is_page else "")
    if is_page and out is None:
        click.echo(f"{service.server}/studies/{segment(name)}/report")
        return
    content = service.page(name).decode() if is_page else service.report(name, form, metric)
    if out is None:
        click.echo(content, nl=False)
    else:
        publish.write(out, content)
        click.echo(str(out))


def check(
    service: "Client", *, study: str, sets: tuple[str, ...], seeds: int | None, as_json: bool, strict: bool
) -> None:
    """Test the claims of a study of a service."""
    from ablate.report import publish

    answer = service.check(_name(study, set=sets, seeds=seeds), strict=strict)
    click.echo(publish.json_text(answer["claims"]) if as_json else answer["text"], nl=False)
    if answer["note"]:
        click.echo(printable(answer["note"]), err=True)
    sys.exit(answer["exit_code"])


REMOTE: dict[str, Callable[..., None]] = {"status": status, "logs": logs, "report": report, "check": check}
