"""A study against its store: its cells and jobs, what is left to do, how long it takes, what it refers to."""
