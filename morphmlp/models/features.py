"""The backbone alone, whose result are its four maps: what detection, segmentation and localisation build on."""

from jaxtyping import Float
from torch import Tensor

from morphmlp.config import ModelConfig
from morphmlp.models.backbone import Backbone


class MorphMLPFeatures(Backbone):
    """A MorphMLP without its head; weights of a classifier load by name, but for `norm` and `head`."""

    def __init__(self, config: ModelConfig, *, num_frames: int, crop_size: int) -> None:
        super().__init__(config, num_frames=num_frames, crop_size=crop_size)
        self.channels: tuple[int, ...] = config.embed_dims
        """Channels of the four maps."""
        self.reductions = (4, 8, 16, 32)
        """Rows and columns of the input over those of each map."""
        self.reset_parameters()

    def forward(self, clips: Float[Tensor, "b c *t h w"]) -> tuple[Float[Tensor, "b ..."], ...]:
        """The four maps; see `forward_features`."""
        return self.forward_features(clips)
