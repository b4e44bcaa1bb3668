"""The decoders by name, and whether each can be used here.

A decoder's library is imported where it is asked for: most processes only pass its name on.
"""

from collections.abc import Callable
from typing import get_args

from morphmlp.config.values import DecoderName
from morphmlp.data.decoding.protocol import Decoder

DECODER_NAMES: tuple[str, ...] = get_args(DecoderName)
"""The default one first."""


def _pyav() -> Decoder:
    from morphmlp.data.decoding.pyav.decoder import PyAVDecoder  # noqa: PLC0415

    return PyAVDecoder()


def _decord() -> Decoder:
    from morphmlp.data.decoding.decord_decoder import DecordDecoder  # noqa: PLC0415

    return DecordDecoder()


def _torchcodec() -> Decoder:
    from morphmlp.data.decoding.torchcodec_decoder import TorchcodecDecoder  # noqa: PLC0415

    return TorchcodecDecoder()


_DECODERS: dict[str, Callable[[], Decoder]] = {"pyav": _pyav, "decord": _decord, "torchcodec": _torchcodec}


def decoder_by_name(name: str) -> Decoder:
    """The decoder that `ingest.decoder` names (the schema has checked the name)."""
    return _DECODERS[name]()


def decoder_fault(name: str) -> str | None:
    """Why a decoder can't be used on this machine, in one line with what to do; None where it can.

    It lets a run be refused before it starts, as in `ingest.decoder: torchcodec isn't installed; ...`.
    """
    match name:
        case "decord":
            from morphmlp.data.decoding.decord_decoder import decord_fault  # noqa: PLC0415

            return decord_fault()
        case "torchcodec":
            from morphmlp.data.decoding.torchcodec_decoder import torchcodec_fault  # noqa: PLC0415

            return torchcodec_fault()
    return None
