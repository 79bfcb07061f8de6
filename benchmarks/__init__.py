"""Speed, side by side with what people do today: `python -m benchmarks`.

Nothing here is part of the installed package.
"""
