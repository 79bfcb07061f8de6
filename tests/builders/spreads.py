"""Per-seed differences for the statistics."""

from hypothesis import settings
from hypothesis import strategies as st

quick = settings(max_examples=150, deadline=None)
numbers = st.floats(-100, 100).map(lambda x: round(x, 4))
samples = st.lists(numbers, min_size=2, max_size=12)
families = st.integers(1, 40)
min_effects = st.none() | st.floats(1e-3, 1e3)
