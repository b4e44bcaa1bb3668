"""Features against a naive loop over a plain decode, and their files against what reads them."""

import io
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from coded_videos import sequential_frames
from PIL import Image

from morphmlp.data.clips.augment import evaluation_crops
from morphmlp.data.manifest import manifest_from_rows, write_manifest
from morphmlp.errors import ConfigError, DecodeError, ManifestError
from morphmlp.prediction import sliding as sliding_module
from morphmlp.prediction.features import FeatureFiles, features_of, scene_features, source_of, videos_to_extract
from morphmlp.prediction.predict import with_each_decoder
from morphmlp.prediction.scenes import SceneModel
from morphmlp.prediction.sliding import sliding
from morphmlp.prediction.trained import find_trained

STAGES = ("1", "2", "3", "4", "pooled", "logits")
CHANNELS = {"1": 16, "2": 16, "3": 32, "4": 32, "pooled": 32, "logits": 4}
HOP = 5


def model_of(place, **overrides):
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    found = find_trained(
        str(place.root / "video.pth"),
        config=str(place.root / "video.yaml"),
        overrides=named,
        classes=place.root / "classes.txt",
        log=lambda text: None,
    )
    return found.video_model()


def features(model, path, stage, **asked):
    windows = sliding(model.config.test_clip, **({"window": "4x2", "hop": str(HOP), "to_the_end": False} | asked))
    return with_each_decoder(model, str(path), lambda reader: features_of(model, reader, windows, stage))


def naive(model, path, stage, crops):
    """Window after window, crop after crop; what a layer gives is caught where it gives it."""
    frames, network = torch.from_numpy(sequential_frames(path)), model.network
    caught = []
    if stage == "logits":
        layer, hook = network.head, lambda layer, taken, given: caught.append(given)
    elif stage == "pooled":
        layer, hook = network.head, lambda layer, taken, given: caught.append(taken[0])
    else:
        layer = network.stage_blocks()[int(stage) - 1][-1]
        hook = lambda layer, taken, given: caught.append(given.mean(dim=(1, 2, 3)))  # noqa: E731
    handle = layer.register_forward_hook(hook)
    rows = []
    start = 0
    while start + 8 <= len(frames):
        picked = frames[[start, start + 2, start + 4, start + 7]]  # 8 frames, evenly from the first to the last
        of_window = []
        for crop in evaluation_crops(picked, short_edge=36, crop_size=32, num_crops=crops):
            clip = ((crop.float() / 255 - 0.45) / 0.225).permute(3, 0, 1, 2)
            with torch.inference_mode():
                network(clip[None])
            of_window.append(caught.pop()[0])
        rows.append(torch.stack(of_window).mean(0))
        start += HOP
    handle.remove()
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_features_are_those_of_a_naive_loop(place, files, stage, crops):
    model = model_of(place, test__num_crops=crops)
    found = features(model, files / "whole.mp4", stage)
    assert found.values.dtype == np.float32
    assert found.values.shape == (9, CHANNELS[stage])
    np.testing.assert_allclose(found.values, naive(model, files / "whole.mp4", stage, crops), atol=1e-5, rtol=1e-4)


SIZE = {"image": (40, 30), "scenes": (60, 90)}


