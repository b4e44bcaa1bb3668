"""How far a segmentation score could be from that of all such images: a 95 % interval by resampling the test images.

MIoU is no share of images, so that Wilson's interval doesn't hold for it. Images are drawn with replacement, as many as
there are, and scored anew from their summed areas; the interval reaches from the 2.5 % to the 97.5 % quantile of these
scores. It holds the error of the test set alone, not what another seed of training would change.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float
from scipy.sparse import csr_matrix

from morphmlp.tasks.intervals import LEVEL, Estimate
from morphmlp.tasks.scores import scores_of
from morphmlp.tasks.segmentation.confusion import scores_of_areas

RESAMPLES = 2000
_DRAWS_AT_ONCE = 2**22
"""Images drawn at a time, over all resamples: 32 MB of numbers."""


def score_intervals(
    table: pa.Table, *, num_classes: int, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The interval of each score by its key, percent, from a table of `columns.SEGMENTED`; NaN where none is there."""
    ends, unknown = ((1 - LEVEL) / 2, (1 + LEVEL) / 2), (float("nan"), float("nan"))
    if not table.num_rows:
        return {score.key: unknown for score in scores_of("segmentation")}
    found = resampled_scores(image_areas(table, num_classes=num_classes), resamples=resamples, seed=seed)
    intervals = {}
    for key, scores in found.items():
        finite = scores[np.isfinite(scores)]  # a resample may hold no labelled pixel
        low, high = np.quantile(finite, ends) if len(finite) else unknown
        intervals[key] = float(low), float(high)
    return intervals


def score_differences(
    first: pa.Table, second: pa.Table, *, num_classes: int, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[Estimate, float]]:
    """How much better the first is than the second on the same images, by score: percentage points, and a p-value.

    Both are tables of `columns.SEGMENTED` with the same images in the same order. Each resample draws images once and
    scores both on them (paired bootstrap), so that images that are hard for both say nothing of the difference. The
    p-value is twice the share of resamples on the rarer side of 0, where a difference of 0 counts to both sides; it is
    never below 2 / (resamples + 1).
    """
    own, other = (image_areas(table, num_classes=num_classes) for table in (first, second))
    drawn = [resampled_scores(areas, resamples=resamples, seed=seed) for areas in (own, other)]
    found = {}
    ends = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    whole = [scores_of_areas(*np.split(np.asarray(areas.sum(axis=0)).ravel(), 3)) for areas in (own, other)]
    for key in drawn[0]:
        differences = drawn[0][key] - drawn[1][key]
        differences = differences[np.isfinite(differences)]
        low, high = np.quantile(differences, ends) if len(differences) else (float("nan"), float("nan"))
        rarer = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
        value = float(whole[0][key] - whole[1][key])
        estimate = Estimate(value=value, low=float(low), high=float(high))
        found[key] = estimate, min(1.0, 2 * (rarer + 1) / (len(differences) + 1))
    return found


def image_areas(table: pa.Table, *, num_classes: int) -> csr_matrix:
    """Of each image (row) the pixels of each class that are hit, labelled and predicted, side by side: `[n, 3 k]`.

    Sparse: an image has some ten classes of 150.
    """
    pairs, pixels = (table[name].combine_chunks() for name in ("pairs", "pixels"))
    image = pc.list_parent_indices(pairs).to_numpy()
    true, predicted = np.divmod(pairs.flatten().to_numpy(), num_classes)
    areas = pixels.flatten().to_numpy().astype(np.float64)
    hit = true == predicted
    cells = np.concatenate([areas[hit], areas, areas])
    rows = np.concatenate([image[hit], image, image])
    places = np.concatenate([true[hit], true + num_classes, predicted + 2 * num_classes])
    return csr_matrix((cells, (rows, places)), shape=(table.num_rows, 3 * num_classes))


def resampled_scores(areas: csr_matrix, *, resamples: int, seed: int) -> Mapping[str, Float[np.ndarray, "resamples"]]:
    """The scores of each resample, from `image_areas`; the draws are those of `scipy.stats.bootstrap`."""
    rng, images = np.random.default_rng(seed), areas.shape[0]
    parts = []
    at_once = max(_DRAWS_AT_ONCE // images, 1)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = rng.integers(0, images, (count, images)) + images * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images)
        sums = np.asarray((areas.T @ times.T.astype(np.float64)).T)
        parts.append(scores_of_areas(*np.split(sums, 3, axis=1)))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
