"""References -> person tokens."""
