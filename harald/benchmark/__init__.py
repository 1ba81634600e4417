"""What the full shapes cost on this machine: our path and what one would use instead, in one process, in turn."""
