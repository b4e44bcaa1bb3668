"""Exact frames out of compressed video, behind one Protocol with named backends."""

from morphmlp.data.decoding.decord_decoder import DecordDecoder
from morphmlp.data.decoding.protocol import DecodedFrames, Decoder, Frames, VideoInfo, VideoReader
from morphmlp.data.decoding.pyav_decoder import PyAVDecoder

__all__ = ["DecodedFrames", "Decoder", "Frames", "VideoInfo", "VideoReader", "decoder_by_name"]

_DECODERS: dict[str, type[Decoder]] = {"pyav": PyAVDecoder, "decord": DecordDecoder}


def decoder_by_name(name: str) -> Decoder:
    """The decoder that `ingest.decoder` names (the schema has checked the name)."""
    return _DECODERS[name]()
