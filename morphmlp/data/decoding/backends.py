"""The decoders by name, and whether each can be used here."""

from collections.abc import Callable

from morphmlp.data.decoding.decord_decoder import DecordDecoder, decord_fault
from morphmlp.data.decoding.protocol import Decoder
from morphmlp.data.decoding.pyav.decoder import PyAVDecoder
from morphmlp.data.decoding.torchcodec_decoder import TorchcodecDecoder, torchcodec_fault

_DECODERS: dict[str, type[Decoder]] = {
    "pyav": PyAVDecoder,
    "decord": DecordDecoder,
    "torchcodec": TorchcodecDecoder,
}
_FAULTS: dict[str, Callable[[], str | None]] = {"decord": decord_fault, "torchcodec": torchcodec_fault}

DECODER_NAMES: tuple[str, ...] = tuple(_DECODERS)
"""The default one first."""


def decoder_by_name(name: str) -> Decoder:
    """The decoder that `ingest.decoder` names (the schema has checked the name)."""
    return _DECODERS[name]()


def decoder_fault(name: str) -> str | None:
    """Why a decoder can't be used on this machine, in one line with what to do; None where it can.

    It lets a run be refused before it starts, as in `ingest.decoder: torchcodec isn't installed; ...`.
    """
    return _FAULTS[name]() if name in _FAULTS else None
