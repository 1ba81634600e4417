"""Flow matching to the tokens: loop, randomness, checkpoints, tracking."""
