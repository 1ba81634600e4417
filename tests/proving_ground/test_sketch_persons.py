import numpy as np

from harald.proving_ground import sketch_persons
from harald.proving_ground.sketch_drawing import draw_view
from harald.proving_ground.sketch_face import MIMICS
from harald.proving_ground.sketch_persons import EXPRESSIONS, SCENES, TILTS, SketchView, sketch_state, state_id
from harald.proving_ground.sketch_scenes import _PAINTERS


def pixels(state, view, side=32):
    return np.asarray(draw_view(state, view, side)).astype(int)


def test_same_seed_draws_the_same_bytes_and_another_seed_others():
    first, again, other = sketch_state(0, 3), sketch_state(0, 3), sketch_state(1, 3)
    assert first == again != other
    for view in (first.views[0], first.views[-1]):
        assert (pixels(first, view) == pixels(again, view)).all()


def test_twins_share_the_identity_and_differ_in_the_state():
    for index in range(0, 60, 2):
        one, two = sketch_state(0, index), sketch_state(0, index + 1)
        assert one.identity == two.identity
        assert one.look.hair != two.look.hair
        assert one.look.glasses != two.look.glasses
        assert one.description() != two.description()
        assert one.identity != sketch_state(0, index + 2).identity


def test_state_ids_are_unique():
    assert len({state_id(5, index) for index in range(20_000)}) == 20_000


def test_views_are_half_photo_half_comic_and_numbered():
    views = sketch_state(0, 0, views=8).views
    assert [(v.domain, v.number) for v in views] == [(d, n) for d in ("photo", "comic") for n in (1, 2, 3, 4)]


def test_every_choice_can_be_drawn_and_shows():
    state = sketch_state(0, 0)
    assert set(MIMICS) == set(EXPRESSIONS)
    assert set(_PAINTERS) == set(SCENES)

    def view(**changes):
        fields = {"domain": "comic", "number": 1, "scene": SCENES[0], "expression": EXPRESSIONS[0], "pose": "",
                  "jitter": (0.0, 0.0), "noise": 1} | changes  # fmt: skip
        return pixels(state, SketchView(**fields)).tobytes()

    for name, options in (
        ("scene", SCENES),
        ("expression", EXPRESSIONS),
        ("pose", TILTS),
        ("domain", ("photo", "comic")),
    ):
        assert len({view(**{name: option}) for option in options}) == len(options)


def test_every_look_changes_the_picture():
    import dataclasses

    state = sketch_state(0, 0)
    bare = dataclasses.replace(state, look=sketch_persons.Look("short", "red", "", "", "", "", "blue"))
    options = {
        "hair": sketch_persons.HAIR_STYLES,
        "hair_colour": sorted(sketch_persons.HAIR_COLOURS),
        "beard": ("", "full beard", "moustache", "goatee"),
        "glasses": ("", "round", "square", "sun"),
        "earrings": ("", "hoop earrings", "pearl earrings"),
        "hat": ("", "beanie", "straw hat"),
        "clothes": sorted(sketch_persons.CLOTHES),
    }
    for field, values in options.items():
        looks = [dataclasses.replace(bare, look=dataclasses.replace(bare.look, **{field: v})) for v in values]
        assert len({pixels(look, state.views[-1]).tobytes() for look in looks}) == len(values), field
        assert len({look.description() for look in looks}) == len(values), field
