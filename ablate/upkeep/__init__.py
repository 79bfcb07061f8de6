"""The care of a store: the doctor, what nobody needs, and what killed processes have left."""
