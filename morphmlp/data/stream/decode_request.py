"""What a decode task is asked for: rows of the manifest with their epochs. Knows no Ray."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from morphmlp.data.manifest import Manifest
from morphmlp.data.stream.plan import MicroBatchPlan

REQUEST_COLUMNS = ("video_id", "path", "label", "num_frames", "crc32")
"""Columns of a manifest that decoding reads."""


def request_table(manifest: Manifest, group: Sequence[MicroBatchPlan]) -> pa.Table:
    """What a decode task needs to know of its videos."""
    rows = np.concatenate([plan.rows for plan in group]).astype(np.int64)
    epochs = np.concatenate([np.full(len(plan.rows), plan.epoch) for plan in group])
    table = manifest.table.select(REQUEST_COLUMNS).take(pa.array(rows)).combine_chunks()
    return table.append_column("row", pa.array(rows)).append_column("epoch", pa.array(epochs))
