"""The demo task can be solved by the order of events and by nothing shorter."""

import dataclasses

import numpy as np
import pytest

from morphmlp.data.synthetic import demo_task
from morphmlp.data.synthetic.demo_task import CLASS_NAMES, NUM_FRAMES, draw_scene, render

CLIP_FRAMES = 16
STARTS = range(NUM_FRAMES - CLIP_FRAMES + 1)
PAIRS = [
    (CLASS_NAMES.index(f"{first} then {second}"), CLASS_NAMES.index(f"{second} then {first}"))
    for first, second in demo_task.PAIRS
]


def windows(frames, *, start):
    """What the stem sees of a clip: three frames around every second one, zeros before the first."""
    clip = frames[start : start + CLIP_FRAMES]
    padded = np.concatenate([np.zeros_like(clip[:1]), clip])
    return [padded[place : place + 3].tobytes() for place in range(0, CLIP_FRAMES, 2)]


def scenes(count):
    rng = np.random.default_rng(0)
    return [draw_scene(rng) for _ in range(count)]


def test_there_are_eight_classes_in_alphabetical_order():
    assert len(set(CLASS_NAMES)) == 8
    assert list(CLASS_NAMES) == sorted(CLASS_NAMES)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: CLASS_NAMES[pair[0]])
def test_the_classes_of_a_pair_show_the_stem_the_same_windows_in_another_order(pair):
    for scene in scenes(30):
        first, second = (render(scene, label) for label in pair)
        for start in STARTS:
            mine, other = windows(first, start=start), windows(second, start=start)
            assert mine != other
            assert sorted(mine) == sorted(other)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: CLASS_NAMES[pair[0]])
def test_the_classes_of_a_pair_hold_the_same_windows_at_any_temporal_stride(pair):
    for scene in scenes(30):
        first, second = (render(scene, label) for label in pair)
        mine, other = (
            sorted(frames[place : place + 3].tobytes() for place in range(NUM_FRAMES - 2)) for frames in (first, second)
        )
        assert mine == other


def test_every_clip_begins_and_ends_still_and_holds_both_events():
    for scene in scenes(200):
        frames = render(scene, 0).astype(int)
        moving = np.flatnonzero(np.abs(frames - frames[0]).max(axis=(1, 2, 3)))
        assert moving[0] == scene.start
        assert moving[-1] == scene.start + 2 * demo_task.EVENT_FRAMES + scene.rest - 1
        for start in STARTS:
            assert start + 2 <= moving[0]
            assert moving[-1] < start + CLIP_FRAMES - 1


def test_events_start_at_even_and_at_odd_frames():
    parities = [scene.start % 2 for scene in scenes(500)]
    assert 0.1 < np.mean(parities) < 0.9


@pytest.mark.parametrize("label", range(8))
def test_a_mirrored_video_is_a_scene_of_the_same_class(label):
    for scene in scenes(10):
        column, row = scene.centre
        mirrored = dataclasses.replace(
            scene, centre=(demo_task.WIDTH - column, row), background=scene.background[:, ::-1]
        )
        turned = dataclasses.replace(mirrored, reach=-scene.reach)
        mirror, frames = render(scene, label)[:, :, ::-1].astype(int), (render(mirrored, label), render(turned, label))
        # The shape is symmetric; a wiggle across begins on the other side, a wiggle down as before.
        assert all(min(np.abs(mirror[time] - other[time]).max() for other in frames) <= 1 for time in range(NUM_FRAMES))


def test_the_action_stays_inside_the_centre_crop():
    margin = (demo_task.HEIGHT - 32) // 2, (demo_task.WIDTH - 32) // 2
    outside = np.ones((demo_task.HEIGHT, demo_task.WIDTH), bool)
    outside[margin[0] : -margin[0], margin[1] : -margin[1]] = False
    for scene in scenes(50):
        for label in range(8):
            frames = render(scene, label).astype(int)
            changed = np.abs(frames - frames[0]).max(axis=(0, 3)) > 0
            assert (changed & ~outside).sum() > 20
            assert (changed & outside).sum() == 0


def test_camera_noise_differs_from_frame_to_frame():
    scene = scenes(1)[0]
    frames = render(scene, 0, rng=np.random.default_rng(1)).astype(int)
    assert 2 < (frames[0] - frames[1]).std() < 7
