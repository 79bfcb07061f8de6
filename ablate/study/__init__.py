"""A study file: TOML to a checked Study, its factors, claims and conditions, and its cells."""
