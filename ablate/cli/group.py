"""The command `ablate` itself, and what becomes of errors.

Exit codes: 0 done, 1 some jobs failed (the report is still written) or a claim is refuted, 2 the user's mistake, 3 no
claim could be tested, or one is open under `check --strict`, 130 interrupted, by Ctrl-C or by the end of `--budget`.
"""

import sys
from typing import Any

import click

from ablate import __version__
from ablate.errors import AblateError


class Group(click.Group):
    """Prints the mistakes of users as sentences, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an AblateError, and a path that cannot be used, end with exit code 2, a Ctrl-C with 130."""
        try:
            return super().invoke(ctx)
        except AblateError as error:
            from ablate.messages import printable

            click.echo(printable(str(error)), err=True)
            sys.exit(2)
        except OSError as error:
            if error.filename is None:
                raise
            from ablate.messages import printable

            said = f"{error.filename}: cannot be used: {error.strerror}: check the path and its permissions"
            click.echo(printable(said), err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted; everything that was finished is kept", err=True)
            sys.exit(130)


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
    """
