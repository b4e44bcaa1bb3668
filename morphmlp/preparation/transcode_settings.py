"""How prepared copies are made: the settings of `prepare.py transcode`, checked."""

from dataclasses import dataclass

from morphmlp.errors import ConfigError

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""x264's, fastest first."""


@dataclass(frozen=True, kw_only=True)
class TranscodeSettings:
    """How copies are made; together with their source this defines a data set.

    Raises:
        ConfigError: A value that x264 or 4:2:0 can't take.
    """

    short_edge: int = 320
    """The shorter side of a copy is at most so long, pixels; nothing is enlarged."""
    gop: int = 16
    """Frames of a group at most; each group starts with a key frame and refers to no other group."""
    crf: int = 22
    """x264's quality: lower is better and larger."""
    preset: str = "veryfast"
    """x264's effort: slower gives better copies, which are larger at the same `crf`."""
    b_frames: int = 3
    """Frames between two that others refer to; a decoder may skip them. 3 fits a stride of 4: no more than those that
    are wanted, and one reference for each, need to be decoded."""

    def __post_init__(self) -> None:
        faults = [
            f"--{name}: {value} must be {low} to {high}"
            for name, value, low, high in (
                ("short-edge", self.short_edge, 32, 4096),
                ("gop", self.gop, 1, 600),
                ("crf", self.crf, 0, 51),
                ("b-frames", self.b_frames, 0, 16),
            )
            if not low <= value <= high
        ]
        if self.short_edge % 2:
            faults.append(f"--short-edge: {self.short_edge} must be even")
        if self.preset not in PRESETS:
            faults.append(f"--preset: {self.preset!r} must be one of {', '.join(PRESETS)}")
        if faults:
            raise ConfigError(faults)
