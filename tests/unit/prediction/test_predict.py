"""Predictions against the test's own scorer, and against each other."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from scored_videos import manifest_of, scored_by_the_test

from morphmlp.errors import DecodeError
from morphmlp.prediction.predict import predict_over_time, predict_whole
from morphmlp.prediction.scenes import SceneModel
from morphmlp.prediction.sliding import sliding
from morphmlp.prediction.trained import find_trained
from morphmlp.reporting.segmentation import coloured
from morphmlp.tasks.factory import task_of
from morphmlp.tasks.segmentation.prediction import predict_labels

NAMES = ("asleep", "boiling", "cutting", "dancing")


def trained(place, kind="video", **overrides):
    return find_trained(
        str(place.root / f"{kind}.pth"),
        config=str(place.root / f"{kind}.yaml"),
        overrides={name.replace("__", "."): value for name, value in overrides.items()},
        classes=place.root / "classes.txt",
        log=lambda text: None,
    )


def test_a_prediction_is_what_the_test_scores(place, files):
    found = trained(place)
    paths = [files / name for name in ("whole.mp4", "short.mp4", "one_frame.mp4", "picture.png", "as_frames")]
    table = scored_by_the_test(found, manifest_of(paths, NAMES))
    assert isinstance(table, pa.Table)
    for path, row in zip(paths, table.to_pylist(), strict=True):
        prediction = predict_whole(found.video_model(), str(path), top=4)
        np.testing.assert_allclose(prediction.logits, row["logits"], atol=1e-5)
        shares = torch.tensor(row["view_logits"]).mean(0).softmax(0)
        by_label = {guess.label: guess.probability for guess in prediction.guesses}
        np.testing.assert_allclose([by_label[label] for label in range(4)], shares, atol=1e-5)
        assert prediction.guesses[0].label == row["prediction"]
        assert [guess.name for guess in prediction.guesses] == [NAMES[guess.label] for guess in prediction.guesses]


@pytest.mark.parametrize("crops", [1, 3])
def test_windows_at_the_tests_clips_give_the_tests_logits(place, files, crops):
    found = trained(place, test__num_clips=5, test__num_crops=crops)
    (row,) = scored_by_the_test(found, manifest_of([files / "whole.mp4"], NAMES)).to_pylist()
    windows = sliding(found.config.test_clip, window=None, hop="10", to_the_end=False)  # 48 frames, 8 of a clip
    prediction = predict_over_time(found.video_model(), str(files / "whole.mp4"), windows, top=4)
    views = np.array(row["view_logits"], np.float32).reshape(5, crops, 4).mean(1)
    assert [span.start_s for span in prediction.spans] == pytest.approx([0, 1 / 3, 2 / 3, 1, 4 / 3])
    assert prediction.spans[0].end_s == pytest.approx(8 / 30)
    for span, logits in zip(prediction.spans, views, strict=True):
        shares = torch.from_numpy(logits).double().softmax(0)
        assert [guess.probability for guess in span.guesses] == pytest.approx(
            [float(shares[guess.label]) for guess in span.guesses], abs=1e-5
        )
    np.testing.assert_allclose(prediction.logits, views.mean(0), atol=1e-5)


def test_the_times_of_a_video_whose_rate_varies_are_those_of_its_frames(place, tmp_path):
    from coded_videos import CODINGS, UNEVEN_TIMES_MS, write_video

    path = write_video(tmp_path / "uneven.mp4", CODINGS["variable frame rate"])
    found = trained(place)
    windows = sliding(found.config.test_clip, window=None, hop="6", to_the_end=False)
    spans = predict_over_time(found.video_model(), str(path), windows, top=1).spans
    starts = [UNEVEN_TIMES_MS[6 * place] / 1000 for place in range(len(spans))]
    assert [span.start_s for span in spans] == pytest.approx(starts, abs=2e-3)


def test_an_image_network_takes_images_and_frames_of_videos(place, files):
    model = trained(place, "image").video_model()
    picture = predict_whole(model, str(files / "picture.png"), top=2)
    assert len(picture.guesses) == 2
    windows = sliding(model.config.test_clip, window="1x1", hop="12", to_the_end=False)
    assert len(predict_over_time(model, str(files / "whole.mp4"), windows, top=1).spans) == 4


def test_a_label_map_is_the_tests(place, files):
    found = trained(place, "scenes")
    model = SceneModel(found)
    image, labels = model.label_map(str(files / "picture.png"))
    network = task_of(found.config).network()
    network.load_state_dict(found.weights)
    opened = np.array(Image.open(files / "picture.png").convert("RGB"))
    expected = predict_labels(
        network, opened, config=found.config.segmentation, clip=found.config.clip, device=torch.device("cpu")
    )
    assert np.array_equal(image, opened)
    assert np.array_equal(labels, expected.labels)
    prediction = model.prediction("picture.png", labels, top=4)
    assert sum(guess.probability for guess in prediction.guesses) == pytest.approx(1)
    height, width = labels.shape
    enlarged = np.asarray(model.overlay(image, labels, prediction))
    assert enlarged.shape == (480 * height // width, 480, 3)
    # Below the names: each pixel's colour is that of its class, and as much of the image.
    large, shown = np.kron(image, np.ones((20, 20, 1), np.uint8)), np.kron(labels, np.ones((20, 20), np.uint8))
    whole = np.asarray(model.overlay(large, shown, prediction))
    assert whole.shape == large.shape
    blended = np.round(0.45 * large + 0.55 * coloured(shown, 4))
    assert np.abs(whole[-100:].astype(int) - blended[-100:]).max() <= 1


def test_what_cannot_be_used_has_its_reason(place, files):
    model = trained(place).video_model()
    windows = sliding(model.config.test_clip, window=None, hop="1s", to_the_end=True)
    for predict in (
        lambda path: predict_whole(model, path, top=1),
        lambda path: predict_over_time(model, path, windows, top=1),
    ):
        with pytest.raises(DecodeError, match="no video stream"):
            predict(str(files / "sound.mp4"))
