"""Every file on disk: where it lies, how it is written, who holds it."""
