"""Pictures and class tables of a segmentation test."""

import io

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.data.decoding.stored_frames.label_maps import IGNORED
from morphmlp.data.manifest import manifest_from_rows
from morphmlp.reporting import segmentation
from morphmlp.reporting.segmentation import (
    class_table,
    coloured,
    pairs_figure,
    palette,
    panels_figure,
    read_panels,
    spread_rows,
)
from morphmlp.tasks.segmentation.confusion import outcome_of, predictions_table

NAMES = ["wall", "sky", "a name that is so long that no legend has room for it", "pole", "never there"]
K, RED, WHITE = len(NAMES), [214, 40, 40], [255, 255, 255]


def lab(colours):
    """By OpenCV."""
    return cv2.cvtColor((colours[None] / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0]


def test_colours_are_compared_where_opencv_has_them_too():
    colours = np.random.default_rng(0).integers(0, 256, (500, 3))
    # OpenCV reads cube roots off a table; an eye sees 2.
    assert np.abs(segmentation._lab(colours) - lab(colours)).max() < 0.5


def test_many_classes_have_colours_that_can_be_told_from_each_other_and_from_white():
    places = lab(np.vstack([palette(150), [WHITE, [0, 0, 0]]]))
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 1000 * np.eye(len(places))
    assert apart.min() > 12


@pytest.mark.parametrize("count", [1, 8, 150, 255])
def test_a_class_has_the_same_colour_whatever_the_number_of_classes(count):
    assert np.array_equal(palette(count), palette(255)[:count])


def test_a_coloured_map_is_white_where_ignored():
    labels = np.array([[0, 2, IGNORED]], dtype=np.uint8)
    assert coloured(labels, 3).tolist() == [[*palette(3)[[0, 2]].tolist(), WHITE]]


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [
        (0, 8, []),
        (3, 0, []),
        (3, 8, [0, 1, 2]),
        (100, 1, [0]),
        (100, 3, [0, 50, 99]),
        (2000, 5, [0, 500, 1000, 1499, 1999]),
    ],
)
def test_shown_rows_are_spread_from_the_first_to_the_last(rows, count, expected):
    assert spread_rows(rows, count) == expected


@pytest.fixture
def scored(tmp_path):
    """Three images with maps, of which the last is large; predictions are right but in one corner."""
    rng, outcomes, cells, maps = np.random.default_rng(0), {}, [], []
    for row, (height, width) in enumerate([(30, 40), (44, 21), (900, 1500)]):
        labels = np.zeros((height, width), dtype=np.uint8)
        labels[:, width // 2 :] = 1 + row
        labels[0] = IGNORED
        found = np.where(labels == IGNORED, 0, labels).astype(np.uint8)
        found[-height // 4 :, -width // 4 :] = 0
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / f"{row}.jpg")
        Image.fromarray(labels).save(tmp_path / f"{row}.png")
        outcomes[row] = outcome_of(found, labels, num_classes=K, loss=1.0)
        maps.append((labels, found))
        cells.append(
            {
                "path": str(tmp_path / f"{row}.jpg"),
                "map_path": str(tmp_path / f"{row}.png"),
                "map_zero_is_ignored": False,
                "num_frames": 1,
            }
        )
    manifest = manifest_from_rows(
        video_ids=["first", "second", "third"],
        paths=[cell["path"] for cell in cells],
        labels=[0] * 3,
        splits=["test"] * 3,
        sizes_bytes=[1] * 3,
        class_names=NAMES,
        items="images",
    )
    return predictions_table(manifest, outcomes), cells, maps


VIDEOS = AnyVideo(decoder_by_name("pyav"))


def test_the_table_of_classes_is_that_of_a_loop_over_them(scored):
    table, _, maps = scored
    for number, row in enumerate(class_table(table, NAMES).to_dict("records")):
        true = np.concatenate([(labels == number).ravel() for labels, _ in maps])
        found = np.concatenate([((found == number) & (labels != IGNORED)).ravel() for labels, found in maps])
        both, either = (true & found).sum(), (true | found).sum()
        assert row == {
            "class": NAMES[number],
            "IoU": f"{100 * both / either:.2f}" if either else "",
            "Acc": f"{100 * both / true.sum():.2f}" if true.any() else "",
            "labelled pixels": str(true.sum()),
            "images": str(sum((labels == number).any() for labels, _ in maps)),
            "predicted pixels": str(found.sum()),
        }


def test_panels_show_image_truth_prediction_and_errors(scored):
    table, cells, maps = scored
    panels = read_panels(table, cells, VIDEOS, K)
    assert [panel.video_id for panel in panels] == ["first", "second", "third"]
    figure = panels_figure(panels, NAMES, title="3 images")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    for place, (labels, found) in enumerate(maps[:2]):  # these are as large as they are shown
        image, truth, prediction, errors = shown[4 * place : 4 * place + 4]
        assert np.array_equal(image, VIDEOS.open(cells[place]["path"], num_frames=None).read([0]).frames[0])
        assert np.array_equal(truth, coloured(labels, K))
        assert np.array_equal(prediction, coloured(found, K))
        wrong = (labels != IGNORED) & (labels != found)
        assert np.array_equal((errors == RED).all(axis=2), wrong)
        assert np.array_equal((errors == WHITE).all(axis=2), labels == IGNORED)


def test_a_legend_names_the_classes_that_are_there_in_their_colours(scored):
    table, cells, _ = scored
    figure = panels_figure(read_panels(table, cells, VIDEOS, K), NAMES, title="")
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend() is not None]
    texts = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert texts == [["wall", "sky"], ["wall", "a name that is so…"], ["wall", "pole"]]
    (patch,) = {patch.get_facecolor()[:3] for patch in legends[2].get_patches()[1:]}
    assert patch == to_rgb(palette(K)[3] / 255)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")  # fonts and layouts may warn
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_large_images_are_scaled_down_and_maps_keep_their_classes(scored):
    table, cells, maps = scored
    panel = read_panels(table.slice(2), cells[2:], VIDEOS, K)[0]
    assert panel.image.shape == (288, 480, 3)
    assert panel.truth.shape == panel.predicted.shape == (288, 480)
    assert set(np.unique(panel.truth)) <= set(np.unique(maps[2][0]))
    # The right half is another class, to the pixel.
    assert (panel.truth[5, :240] == 0).all()
    assert (panel.truth[5, 240:] == 3).all()


