"""One training run: its fields, what identifies it, and the tables of what it can name."""
