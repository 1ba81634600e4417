"""A small world in which the same classes and the same code run: tiny models, drawn persons with known truth."""
