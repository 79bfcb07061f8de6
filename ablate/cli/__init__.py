"""The commands, one a file: its options, one workflow call, what the terminal shows. The only home of click and rich."""

from ablate.cli.group import main

__all__ = ["main"]
