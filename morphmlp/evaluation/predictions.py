"""The predictions of a test: per-view logits of every video, and the proof that none is missing."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from morphmlp.data.columns import PREDICTIONS
from morphmlp.data.manifest import Manifest
from morphmlp.errors import EvaluationError
from morphmlp.metrics import ScoreCounts


def predictions_table(manifest: Manifest, logits_of_row: Mapping[int, npt.NDArray[np.float32]]) -> pa.Table:
    """The table of scored videos in manifest order, from `[v k]` logits by manifest row."""
    ids, labels = manifest.table["video_id"], manifest.table["label"]
    rows = sorted(logits_of_row)
    summed = [logits_of_row[row].sum(axis=0) for row in rows]
    return pa.table(
        {
            "video_id": [ids[row].as_py() for row in rows],
            "label": [labels[row].as_py() for row in rows],
            "view_logits": [logits_of_row[row].tolist() for row in rows],
            "logits": [logits.tolist() for logits in summed],
            "prediction": [int(logits.argmax()) for logits in summed],
        },
        schema=PREDICTIONS,
    )


def check_coverage(manifest: Manifest, *, scored: Iterable[int], broken: Iterable[str]) -> None:
    """Make sure that every video was either scored once or quarantined.

    Raises:
        EvaluationError: A video is missing; a score over the rest would be another test set's.
    """
    ids = manifest.table["video_id"].to_pylist()
    scored_rows = list(scored)
    twice = len(scored_rows) - len(set(scored_rows))
    missing = set(ids) - {ids[row] for row in scored_rows} - set(broken)
    if twice or missing:
        examples = ", ".join(sorted(missing)[:3])
        raise EvaluationError(
            f"no score: of {len(ids)} videos {len(missing)} were neither scored nor quarantined"
            f"{f' ({examples})' if examples else ''} and {twice} were scored twice"
        )


def count_predictions(table: pa.Table) -> ScoreCounts:
    """Top-1 and top-5 counts of a predictions table."""
    if not table.num_rows:
        return ScoreCounts()
    logits = torch.from_numpy(np.stack(table["logits"].to_numpy()).astype(np.float32))
    return ScoreCounts.of(logits, torch.from_numpy(table["label"].to_numpy().astype(np.int64)))


def write_predictions(table: pa.Table, path: Path) -> None:
    """Write the table (columns: `morphmlp.data.columns.PREDICTIONS`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
