"""What a study is in a store: its cells and jobs, what is left to do, how long it takes, what refers to what."""
