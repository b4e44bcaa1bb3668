"""What the stand-ins for Something-Something show: a hand moves a shape, and the class says how.

Four classes are two mirrored pairs: a film of "from left to right", mirrored, is one of "from right to left". Whoever
mirrors training clips can't distinguish them. Pushing and pulling differ in where the hand is, behind the shape or in
front; a single frame of a push to the right could as well come from a pull to the left. The other four stay what they
are in a mirror. Templates are those of the data set.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from morphmlp.data.synthetic.drawing import SHAPES, Shape, as_pixels, distance_from_shape, painted, smooth_background

TEMPLATES = (
    "Moving [something] away from the camera",
    "Moving [something] down",
    "Moving [something] towards the camera",
    "Moving [something] up",
    "Pulling [something] from left to right",
    "Pulling [something] from right to left",
    "Pushing [something] from left to right",
    "Pushing [something] from right to left",
)
"""In label order, which is alphabetical."""
MIRRORED = {4: 5, 5: 4, 6: 7, 7: 6}
"""The classes that a mirror turns into each other; it leaves all others as they are."""

WIDTH, HEIGHT = 48, 36
FRAME_RATE = 12
"""Frames per second, as the data sets are distributed."""
NUM_FRAMES = (18, 48)
"""Least and greatest length of a video."""
_HAND_HALF_WIDTH = 2.5


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Every random choice of a video, except its class."""

    num_frames: int
    """Length of the video."""
    begin: float
    """Share of the video before the motion."""
    end: float
    """Share of the video when it is over."""
    shape: Shape
    """What is moved."""
    radius: float
    """Half width of the shape, pixels."""
    centre: tuple[float, float]
    """Column and row of the middle of its way, pixels."""
    way: float
    """Length of its way, pixels; towards or away from the camera it grows or shrinks instead."""
    hand_on_left: bool
    """Side of the hand where the class doesn't say it."""
    colour: tuple[float, float, float]
    """Colour of the shape, RGB 0-255."""
    hand_colour: tuple[float, float, float]
    """Colour of the hand, RGB 0-255."""
    background: NDArray[np.float32]
    """Rows x columns x RGB, 0-255."""


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; a scene is as likely as its mirror image."""
    green, blue = rng.uniform(120, 220, 2)
    return Scene(
        num_frames=int(rng.integers(NUM_FRAMES[0], NUM_FRAMES[1] + 1)),
        begin=rng.uniform(0, 0.2),
        end=rng.uniform(0.8, 1),
        shape=SHAPES[rng.integers(len(SHAPES))],
        radius=rng.uniform(3.5, 5),
        centre=(WIDTH / 2 + rng.uniform(-2, 2), HEIGHT / 2 + rng.uniform(-3, 3)),
        way=rng.uniform(10, 15),
        hand_on_left=bool(rng.integers(2)),
        colour=(rng.uniform(30, 80), green, blue),
        hand_colour=(rng.uniform(200, 235), rng.uniform(150, 175), rng.uniform(115, 140)),
        background=smooth_background(rng, rng.uniform(40, 105), height=HEIGHT, width=WIDTH),
    )


def render(scene: Scene, label: int, *, rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
    """The frames of a scene under one of `TEMPLATES`: `t h w 3`, RGB; with camera noise where `rng` draws it."""
    across, down, growth, hand_on_left = _motion(scene, label)
    columns = np.arange(WIDTH)[None, None, :] + 0.5 - (scene.centre[0] + across)[:, None, None]
    rows = np.arange(HEIGHT)[None, :, None] + 0.5 - (scene.centre[1] + down)[:, None, None]
    radius = (scene.radius * growth)[:, None, None]
    frames = painted(scene.background, distance_from_shape(scene.shape, columns, rows, radius), scene.colour)
    offset = (radius + _HAND_HALF_WIDTH) * (-1 if hand_on_left else 1)
    # An arm that comes in from below and ends in a fist next to the shape.
    hand = np.maximum(np.abs(columns - offset) - _HAND_HALF_WIDTH, -3.5 - rows)
    return as_pixels(painted(frames, hand, scene.hand_colour), rng=rng)


def _motion(scene: Scene, label: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], bool]:
    """Shift across, shift down and growth of the shape, each by frame; and whether the hand is on its left."""
    template = TEMPLATES[label]
    progress = np.clip((np.linspace(0, 1, scene.num_frames) - scene.begin) / (scene.end - scene.begin), 0, 1)
    along = (progress - 0.5) * scene.way
    still, as_is = np.zeros_like(along), np.ones_like(along)
    if template.endswith(("from left to right", "from right to left")):
        rightwards = template.endswith("right")
        pushed = template.startswith("Pushing")
        return (along if rightwards else -along), still, as_is, rightwards == pushed
    if template.endswith(("up", "down")):
        return still, (along if template.endswith("down") else -along), as_is, scene.hand_on_left
    towards = "towards" in template
    return still, still, 0.65 * 2.3 ** (progress if towards else 1 - progress), scene.hand_on_left
