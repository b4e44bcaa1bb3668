"""Which videos a score is of, and what it could be if those that are missing were scored too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from morphmlp.data.manifest import Manifest, read_manifest
from morphmlp.data.quarantine import BrokenVideo
from morphmlp.errors import ManifestError
from morphmlp.evaluation.score_header import ScoreHeader
from morphmlp.tasks.answers import GUESSES, Answers
from morphmlp.tasks.scores import MEAN_CLASS, TOP1, TOP5


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The videos of a score, and those of its test set that it isn't of."""

    num_listed: int
    """Videos that were to be scored."""
    num_scored: int
    quarantined: Sequence[BrokenVideo]
    """Those of them that couldn't be scored."""
    fingerprint: str
    """Of the videos that were to be scored, `count:hash`: other videos make other scores."""
    scored_fingerprint: str
    """Of those that were."""
    left_out: int = 0
    """Videos that are scored and don't count here, as another test doesn't have them."""

    @property
    def num_missing(self) -> int:
        """Videos of the test set without a score: in quarantine, or not scored yet."""
        return self.num_listed - self.num_scored - self.left_out

    @property
    def num_unfinished(self) -> int:
        """Videos that no test has looked at yet."""
        return self.num_missing - len(self.quarantined)

    def in_words(self, items: str) -> str:
        """Which videos the score is of."""
        parts = [f"{self.num_scored:,} of {self.num_listed:,} {items} (test set {self.fingerprint})"]
        if self.quarantined:
            parts.append(f"{len(self.quarantined):,} in quarantine")
        if self.num_unfinished > 0:
            parts.append(f"{self.num_unfinished:,} not scored yet")
        if self.left_out:
            parts.append(f"{self.left_out:,} left out, as the others lack them")
        if self.num_scored < self.num_listed:
            parts.append(f"those scored: {self.scored_fingerprint}")
        return ", ".join(parts)


def fingerprint_of(video_ids: pa.Array | pa.ChunkedArray, labels: npt.NDArray[np.integer]) -> str:
    """`Manifest.fingerprint` of these videos."""
    table = pa.table({"video_id": video_ids, "label": pa.array(labels, pa.int32())})
    return Manifest(table=table, class_names=()).fingerprint()


def score_bounds(
    answers: Answers, coverage: Coverage, missing_labels: npt.NDArray[np.integer] | None
) -> Mapping[str, tuple[float, float]]:
    """Least and greatest value of each score, by key and in percent, were the missing videos scored too.

    `missing_labels` are the true classes of those, where they are known: without them mean class accuracy has none.
    """
    missing = coverage.num_missing
    total = max(len(answers) + missing, 1)
    bounds: dict[str, tuple[float, float]] = {}
    for key, most in ((TOP1.key, 1), (TOP5.key, GUESSES)):
        hits = int(np.count_nonzero(answers.ranks < most))
        bounds[key] = 100 * hits / total, 100 * (hits + missing) / total
    if missing_labels is not None and len(missing_labels) == missing:
        right, videos = answers.right_by_class()
        more = np.bincount(missing_labels, minlength=len(videos))
        there = videos + more > 0
        of_class = (videos + more)[there]
        least, greatest = right[there] / of_class, (right + more)[there] / of_class
        bounds[MEAN_CLASS.key] = 100 * float(least.mean()), 100 * float(greatest.mean())
    return bounds


def missing_labels(header: ScoreHeader, video_ids: pa.Array) -> npt.NDArray[np.integer] | None:
    """True classes of the videos of a store's manifest that aren't among these ids.

    None where the manifest can't be read here, or has other videos by now.
    """
    try:
        manifest = read_manifest(header.manifest, only=("video_id", "label")).available()
    except ManifestError:
        return None
    if manifest.fingerprint() != header.data_fingerprint:
        return None
    there = pc.is_in(manifest.table["video_id"], value_set=video_ids)
    labels: npt.NDArray[np.integer] = manifest.table["label"].filter(pc.invert(there)).to_numpy()
    return labels
