"""What counts as a copy: as many frames, at the same times, that show the same."""

import numpy as np
import pytest

from morphmlp.data.decoding.protocol import DecodedFrames, VideoInfo
from morphmlp.errors import CopyError
from morphmlp.preparation.likeness import Sample, least_psnr_db, require_same_times

NUM_FRAMES, HEIGHT, WIDTH = 20, 64, 96
TIMES = [number / 30 for number in range(NUM_FRAMES)]


def pictures():
    """Blocks of every brightness, in weak colours, that drift by half a block a frame."""
    rng = np.random.default_rng(0)
    blocks = (HEIGHT // 8, WIDTH // 8 + NUM_FRAMES)
    light = rng.integers(0, 256, (*blocks, 1)) + rng.integers(-20, 20, (*blocks, 3))
    wide = light.clip(0, 255).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([wide[:, 4 * number : 4 * number + WIDTH] for number in range(NUM_FRAMES)])


class Copy:
    """A copy as its reader gives it."""

    def __init__(self, frames, concealed=0):
        self._frames, self._concealed = frames, concealed

    def read(self, indices):
        return DecodedFrames(frames=self._frames[list(indices)], concealed=self._concealed)


def sample_of(frames, *, size=(WIDTH, HEIGHT)):
    sample = Sample(len(frames), width=size[0], height=size[1])
    for place, frame in enumerate(frames):
        if sample.needs(place):
            sample.take(place, frame)
    return sample


def scaled(levels):
    return levels.round().clip(0, 255).astype(np.uint8)


def noisy(frames):
    return scaled(frames + np.random.default_rng(1).normal(0, 8, frames.shape))


def without_sharp_colours(frames):
    """What 4:2:0 does: one colour for four pixels."""
    grey = frames.mean(axis=-1, keepdims=True)
    colour = frames - grey
    small = (colour[:, ::2, ::2] + colour[:, 1::2, ::2] + colour[:, ::2, 1::2] + colour[:, 1::2, 1::2]) / 4
    return scaled(grey + small.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("change", [lambda frames: frames, noisy, without_sharp_colours])
def test_what_coding_costs_is_let_pass(change):
    sample_of(pictures()).require_alike(Copy(change(pictures())), least_db=least_psnr_db(22))


@pytest.mark.parametrize(
    "change",
    {
        "full range taken for limited": lambda frames: scaled((frames - 16.0) * 255 / 219),
        "limited range taken for full": lambda frames: scaled(frames * 219 / 255 + 16.0),
        "the negative": lambda frames: 255 - frames,
        "grey": lambda frames: np.broadcast_to(np.uint8(128), frames.shape),
        "mirrored": lambda frames: frames[:, :, ::-1],
        "upside down": lambda frames: frames[:, ::-1],
        "the next frame": lambda frames: np.roll(frames, -1, axis=0),
        "two frames exchanged": lambda frames: frames[[1, 0, *range(2, NUM_FRAMES)]],
        "the last frame another one": lambda frames: frames[[*range(NUM_FRAMES - 1), 0]],
    }.items(),
    ids=lambda item: item[0],
)
def test_another_picture_is_refused(change):
    _, changed = change
    with pytest.raises(CopyError, match=r"pixels of frame \d+ .* PSNR [0-9.]+ dB, at least 34"):
        sample_of(pictures()).require_alike(Copy(changed(pictures())), least_db=least_psnr_db(22))


def test_other_colours_of_the_same_brightness_are_refused():
    grey = np.broadcast_to(np.uint8(100), (NUM_FRAMES, HEIGHT, WIDTH, 3))
    orange = np.broadcast_to(np.array([178, 70, 40], np.uint8), grey.shape)
    with pytest.raises(CopyError, match="colours of frame 0 differ"):
        sample_of(orange).require_alike(Copy(grey), least_db=least_psnr_db(22))


def test_a_copy_whose_frames_do_not_come_out_is_refused():
    with pytest.raises(CopyError, match="1 of 8 frames of the copy can't be decoded"):
        sample_of(pictures()).require_alike(Copy(pictures(), concealed=1), least_db=0)


def test_a_smaller_copy_is_compared_at_its_own_size():
    small = pictures().reshape(NUM_FRAMES, HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean(axis=(2, 4))
    sample = sample_of(pictures(), size=(WIDTH // 2, HEIGHT // 2))
    sample.require_alike(Copy(scaled(small)), least_db=40)


@pytest.mark.parametrize(("crf", "least_db"), [(0, 34), (22, 34), (32, 29)])
def test_coarse_coding_is_allowed_more(crf, least_db):
    assert least_psnr_db(crf) == least_db


def info(times):
    return VideoInfo(num_frames=len(times), fps=30.0, pts_s=tuple(times), width=96, height=64, codec="h264")


def test_times_count_from_the_first_frame():
    require_same_times(info([time - 5 for time in TIMES]), TIMES)
    require_same_times(info([0.0]), [7.0])


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        (TIMES[:-1], "19 frames, 20 of its source"),
        ([*TIMES, 1.0], "21 frames, 20 of its source"),
        ([*TIMES[:10], *(time + 0.02 for time in TIMES[10:])], r"frame 1\d of the copy is 0.0200 s off"),
        ([time * 1.01 for time in TIMES[:-1]] + [0.7], "frame 19 of the copy is"),
    ],
)
def test_other_times_are_refused(times, reason):
    with pytest.raises(CopyError, match=reason):
        require_same_times(info(times), TIMES)
