"""Networks that segment images: a backbone, a LayerNorm for each of its maps where it is a MorphMLP, and a decoder.

The backbone's parameters have the names that they have in a classifier, so that weights of images load by name. Norms
and decoder belong to the head (`models.parts`): they start fresh together and have its learning rate.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from morphmlp.config import ModelConfig
from morphmlp.config.segmentation import SegmentationConfig
from morphmlp.models.backbone import Backbone
from morphmlp.models.network import Network
from morphmlp.models.segmentation.decoders import Decoder, SemanticFpn, UperNet
from morphmlp.models.segmentation.resnet import ResNetBackbone

Logits = Float[Tensor, "b k h w"]


def segmentation_network(model: ModelConfig, *, segmentation: SegmentationConfig, crop_size: int) -> Network:
    """The network that `segmentation` names, with fresh weights, for training crops of `crop_size` pixels.

    Of `model` a ResNet-50 takes the number of classes alone.

    Raises:
        ConfigError: The sizes don't fit together, or the ResNet's package isn't there.
    """
    if segmentation.backbone == "resnet50":
        return ResNetSegmentation(segmentation, num_classes=model.num_classes, crop_size=crop_size)
    return MorphMLPSegmentation(model, segmentation=segmentation, crop_size=crop_size)


class MorphMLPSegmentation(Backbone):
    """A MorphMLP for images, the norms of its four maps, a decoder; see `Backbone`.

    Published networks of this kind (UniFormer, Swin) have a norm for each map that they hand over, and train it anew.
    The paper doesn't say whether MorphMLP's has them.
    """

    def __init__(self, config: ModelConfig, *, segmentation: SegmentationConfig, crop_size: int) -> None:
        super().__init__(config, num_frames=1, crop_size=crop_size)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in config.embed_dims)
        self.decoder = decoder(segmentation, config.embed_dims, num_classes=config.num_classes)
        self.reset_parameters()

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Logits | tuple[Logits, ...]:
        """Logits at a quarter of the image's sides; in training a tuple, with those of an auxiliary head last."""
        return _outputs(self.decoder(self.forward_maps(images)), training=self.training)

    def forward_maps(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c h w"], ...]:
        """What the decoder gets: the four maps after their norms."""
        return tuple(
            rearrange(norm(rearrange(one, "b c h w -> b h w c")), "b h w c -> b c h w")
            for norm, one in zip(self.norms, self.forward_features(images), strict=True)
        )

    def reset_parameters(self) -> None:
        """Draw the initial weights anew: the backbone's as in a classifier, the decoder's as mmsegmentation does."""
        super().reset_parameters()
        _reset_decoder(self.decoder)


class ResNetSegmentation(ResNetBackbone):
    """A ResNet-50 and a decoder on its four maps, which have no norms of their own; see `ResNetBackbone`."""

    def __init__(self, segmentation: SegmentationConfig, *, num_classes: int, crop_size: int) -> None:
        super().__init__(crop_size=crop_size)
        self.decoder = decoder(segmentation, self.embed_dims, num_classes=num_classes)
        self.reset_parameters()

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Logits | tuple[Logits, ...]:
        """Logits at a quarter of the image's sides; in training a tuple, with those of an auxiliary head last."""
        return _outputs(self.decoder(self.forward_maps(images)), training=self.training)

    def forward_maps(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b c h w"], ...]:
        """What the decoder gets: the four maps as they are."""
        return self.forward_features(images)

    def reset_parameters(self) -> None:
        """Draw the initial weights anew: the backbone's as torchvision, the decoder's as mmsegmentation does."""
        super().reset_parameters()
        _reset_decoder(self.decoder)


SegmentationNetwork = MorphMLPSegmentation | ResNetSegmentation


def decoder(segmentation: SegmentationConfig, dims: tuple[int, ...], *, num_classes: int) -> Decoder:
    """The decoder that `segmentation` names, for maps of `dims` channels."""
    channels, dropout = segmentation.decoder_channels, segmentation.dropout
    if segmentation.decoder == "semantic_fpn":
        return SemanticFpn(dims, channels=channels, classes=num_classes, dropout=dropout)
    auxiliary = segmentation.auxiliary_weight > 0
    return UperNet(dims, channels=channels, classes=num_classes, dropout=dropout, auxiliary=auxiliary)


def _outputs(outputs: tuple[Tensor, ...], *, training: bool) -> Tensor | tuple[Tensor, ...]:
    return outputs if training else outputs[0]


def _reset_decoder(module: Decoder) -> None:
    if not next(module.parameters()).is_meta:
        module.reset_parameters()
