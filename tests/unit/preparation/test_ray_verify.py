"""What a verification finds of one video, by the decoder's process and the manifest's own statements."""

import io
import zlib

import pyarrow as pa
import pytest
from coded_videos import CODINGS, NUM_FRAMES, write_video
from PIL import Image

from morphmlp.data.decoding.isolation.isolated import isolated_videos
from morphmlp.data.manifest import manifest_from_rows, write_manifest
from morphmlp.errors import DecodeError, ManifestError
from morphmlp.preparation.copies import CopyFiles
from morphmlp.preparation.copy_tasks import PackTask, TranscodeTask
from morphmlp.preparation.ray_copies import copy_job
from morphmlp.preparation.ray_verify import VERIFIED, VerifyTask, summary
from morphmlp.preparation.transcode_settings import TranscodeSettings

TASK = VerifyTask(decoder="pyav", timeout_s=20.0)


@pytest.fixture(scope="module", autouse=True)
def no_child_is_left():
    yield
    isolated_videos(TASK.decoder, TASK.limits()).close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("whole") / "whole.webm", CODINGS["VP9"])


def found(path, **listed):
    return TASK({"path": str(path), "num_frames": None, "duration_s": None, **listed})


def test_a_healthy_video_is_compared_and_nothing_is_found(whole):
    row = found(whole)
    assert (row["num_frames"], row["damaged_frames"], row["wrong_frames"]) == (NUM_FRAMES, 0, 0)
    assert row["compared_frames"] > 0
    assert row["cut_short"] == ""


def test_forty_percent_of_a_webm_are_found_to_be_cut_short(whole, tmp_path):
    cut = tmp_path / "cut.webm"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 5])
    row = found(cut)
    assert 0 < row["num_frames"] < NUM_FRAMES
    assert row["damaged_frames"] == 0
    assert row["cut_short"] == f"ends at {row['num_frames'] / 30:.1f} s of the 1.6 s that its container states"


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ({"duration_s": 2.0}, "ends at 1.6 s of the 2.0 s that the manifest states"),
        ({"num_frames": 60}, f"ends after {NUM_FRAMES} of the 60 frames that the manifest states"),
        ({"duration_s": 1.6, "num_frames": NUM_FRAMES}, ""),
        ({"duration_s": 1.0, "num_frames": 20}, ""),
    ],
)
def test_a_video_is_held_against_what_its_list_says(listed, words, whole):
    assert found(whole, **listed)["cut_short"] == words


def test_limits_go_by_the_names_of_the_commands_options():
    limits = TASK.limits()
    assert (limits.timeout_name, limits.memory_name) == ("--decode-timeout-s", "--decoder-memory-mb")
    assert limits.follow_work


def test_an_image_in_an_archive_has_the_checksum_of_its_own_bytes_and_what_is_odd_about_it(tmp_path):
    target = io.BytesIO()
    Image.new("CMYK", (20, 10)).save(target, "JPEG")
    data = target.getvalue()
    (tmp_path / "images.tar").write_bytes(b"before" + data + b"behind")
    place = {"member": "a.png", "offset": 6, "length": len(data), "as_stored": True}
    row = found(tmp_path / "images.tar", **place)
    assert (row["stored_bytes"], row["crc32"]) == (len(data), zlib.crc32(data))
    assert (row["codec"], row["width"], row["height"], row["damaged_frames"]) == ("jpeg", 20, 10, 0)
    assert row["oddities"] == ("JPEG named .png", "CMYK")
    with pytest.raises(DecodeError, match=r"images\.tar: a\.png isn't an image"):
        found(tmp_path / "images.tar", **{**place, "offset": 7})


def test_what_is_odd_about_images_is_counted_in_the_summary():
    facts = {
        "video_id": "v",
        "path": "x.tar",
        "error": "",
        "message": "",
        "size_bytes": 9,
        "num_frames": 1,
        "fps": 30.0,
    }
    rows = [{**facts, "oddities": odd} for odd in (["CMYK"], ["grey", "damaged EXIF"], ["CMYK"], [])]
    text = summary(pa.Table.from_pylist(rows, schema=VERIFIED), num_classes=2)
    assert "\n  images read as they are: 2 CMYK, 1 grey, 1 damaged EXIF" in text


@pytest.mark.parametrize("how", ["transcode", "pack"])
def test_images_are_not_copied(how, tmp_path):
    manifest = manifest_from_rows(
        video_ids=["a"],
        paths=["x.tar"],
        labels=[0],
        splits=["train"],
        sizes_bytes=[9],
        class_names=["one"],
        items="images",
        images={"offset": [512], "length": [9]},
    )
    write_manifest(manifest, tmp_path / "train.parquet")
    files = CopyFiles(folder=tmp_path / "copies", name="train")
    tasks = {
        "pack": PackTask(files=files),
        "transcode": TranscodeTask(files=files, transcoding=TranscodeSettings(), timeout_s=9.0),
    }
    with pytest.raises(ManifestError, match=f"holds images; {how} copies videos"):
        copy_job(tmp_path / "train.parquet", tasks[how])


def test_the_label_map_of_an_image_is_verified_with_it(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg")
    Image.new("L", (20, 10), 3).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    scene = {"map_path": str(tmp_path / "a.png"), "map_crc32": zlib.crc32(data), "map_zero_is_ignored": True}
    row = found(tmp_path / "a.jpg", as_stored=True, **scene)
    assert (row["width"], row["height"], row["damaged_frames"]) == (20, 10, 0)
    for written, message in (
        (Image.new("L", (10, 20), 3), r"has 20x10 pixels, its label map .*a\.png 10x20"),
        (Image.new("RGB", (20, 10)), r"a\.png has colours \(RGB\)"),
    ):
        written.save(tmp_path / "a.png")
        with pytest.raises(DecodeError, match=message):
            found(tmp_path / "a.jpg", as_stored=True, **{**scene, "map_crc32": None})
        with pytest.raises(DecodeError, match=r"a\.png has changed since it was verified"):
            found(tmp_path / "a.jpg", as_stored=True, **scene)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DecodeError, match=r"a\.png can't be read: no such file"):
        found(tmp_path / "a.jpg", as_stored=True, **scene)
