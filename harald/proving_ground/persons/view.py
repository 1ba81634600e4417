"""One picture of a state: domain, scene, expression, pose, framing, light."""

from dataclasses import dataclass
from random import Random

DOMAINS = ("photo", "comic")
SCENES = {
    "park": "in a park",
    "beach": "on a beach",
    "city": "in a city street",
    "office": "in an office",
    "studio": "in a studio",
    "forest": "in a forest",
    "night": "on a street at night",
    "cafe": "in a cafe",
    "mountains": "in the mountains",
    "sunset": "at sunset",
    "library": "in a library",
}
POSES = {
    "front": "facing the camera",
    "left": "turned to the left",
    "right": "turned to the right",
    "up": "looking up",
    "down": "looking down",
}
EXPRESSIONS: dict[str, str] = {
    "neutral": "with a neutral face",
    "smiling": "smiling",
    "laughing": "laughing",
    "surprised": "surprised",
    "angry": "angry",
    "sad": "sad",
    "winking": "winking",
    "sleeping": "with closed eyes",
}


@dataclass(frozen=True)
class View:
    """Angles in radians, lengths in decimetres. yaw > 0 turns to the right of the picture, pitch > 0 down."""

    domain: str
    number: int
    scene: str
    expression: str
    pose: str
    yaw: float
    pitch: float
    roll: float
    body_yaw: float
    half_height: float  # of what the picture shows
    shift: tuple[float, float]
    gaze: tuple[float, float]
    strength: float  # of the expression
    light: tuple[float, float]  # azimuth and elevation
    warmth: float
    brightness: float
    backdrop_seed: int

    @property
    def framing(self) -> str:
        return "close-up" if self.half_height < 1.75 else "portrait"

    def words(self) -> list[str]:
        return [self.framing, EXPRESSIONS[self.expression], POSES[self.pose], SCENES[self.scene]]


_POSE_ANGLES = {"front": (0, 0), "left": (-0.58, 0), "right": (0.58, 0), "up": (0, -0.40), "down": (0, 0.34)}


def draw_view(choices: Random, domain: str, number: int) -> View:
    pose = choices.choice(tuple(POSES))
    yaw, pitch = _POSE_ANGLES[pose]
    yaw += choices.uniform(-0.13, 0.13)
    pitch += choices.uniform(-0.07, 0.07)
    return View(
        domain=domain,
        number=number,
        scene=choices.choice(tuple(SCENES)),
        expression=choices.choice(tuple(EXPRESSIONS)),
        pose=pose,
        yaw=yaw,
        pitch=pitch,
        roll=choices.gauss(0, 0.06),
        body_yaw=yaw * choices.uniform(0, 0.6) + choices.gauss(0, 0.1),
        half_height=choices.uniform(1.64, 1.86),
        shift=(choices.uniform(-0.14, 0.14), choices.uniform(-0.06, 0.06)),
        gaze=(choices.gauss(0, 0.10), choices.gauss(0, 0.05)),
        strength=choices.uniform(0.9, 1.15),
        light=(choices.uniform(-1.0, 1.0), choices.uniform(0.2, 0.8)),
        warmth=choices.uniform(-0.10, 0.10),
        brightness=choices.uniform(0.9, 1.1),
        backdrop_seed=choices.randrange(1 << 30),
    )
