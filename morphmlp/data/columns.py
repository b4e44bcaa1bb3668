"""The columns of every table that the project writes or passes on, with their Arrow types."""

import pyarrow as pa

MANIFEST = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("available", pa.bool_(), nullable=False),
        pa.field("size_bytes", pa.int64()),
    ]
)
"""One row per labelled video. `available` is false where the file was missing when the manifest was made; `size_bytes`
is then null. The schema's metadata carries `class_names`, a JSON list in label order."""

QUARANTINE = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("decoder", pa.string(), nullable=False),
        pa.field("decoder_version", pa.string(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
    ]
)
"""One row per video that couldn't be used: where (`stage`: train, val or test), why, and with what."""

PREDICTIONS = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("view_logits", pa.list_(pa.list_(pa.float32())), nullable=False),
        pa.field("logits", pa.list_(pa.float32()), nullable=False),
        pa.field("prediction", pa.int32(), nullable=False),
    ]
)
"""One row per scored test video: logits per view (clip-major, crop fastest), their sum, and its argmax."""