def image_of(tmp_path, kind):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (*SIZE[kind], 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    return str(tmp_path / "noise.png")


def trained(place, kind, **overrides):
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return find_trained(
        str(place.root / f"{kind}.pth"),
        config=str(place.root / f"{kind}.yaml"),
        overrides=named,
        classes=place.root / "classes.txt",
        log=lambda text: None,
    )


@contextmanager
def caught_in(layer):
    """What a layer gives while the block lasts."""
    caught = []
    handle = layer.register_forward_hook(lambda layer, taken, given: caught.append(given))
    try:
        yield caught
    finally:
        handle.remove()


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_has_the_features_that_its_prediction_goes_through(place, tmp_path, stage):
    model, path = trained(place, "image").video_model(), image_of(tmp_path, "image")
    found = features(model, path, stage, window=None, hop=None)
    layers = {"logits": model.network.head, "pooled": model.network.norm}
    layer = layers.get(stage) or model.network.stage_blocks()[int(stage) - 1][-1]
    with caught_in(layer) as caught:
        model.view_logits(path)
    (given,) = caught  # of the three crops, [3 t h w c]
    expected = given.reshape(3, -1, given.shape[-1]).mean(dim=(0, 1))
    assert found.values.shape == (1, CHANNELS[stage])
    np.testing.assert_allclose(found.values[0], expected.numpy(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("slide", [False, True], ids=["whole", "windows"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_segmented_image_has_the_features_that_its_label_map_goes_through(place, tmp_path, stage, slide):
    test = {"segmentation__test__mode": "slide", "segmentation__test__stride": 20} if slide else {}
    found_network = trained(place, "scenes", **test)
    model, path = SceneModel(found_network), image_of(tmp_path, "scenes")
    windows = sliding(found_network.config.test_clip, window=None, hop=None, to_the_end=False)
    found = scene_features(model, source_of({"path": path}), windows, stage)
    layers = {"logits": model.network, "pooled": model.network.norms[3]}
    layer = layers.get(stage) or model.network.stage_blocks()[int(stage) - 1][-1]
    with caught_in(layer) as caught:
        model.label_map(path)
    assert (len(caught) > 1) == slide
    of_windows = [
        given.flatten(2).mean(2)[0] if stage == "logits" else given[0].flatten(0, -2).mean(0) for given in caught
    ]
    assert found.values.shape == (1, CHANNELS[stage])
    np.testing.assert_allclose(found.values[0], torch.stack(of_windows).mean(0).numpy(), atol=1e-5, rtol=1e-4)
    assert (found.start_s, found.end_s) == ((0.0,), pytest.approx((1 / 30,)))


def test_an_image_inside_of_a_larger_file_has_the_features_of_its_own_file(place, tmp_path):
    model, path = SceneModel(trained(place, "scenes")), image_of(tmp_path, "scenes")
    content = Path(path).read_bytes()
    (tmp_path / "many.tar").write_bytes(b"before" + content + b"behind")
    windows = sliding(model.config.test_clip, window=None, hop=None, to_the_end=False)
    stored = {"path": str(tmp_path / "many.tar"), "offset": 6, "length": len(content), "crc32": zlib.crc32(content)}
    whole = scene_features(model, source_of({"path": path}), windows, "pooled")
    assert np.array_equal(scene_features(model, source_of(stored), windows, "pooled").values, whole.values)
    with pytest.raises(DecodeError, match="has changed since it was verified"):
        scene_features(model, source_of(stored | {"crc32": 1}), windows, "pooled")


def test_a_folder_has_images_where_the_network_takes_them(files, tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/x.png", "b.jpg", "c.mp4"):
        (tmp_path / name).touch()
    assert videos_to_extract(tmp_path, images=True).table["video_id"].to_pylist() == ["a/x", "b", "c"]
    assert videos_to_extract(tmp_path).table["video_id"].to_pylist() == ["a", "c"]


def test_a_folder_that_is_a_video_itself_is_named_by_its_own_name(files):
    videos = videos_to_extract(files / "as_frames").table
    assert videos["video_id"].to_pylist() == ["as_frames"]
    assert videos["path"].to_pylist() == [str(files / "as_frames")]


def test_a_part_at_a_time_they_are_the_same_to_the_last_bits(place, files, monkeypatch):
    model = model_of(place)
    whole = features(model, files / "whole.mp4", "pooled")
    monkeypatch.setattr(sliding_module, "_MOST_WINDOWS", 2)
    parts = features(model, files / "whole.mp4", "pooled")
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-6)
    assert parts.start_s == whole.start_s


def test_a_video_shorter_than_a_window_has_one(place, files):
    found = features(model_of(place), files / "one_frame.mp4", "pooled")
    assert found.values.shape == (1, 32)
    assert (found.start_s, found.end_s) == ((0.0,), pytest.approx((1 / 30,)))


def test_an_array_is_read_as_temporal_action_detection_reads_it(place, files):
    """`np.load(...)` as `[T C]`; window i is about second (i * feat_stride + num_frames / 2) / fps."""
    found = features(model_of(place), files / "whole.mp4", "3")
    loaded = np.load(io.BytesIO(found.content("npy"))).astype(np.float32)
    assert np.array_equal(loaded, found.values)
    facts = found.facts()
    middles = (np.arange(len(loaded)) * facts["hop_frames"] + 0.5 * facts["window_frames"]) / facts["fps"]
    assert (np.add(facts["start_s"], facts["end_s"]) / 2).tolist() == pytest.approx(middles.tolist())
    assert found.content("npy") == features(model_of(place), files / "whole.mp4", "3").content("npy")


def test_a_table_has_the_windows_times_with_them(place, files):
    found = features(model_of(place), files / "whole.mp4", "logits", hop="0.2s")
    table = pq.read_table(io.BytesIO(found.content("parquet")))
    assert table.column_names == ["start_s", "end_s", "feature"]
    assert np.array_equal(np.stack(table["feature"].to_numpy()), found.values)
    assert table["start_s"].to_pylist() == pytest.approx([0.2 * number for number in range(len(found.values))])
    assert float(table.schema.metadata[b"fps"]) == 30


def test_a_folder_gives_ids_by_their_paths(files, tmp_path):
    for name in ("b.mp4", "a/x.mp4", "a/x.mkv", "é v1.2.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((files / "whole.mp4").read_bytes())
    videos = videos_to_extract(tmp_path)
    assert videos.table["video_id"].to_pylist() == ["a/x.mkv", "a/x.mp4", "b", "é v1.2"]
    assert videos.table["path"][2].as_py() == str(tmp_path / "b.mp4")


def test_sources_that_cannot_be_extracted_are_refused(files, tmp_path):
    with pytest.raises(ManifestError, match="holds no videos"):
        videos_to_extract(files / "empty")
    with pytest.raises(ManifestError, match="isn't UTF-8 text"):
        videos_to_extract(files)
    rows = {"labels": [0], "splits": ["test"], "sizes_bytes": [1], "class_names": ["a"]}
    write_manifest(manifest_from_rows(video_ids=["../x"], paths=["x.mp4"], **rows), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"video \.\./x: its id leads out of a folder"):
        videos_to_extract(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="no such manifest"):
        videos_to_extract(tmp_path / "gone.parquet")


def test_a_folder_never_holds_features_of_two_kinds(tmp_path):
    files = FeatureFiles(folder=tmp_path / "f")
    files.claim({"stage": "3", "hop": "8 frames"})
    files.claim({"stage": "3", "hop": "8 frames"})
    with pytest.raises(ConfigError, match="holds features of something else: stage 3, not pooled; name another folder"):
        files.claim({"stage": "pooled", "hop": "8 frames"})
    files.settings.write_text("{")
    with pytest.raises(ConfigError, match=r"features\.json is damaged"):
        files.claim({"stage": "3"})
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["features.json"]
