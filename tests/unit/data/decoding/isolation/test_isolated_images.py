"""Images that are decoded several at a time in a process apart: each is what it is alone, and fails alone."""

import numpy as np
import pytest
from PIL import Image

from morphmlp.data.decoding.isolation import isolated
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
from morphmlp.data.decoding.isolation.wire import OpenVideo
from morphmlp.data.decoding.stored_frames.image_bytes import StoredImage
from morphmlp.errors import DecodeError, DecoderCrashError, DecodeTimeoutError


def write_image(path, seed, *, mode="RGB", size=(30, 20), **options):
    soft = np.random.default_rng(seed).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    Image.fromarray(soft).resize(size, Image.Resampling.BILINEAR).convert(mode).save(path, **options)
    return path


def source(path):
    return OpenVideo(path=str(path), num_frames=None, crc32=None, image=StoredImage(as_stored=True))


def in_pillow(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def opener(monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    made = []

    def make(decoder="pyav", **limits):
        made.append(IsolatedVideos(decoder, Limits(**{"timeout_s": 20.0, **limits})))
        return made[-1]

    yield make
    for videos in made:
        videos.close()


def read_all(videos, sources):
    found = []
    while len(found) < len(sources):
        found += videos.read_images(sources[len(found) :])
    return found


@pytest.mark.parametrize("most_bytes", [1, 4_000, 10_000, 2**20])
def test_images_come_in_their_order_however_many_go_into_one_answer(most_bytes, opener, tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "MOST_IMAGE_BYTES", most_bytes)
    paths = [write_image(tmp_path / f"{n}.jpg", n, size=(20 + 3 * n, 30 - n)) for n in range(9)]
    images = read_all(opener(), [source(path) for path in paths])
    # All are held at once: memory that somebody looks at isn't written to again.
    for image, path in zip(images, paths, strict=True):
        expected = in_pillow(path)
        assert np.array_equal(image.read([0]).frames[0], expected)
        assert np.array_equal(image.read([0, 0, 0]).frames, np.stack([expected] * 3))
        assert (image.info.num_frames, image.info.height, image.info.width) == (1, *expected.shape[:2])


def test_an_image_that_cannot_be_used_leaves_the_others(opener, tmp_path):
    good = [write_image(tmp_path / f"{n}.jpg", n) for n in range(3)]
    (tmp_path / "text.jpg").write_text("no image")
    cmyk = write_image(tmp_path / "cmyk.jpg", 7, mode="CMYK")
    paths = [good[0], tmp_path / "text.jpg", good[1], tmp_path / "absent.jpg", cmyk, good[2]]
    found = read_all(opener(), [source(path) for path in paths])
    assert [isinstance(one, DecodeError) for one in found] == [False, True, False, True, False, False]
    assert "isn't an image" in str(found[1])
    assert "no such file" in str(found[3])
    assert [found[place].refused for place in (0, 2, 4, 5)] == [False, False, True, False]
    for place in (0, 2, 4, 5):
        assert np.array_equal(found[place].frame, in_pillow(paths[place]))


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("crash", DecoderCrashError, "SIGSEGV"),
        ("hang", DecodeTimeoutError, "1 s"),
        ("large", DecodeError, "more memory"),
    ],
)
def test_an_image_at_which_the_decoder_dies_or_hangs_costs_itself_alone(fault, error, words, opener, tmp_path):
    paths = [write_image(tmp_path / f"{n}.jpg", n, comment=b"please " + fault.encode() * (n == 2)) for n in range(5)]
    videos = opener("faulty_decoders:images_or_worse", timeout_s=1.0)
    found = read_all(videos, [source(path) for path in paths])
    assert isinstance(found[2], error)
    assert words in str(found[2])
    for place in (0, 1, 3, 4):
        assert np.array_equal(found[place].frame, in_pillow(paths[place]))


def test_a_folder_under_the_name_of_an_image_is_left_to_be_opened_as_a_video(opener, tmp_path):
    (tmp_path / "video.jpg").mkdir()
    for number in (1, 2):
        write_image(tmp_path / "video.jpg" / f"{number}.jpg", number)
    image = write_image(tmp_path / "image.jpg", 3)
    sources = [OpenVideo(path=str(path), num_frames=None, crc32=None) for path in (tmp_path / "video.jpg", image)]
    videos = opener()
    folder, opened = videos.read_images(sources)
    assert folder is None
    assert np.array_equal(opened.frame, in_pillow(image))
    assert videos.open(**vars(sources[0])).info.num_frames == 2
