"""The columns of every table that the project writes or passes on, with their Arrow types."""

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")

MANIFEST = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("available", pa.bool_(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("mtime", TIME),
        pa.field("crc32", pa.int64()),
        pa.field("num_frames", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("codec", pa.string()),
        pa.field("duration_s", pa.float64()),
    ]
)
"""One row per labelled video. `path` is a video file, a file of packed frames, or a folder of frames, which may end in
a template of their names (`DIR/img_%05d.jpg`). `available` is false where it was missing when the manifest was made;
`size_bytes` is then null. From `mtime` on a column may be absent: it's filled by `prepare.py verify`, `num_frames` also
by lists that state it. `crc32`, of a video file's bytes, is checked whenever it is read; frames that are stored one by
one have none. The schema's metadata carries `class_names`, a JSON list in label order, `task` (what labels are for),
`items` (what a row is), and of prepared copies how they were made. Images that lie in larger files have the columns
`IMAGE` too, images with label maps `SCENE`."""

IMAGE = pa.schema(
    [
        pa.field("member", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("blocks_offset", pa.int64()),
        pa.field("blocks_length", pa.int64()),
        pa.field("blocks_unpacked", pa.int64()),
        pa.field("as_stored", pa.bool_()),
    ]
)
"""Further columns of a manifest of images, absent in others: `StoredImage` says what they mean. `path` is then the file
that holds the image, and `size_bytes` and `crc32` are those of the image's own bytes."""

SCENE = pa.schema(
    [
        pa.field("map_path", pa.string()),
        pa.field("map_crc32", pa.int64()),
        pa.field("map_zero_is_ignored", pa.bool_()),
    ]
)
"""Further columns of a manifest for segmentation, absent in others: the label map of each image, the CRC-32 of its
file's bytes, and whether its value 0 means no class, so that class k is stored as k + 1; else class k is stored as k.
255 is ignored either way. `label` is then 0 in every row, and no class."""

QUARANTINE = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("mtime", TIME),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("decoder", pa.string(), nullable=False),
        pa.field("decoder_version", pa.string(), nullable=False),
        pa.field("first_run", pa.string(), nullable=False),
    ]
)
"""One row per video that couldn't be used: the file as it was (nulls where there was none), where it was met (`stage`:
train, val, test, verify, transcode or pack), why, with what, and in which run first."""

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

SEGMENTED = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("loss", pa.float64()),
        pa.field("pairs", pa.list_(pa.int32()), nullable=False),
        pa.field("pixels", pa.list_(pa.int64()), nullable=False),
        pa.field("prediction", pa.large_binary(), nullable=False),
    ]
)
"""One row per segmented test image, at its own size: mean loss of its pixels; `pairs`, true class x number of classes +
predicted class, with the pixels that have them; and the predicted classes as an 8-bit PNG."""

SCORED = pa.schema(
    [
        pa.field("concealed", pa.int32(), nullable=False),
        pa.field("retried", pa.bool_(), nullable=False),
        pa.field("cpu_s", pa.float64(), nullable=False),
        pa.field("scorer", pa.string(), nullable=False),
    ]
)
"""Further columns of the parts of a score store, behind `PREDICTIONS` or `SEGMENTED`: frames that stand in for damaged
ones, whether a second decoder was needed, CPU seconds of decoding and scoring, and which process scored it (host and
process id)."""

DECODED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("clips", pa.large_binary(), nullable=False),
        pa.field("maps", pa.large_binary(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("concealed", pa.int32(), nullable=False),
        pa.field("retried", pa.bool_(), nullable=False),
        pa.field("cpu_s", pa.float64(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("decoder", pa.string(), nullable=False),
        pa.field("decoder_version", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("mtime", TIME),
    ]
)
"""What a decode task makes of each video: `row` of the manifest; `clips`, the bytes of uint8 `[r t h w c]` with this
`height` and `width`; `maps`, those of uint8 `[r h w]` of images with label maps; `concealed` frames among the clips';
whether a second decoder was needed; CPU seconds that it took, whatever came of it. A video that can't be used has no
bytes, and its `error` (class), `message`, the decoder tried last and the file as it was; these are empty otherwise."""
