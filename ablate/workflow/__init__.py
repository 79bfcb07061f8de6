"""The story of each command as a few named steps; it returns plain values."""
