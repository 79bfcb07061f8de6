"""One file a command: options, one workflow call, what the terminal shows. The home of click and rich."""

from ablate.cli.group import main

__all__ = ["main"]
