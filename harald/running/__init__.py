"""A run while it runs: who may write into it, how it is watched and stopped, what it costs."""
