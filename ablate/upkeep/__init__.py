"""The care of a store: the doctor, garbage, and the leftovers of killed processes."""
