"""Person file + prompt -> pictures."""