def test_the_words_of_a_panel_are_the_scores_of_its_image(scored):
    table, cells, maps = scored
    labels, found = maps[1]
    valid = labels != IGNORED
    right = 100 * (labels == found)[valid].mean()
    panel = read_panels(table.slice(1, 1), cells[1:2], VIDEOS, K)[0]
    assert panel.words.startswith("21x44 px: mIoU ")
    assert panel.words.endswith(f"{right:.2f} % of its labelled pixels right")


@pytest.mark.parametrize(("gone", "reason"), [("path", "0.jpg"), ("map_path", "0.png")])
def test_an_image_that_is_gone_is_named_and_the_others_are_drawn(scored, gone, reason):
    table, cells, _ = scored
    cells[0] = {**cells[0], gone: cells[0][gone] + "x.png"}
    first, second, _ = read_panels(table, cells, VIDEOS, K)
    assert "can't be shown any more: " in first.words
    assert reason in first.words
    assert second.image is not None
    panels_figure([first, second], NAMES, title="").savefig(io.BytesIO(), format="png")


def test_an_image_without_a_label_map_has_no_truth(scored):
    table, cells, _ = scored
    del cells[0]["map_path"]
    assert (read_panels(table, cells, VIDEOS, K)[0].truth == IGNORED).all()


def test_pairs_stand_in_the_order_of_their_wrong_pixels():
    matrix = np.random.default_rng(0).integers(0, 1000, (12, 12))
    names = [f"class {number}" for number in range(12)]
    axes = pairs_figure(matrix, names).axes[0]
    wrong = {(t, p): matrix[t, p] for t in range(12) for p in range(12) if t != p}
    expected = sorted(wrong, key=lambda pair: -wrong[pair])[:24]
    assert [label.get_text() for label in axes.get_yticklabels()] == [f"class {t} → class {p}" for t, p in expected]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([100 * wrong[pair] / sum(wrong.values()) for pair in expected])


@pytest.mark.parametrize("matrix", [np.diag([5, 7, 1]), np.zeros((3, 3), dtype=np.int64)])
def test_nothing_confused_is_drawn_too(matrix):
    pairs_figure(matrix, ["a", "b", "c"]).savefig(io.BytesIO(), format="png")
