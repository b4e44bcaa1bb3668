"""Exact frames out of compressed video, behind one Protocol with named backends."""

from morphmlp.data.decoding.backends import decoder_by_name, decoder_fault
from morphmlp.data.decoding.protocol import DecodedFrames, Decoder, Frames, VideoInfo, VideoOpener, VideoReader

__all__ = [
    "DecodedFrames",
    "Decoder",
    "Frames",
    "VideoInfo",
    "VideoOpener",
    "VideoReader",
    "decoder_by_name",
    "decoder_fault",
]
