"""The demo task: small videos whose class only the order of two events decides, in the layout of Kinetics.

One shape rests at one place and does two short events, with still frames before, between and after. The
two classes of a pair hold the same events in either order. A rest of at least two frames keeps every
window of three frames to one event, and both events start at frames of the same parity: so a network
that sees no more than the stem's windows (three frames, every second one) sees the same set of windows
for both classes, and is right half of the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from morphmlp.data.synthetic.drawing import SHAPES, as_pixels, distance_from_shape, painted, smooth_background

PAIRS = (
    ("wiggle across", "wiggle down"),
    ("pulse", "blink"),
    ("wiggle across", "pulse"),
    ("wiggle down", "blink"),
)
CLASS_NAMES = tuple(sorted(f"{first} then {second}" for a, b in PAIRS for first, second in ((a, b), (b, a))))
"""Alphabetical, the order that annotations without a class list get."""

WIDTH, HEIGHT = 40, 36
NUM_FRAMES = 18
EVENT_FRAMES = 3
RESTS = (3, 5)
"""Still frames between the events; odd, so that both events start at the same parity."""
FIRST_EVENT, LAST_EVENT_END = 4, 15
"""The events lie in frames [4, 15): inside every 16-frame window, with two still frames before them, so that the zeros
that the stem sees before the first frame are never next to an event, and one after them."""
_TIMES = tuple(
    (start, rest) for rest in RESTS for start in range(FIRST_EVENT, LAST_EVENT_END - rest - 2 * EVENT_FRAMES + 1)
)


@dataclass(frozen=True)
class Scene:
    """Every random choice of a demo video, except its class: the two classes of a pair draw from the same scenes."""

    start: int
    """Frame at which the first event begins."""
    rest: int
    """Still frames between the events."""
    shape: int
    """Index into `drawing.SHAPES`."""
    centre: tuple[float, float]
    """Column and row of the shape's centre, pixels."""
    radius: float
    """Half width of the shape, pixels."""
    reach: float
    """Greatest shift of a wiggle, pixels; below 0 the wiggle begins to the left or upwards."""
    growth: float
    """Greatest share by which a pulse grows the shape."""
    colour: tuple[float, float, float]
    """Colour of the shape, RGB 0-255."""
    background: NDArray[np.float32]
    """Rows x columns x RGB, 0-255."""


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene; the shape is at least 80 grey levels brighter or darker than what lies behind it."""
    start, rest = _TIMES[rng.integers(len(_TIMES))]
    dark = bool(rng.integers(2))
    ground = rng.uniform(150, 215) if dark else rng.uniform(40, 105)
    figure = ground + (-1 if dark else 1) * rng.uniform(80, 110) + rng.uniform(-20, 20, 3)
    return Scene(
        start=start,
        rest=rest,
        shape=int(rng.integers(3)),
        centre=(WIDTH / 2 + rng.uniform(-2, 2), HEIGHT / 2 + rng.uniform(-2, 2)),
        radius=rng.uniform(4.5, 6.0),
        reach=rng.uniform(4.0, 5.5) * (1 if rng.integers(2) else -1),
        growth=rng.uniform(0.6, 0.9),
        colour=(float(figure[0]), float(figure[1]), float(figure[2])),
        background=smooth_background(rng, ground, height=HEIGHT, width=WIDTH),
    )


def render(scene: Scene, label: int, *, rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
    """The frames of a scene under one of `CLASS_NAMES`: `t h w 3`, RGB; with camera noise where `rng` draws it."""
    return render_events(scene, CLASS_NAMES[label].split(" then "), rng=rng)


def render_events(scene: Scene, events: Sequence[str], *, rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
    """The frames of a scene with these events (names in `PAIRS`) one after the other, as `render`."""
    shift_x, shift_y, scale, opacity = _motion(scene, events)
    columns = np.arange(WIDTH)[None, None, :] + 0.5 - scene.centre[0] - shift_x[:, None, None]
    rows = np.arange(HEIGHT)[None, :, None] + 0.5 - scene.centre[1] - shift_y[:, None, None]
    distance = distance_from_shape(SHAPES[scene.shape], columns, rows, scene.radius * scale[:, None, None])
    frames = painted(scene.background, distance, scene.colour, opacity[:, None, None])
    return as_pixels(frames, rng=rng)


def _motion(scene: Scene, events: Sequence[str]) -> NDArray[np.float64]:
    """Shift across, shift down, scale and opacity of the shape, each by frame; at rest 0, 0, 1, 1."""
    motion = np.repeat([[0.0], [0.0], [1.0], [1.0]], NUM_FRAMES, axis=1)
    shift_x, shift_y, scale, opacity = motion
    begin = scene.start
    for event in events:
        during = slice(begin, begin + EVENT_FRAMES)
        if event == "wiggle across":
            shift_x[during] = (scene.reach, -scene.reach, scene.reach)
        elif event == "wiggle down":
            shift_y[during] = (scene.reach, -scene.reach, scene.reach)
        elif event == "pulse":
            scale[during] = 1 + scene.growth
        else:
            opacity[during] = 0.0
        begin += EVENT_FRAMES + scene.rest
    return motion
