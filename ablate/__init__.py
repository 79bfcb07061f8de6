"""ablate: which of your training choices really help? Imports nothing, so that everything can import it."""

__version__ = "0.1.0"
