"""Training of the small models from nothing, on synthetic persons, in segments of a few minutes."""
