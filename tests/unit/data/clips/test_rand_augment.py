"""Every operation against PIL, which the published recipe uses, on pictures of several kinds."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from morphmlp.data.clips.draws import OPERATIONS, Operation, severity
from morphmlp.data.clips.rand_augment import rand_augment
from morphmlp.data.synthetic.kinetics_layout import realistic_frames

HEIGHT, WIDTH = 72, 95
WARPS = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}


def warped(picture, *matrix):
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)
    )


PIL = {
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "invert": lambda picture, _: ImageOps.invert(picture),
    "rotate": lambda picture, degrees: picture.rotate(
        degrees, resample=Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)
    ),
    "posterize": lambda picture, bits: ImageOps.posterize(picture, int(bits)),
    "solarize": lambda picture, threshold: ImageOps.solarize(picture, int(threshold)),
    "solarize_add": lambda picture, add: picture.point(
        [min(255, level + int(add)) if level < 128 else level for level in range(256)] * 3
    ),
    "color": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "sharpness": lambda picture, factor: ImageEnhance.Sharpness(picture).enhance(factor),
    "shear_x": lambda picture, slope: warped(picture, 1, slope, 0, 0, 1, 0),
    "shear_y": lambda picture, slope: warped(picture, 1, 0, 0, slope, 1, 0),
    "translate_x": lambda picture, share: warped(picture, 1, 0, share * picture.size[0], 0, 1, 0),
    "translate_y": lambda picture, share: warped(picture, 1, 0, 0, 0, 1, share * picture.size[1]),
}


def textures():
    frames = list(realistic_frames(np.random.default_rng(1), count=3))
    return np.stack([frame[60 : 60 + HEIGHT, 80 : 80 + WIDTH] for frame in frames])


def noise():
    return np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)


def faint():
    """Few grey levels, a frame of one colour, and one with a single pixel that differs."""
    frames = np.random.default_rng(0).integers(90, 110, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames[1] = (10, 200, 77)
    frames[2] = 50
    frames[2, 3, 4] = 60
    return frames


def edges():
    """Black and white, so that every overshoot is cut off."""
    return (noise() > 127).astype(np.uint8) * 255


PICTURES = {"textures": textures, "noise": noise, "faint": faint, "edges": edges}


def ours(frames, name, argument):
    return rand_augment(torch.from_numpy(frames), [Operation(name=name, argument=argument)]).numpy()


def theirs(frames, name, argument):
    return np.stack([np.asarray(PIL[name](Image.fromarray(frame), argument)) for frame in frames])


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_that_of_pil(name, kind):
    frames = PICTURES[kind]()
    for magnitude in (0.0, 3.1, 6.4, 7.0, 7.77, 9.9):
        for sign in (1, -1):
            argument = severity(name, magnitude, sign=sign)
            off = np.abs(ours(frames, name, argument).astype(int) - theirs(frames, name, argument))
            # PIL warps in double precision: a sum next to a whole number can fall on its other side.
            assert off.max() <= (1 if name in WARPS else 0), (argument, off.max())
            assert (off > 0).mean() < 0.002, (argument, (off > 0).mean())


@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_a_turn_by_right_angles_is_that_of_pil(degrees):
    frames = textures()[:, :, :HEIGHT]
    assert np.abs(ours(frames, "rotate", degrees).astype(int) - theirs(frames, "rotate", degrees)).max() <= 1


def test_no_bits_leave_black_as_in_the_pil_of_the_published_recipe():
    assert not ours(noise(), "posterize", 0).any()


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 2, 5, 3), (2, 5, 2, 3)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_tiny_frames_are_those_of_pil(name, shape):
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    argument = severity(name, 7, sign=1)
    assert np.abs(ours(frames, name, argument).astype(int) - theirs(frames, name, argument)).max() <= 1


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_clip_is_its_frames_one_by_one(name):
    frames, argument = textures(), severity(name, 7, sign=-1)
    single = np.concatenate([ours(np.stack([frame, frame]), name, argument)[:1] for frame in frames])
    assert (ours(frames, name, argument) == single).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_frames_that_come_in_stay_as_they_are_and_may_be_views(name):
    frames = noise()
    before, argument = frames.copy(), severity(name, 7, sign=1)
    whole = ours(frames, name, argument)
    assert (frames == before).all()
    view = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert (rand_augment(view, [Operation(name=name, argument=argument)]).numpy() == whole).all()


def test_operations_are_carried_out_in_their_order():
    frames = torch.from_numpy(noise())
    one, other = (Operation(name="solarize", argument=77), Operation(name="brightness", argument=0.5))
    there, back = rand_augment(frames, [one, other]), rand_augment(frames, [other, one])
    assert (there == rand_augment(rand_augment(frames, [one]), [other])).all()
    assert (there != back).any()


def test_without_operations_frames_come_back():
    frames = torch.from_numpy(noise())
    assert rand_augment(frames, []) is frames
