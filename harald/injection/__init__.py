"""Person tokens + prompt -> the conditioning of the frozen base model."""
