"""Frames of a file that doesn't prove their order: those that a decode from its start gives, in that order.

The frames are counted when the file is opened, and kept as far as they fit; of a longer file each read decodes again.
"""

from collections.abc import Generator, Sequence
from itertools import islice

from av.video.frame import VideoFrame

from morphmlp.data.decoding.protocol import Box, DecodedFrames, Frames, stacked
from morphmlp.data.decoding.pyav.stream_decoder import StreamDecoder
from morphmlp.data.decoding.stand_ins import nearest
from morphmlp.errors import DecodeError


class SequentialReader:
    """One open file, decoded once."""

    def __init__(self, stream: StreamDecoder) -> None:
        """Decode the file.

        Raises:
            DecodeError: Not one frame could be decoded.
        """
        self._stream = stream
        self._held: list[VideoFrame] | None = []
        self._is_damaged: list[bool] = []
        pts: list[int | None] = []
        dts: list[int | None] = []
        size, refused = 0, stream.failures
        for frame in stream.decode():
            self._is_damaged.append(frame.is_corrupt)
            pts.append(None if frame.pts is None else stream.packets.pts[frame.pts])
            dts.append(frame.dts)
            size += sum(plane.buffer_size for plane in frame.planes)
            if size > stream.held_bytes:
                self._held = None
            if self._held is not None:
                self._held.append(frame)
        if not self._is_damaged:
            raise DecodeError("not one frame could be decoded")
        # Packets that the codec refused while the first frame was looked for are counted by that decode, not by this.
        self._lost = stream.failures - refused
        self._decoding = stream.decode()
        self._place = 0
        self.info = stream.info(pts, dts)

    def read(self, indices: Sequence[int], box: Box | None = None) -> DecodedFrames:
        """The frames at these display-order indices, or what a box cuts out of them."""
        wanted = sorted(set(indices))
        if wanted[0] < 0 or wanted[-1] >= self.info.num_frames:
            raise IndexError(f"frames {wanted[0]}..{wanted[-1]} of a video with {self.info.num_frames}")
        found = self._found(wanted, box)
        if not found:
            raise DecodeError("not one frame could be decoded")
        there = sorted(found)
        return DecodedFrames(
            frames=stacked([found[nearest(there, index)] for index in indices]),
            concealed=sum(self._is_damaged[index] or index not in found for index in wanted),
        )

    def scan(self) -> int:
        """How many frames are damaged; packets that gave none count with them."""
        return min(sum(self._is_damaged) + self._lost, self.info.num_frames)

    def in_order(self) -> Generator[tuple[int, VideoFrame], None, None]:
        """Every frame, with its index."""
        if self._held is None:
            self._rewind()
            yield from self._onwards()
        else:
            yield from enumerate(self._held)

    def _found(self, wanted: Sequence[int], box: Box | None) -> dict[int, Frames]:
        """Wanted frames by index, without those that can't be converted."""
        if self._held is not None:
            frames = ((index, self._held[index]) for index in wanted)
        else:
            # Decoded on from where the last read ended, so that a clip that is read in parts is decoded once.
            if wanted[0] < self._place:
                self._rewind()
            frames = (pair for pair in islice(self._onwards(), wanted[-1] + 1 - self._place) if pair[0] in wanted)
        pictures = self._stream.converter.pictures(box, count=len(wanted))
        for index, frame in frames:
            pictures.add(index, frame)
        return pictures.all()

    def _onwards(self) -> Generator[tuple[int, VideoFrame], None, None]:
        for frame in self._decoding:
            index, self._place = self._place, self._place + 1
            yield index, frame

    def _rewind(self) -> None:
        self._decoding.close()  # one codec: two decodes at once would mix
        self._decoding, self._place = self._stream.decode(), 0
