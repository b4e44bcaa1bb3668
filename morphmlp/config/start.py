"""The section `start_from` of an experiment file: weights, or a whole training state, that training starts from."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from morphmlp.config.values import STRICT, Sha256


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StartConfig:
    """Weights that training starts from; every option changes what is learnt."""

    weights: str
    """A file: safetensors, a released checkpoint, or a checkpoint of this project. Set it to fine-tune."""
    sha256: Sha256 | None = None
    """SHA-256 of the file. Set it to refuse any other content; a run fills it in, so that its record names what it
    started from."""
    inflate: Literal["repeat", "centre"] | None = None
    """How a 2-D image model's convolutions get a time axis: repeated over time and divided by its length, or only at
    the centre; null: such a file is refused. Set it to start a video network from ImageNet weights."""
    replace_head: bool = False
    """Start with a fresh head. Set it where your classes are others than the file's: without it the file's head is
    taken, and one of another number of classes is refused."""
    class_order: str | None = None
    """File of `name<TAB>row` lines that names the rows of the file's head. Set it where they aren't in the manifest's
    order: the released K400 heads have an order of their own."""
    class_order_sha256: Sha256 | None = None
    """SHA-256 of the file that `class_order` names. Set it to refuse any other content; a run fills it in."""
    carry: Literal["fitting"] | None = None
    """`fitting`: the file may be of another network (chunk lengths, depths, widths, frames, classes); what means the
    same in both carries over, the rest starts fresh, and lines tell which. Null: everything must fit. Set it to start a
    changed network, such as a trial of a sweep, from weights of the original."""
    reverse_channels: bool = False
    """Swap the first convolution's colours. Set it where the weights were trained in the other order than
    `clip.channel_order`: the released Something-Something ones are for BGR."""
    training_state: bool = False
    """Take the whole state of a checkpoint of this project, its epochs and moments included, and continue it under
    another length or schedule. Set it to extend a finished run (`--extend RUN` does); all else must be alike."""

    @model_validator(mode="after")
    def _options_agree(self) -> Self:
        faults = []
        changes = {
            "inflate": self.inflate is not None,
            "replace_head": self.replace_head,
            "class_order": self.class_order is not None,
            "carry": self.carry == "fitting",
            "reverse_channels": self.reverse_channels,
        }
        if self.training_state and any(changes.values()):
            given = ", ".join(name for name, on in changes.items() if on)
            faults.append(f"training_state takes everything as it is, {given} would change it; choose one of them")
        if self.class_order is not None and self.replace_head:
            faults.append("class_order names the rows of a head that replace_head gives up; choose one of them")
        if self.class_order_sha256 is not None and self.class_order is None:
            faults.append("class_order_sha256 is given without class_order")
        if faults:
            raise ValueError("\n".join(faults))
        return self
