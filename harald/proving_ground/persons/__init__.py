"""Synthetic persons with known truth: who they are, how they look now, the views of them, and the pictures."""

from harald.proving_ground.persons.picture import Picture
from harald.proving_ground.persons.truth import ATTRIBUTES, HIDDEN, SOMETIMES_HIDDEN, STATE_ATTRIBUTES, VIEW_ATTRIBUTES
from harald.proving_ground.persons.world import SIDE, Person, Rendered, person, pictures, rendered, state_id

__all__ = [
    "ATTRIBUTES",
    "HIDDEN",
    "SIDE",
    "SOMETIMES_HIDDEN",
    "STATE_ATTRIBUTES",
    "VIEW_ATTRIBUTES",
    "Person",
    "Picture",
    "Rendered",
    "person",
    "pictures",
    "rendered",
    "state_id",
]
