"""Trained encoder + held-out states -> numbers."""
