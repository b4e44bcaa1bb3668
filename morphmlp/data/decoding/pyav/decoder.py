"""PyAV: the default decoder, exact whatever the file is.

One demux pass shows whether the file proves in which order its packets are shown (`display_order`). Where it does,
decoding starts at the last key packet before a wanted frame, never by a seek, and stops after the last one that the
same start serves. In H.264 the unwanted frames on the way that no other frame refers to are skipped, which leaves the
wanted ones bit-identical. (HEVC has no such rule that holds across its temporal layers, and VP9 no such frames.) Where
it doesn't, the file is decoded from its start, and frames are what comes out, in that order. Only frames that are
handed over are converted to RGB.
"""

from importlib.metadata import version

from morphmlp.data.decoding.protocol import VideoReader
from morphmlp.data.decoding.pyav.direct_reader import DirectReader
from morphmlp.data.decoding.pyav.packets import HELD_BYTES
from morphmlp.data.decoding.pyav.sequential_reader import SequentialReader
from morphmlp.data.decoding.pyav.stream_decoder import StreamDecoder


class PyAVDecoder:
    """Decoding with one FFmpeg thread."""

    name = "pyav"

    def __init__(self, *, held_bytes: int = HELD_BYTES) -> None:
        """Make the decoder.

        Packets of one file up to `held_bytes` may be held in memory, and as much in frames where it must be decoded
        whole; a longer file is read again for each read.
        """
        self._held_bytes = held_bytes

    @property
    def version(self) -> str:
        """Version of the PyAV package."""
        return version("av")

    def open(self, path: str) -> VideoReader:
        """Open a file and read its packets; decode it where its packets alone don't say which frames it has."""
        return reader_of(StreamDecoder(path, held_bytes=self._held_bytes))


def reader_of(stream: StreamDecoder) -> DirectReader | SequentialReader:
    """The reader that fits a file.

    Raises:
        DecodeError: Not one frame could be decoded.
    """
    return SequentialReader(stream) if stream.order is None else DirectReader(stream, stream.order)
