"""harald: a person, looking as they look now, in a new picture."""

__version__ = "0.1.0"
