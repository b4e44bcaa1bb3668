"""Every frame of a file as a plain decode from its start to its end gives it: what the decoders are measured against.

It shares with them which of several streams is the video, and how its frames are laid to be shown; nothing else.
"""

from collections.abc import Generator
from pathlib import Path
from typing import cast

import av

from morphmlp.data.decoding.protocol import Frames
from morphmlp.data.decoding.pyav.orientation import orientation_of
from morphmlp.data.decoding.pyav.packets import open_video


def plain_frames(path: str | Path) -> Generator[Frames, None, None]:
    """Frames as they are shown, `[h w c]`; of a damaged file those that come out.

    Raises:
        DecodeError: It can't be opened, or has no video.
    """
    container, stream = open_video(str(path))
    with container:
        for packet in container.demux(stream):
            try:
                decoded = stream.decode(packet)
            except av.error.FFmpegError:
                continue
            for frame in decoded:
                picture = frame.reformat(format="rgb24", threads=1).to_ndarray()
                yield orientation_of(frame).shown(cast(Frames, picture))
