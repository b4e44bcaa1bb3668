"""torchvision's ResNet-50 as a backbone: a known one, to tell what a recipe gives from what a backbone gives.

Its stem is one 7x7 convolution. mmsegmentation's results are of ResNet-50 v1c, whose stem has three of 3x3: other
weights, and some tenths of a point.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from morphmlp.errors import ConfigError
from morphmlp.models.network import Network
from morphmlp.models.sizes import INPUT_CHANNELS, RESNET_DIMS


class ResNetBackbone(Network):
    """The four stages of a ResNet-50 v1.5 under torchvision's names, without pooling and classifier.

    Raises:
        ConfigError: torchvision isn't installed.
    """

    def __init__(self, *, crop_size: int) -> None:
        super().__init__(input_shape=(INPUT_CHANNELS, crop_size, crop_size))
        self.embed_dims = RESNET_DIMS
        resnet = _resnet50()
        self.conv1: nn.Conv2d = resnet.conv1
        self.bn1: nn.BatchNorm2d = resnet.bn1
        self.maxpool: nn.MaxPool2d = resnet.maxpool
        self.layer1: nn.Sequential = resnet.layer1
        self.layer2: nn.Sequential = resnet.layer2
        self.layer3: nn.Sequential = resnet.layer3
        self.layer4: nn.Sequential = resnet.layer4

    def stage_blocks(self) -> tuple[nn.Sequential, ...]:
        """The blocks of the four stages."""
        return self.layer1, self.layer2, self.layer3, self.layer4

    def forward_features(self, clips: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps at the ends of the four stages, strides 4, 8, 16, 32, of images of any size.

        A recomputed block updates the running statistics of its BatchNorms twice with the same numbers, which doesn't
        matter where they are set anew for each micro-batch, as in training (`training.loop.batch_norm`).

        Raises:
            ValueError: The input has another number of axes or channels.
        """
        if clips.ndim != 4 or clips.shape[1] != INPUT_CHANNELS:
            raise ValueError(f"a ResNet-50 takes images [b, {INPUT_CHANNELS}, h, w], got {list(clips.shape)}")
        device, size = clips.device.type, tuple(clips.shape[-2:])
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            clips = clips.contiguous(memory_format=torch.channels_last)
        maps, x = [], self.maxpool(torch.relu(self.bn1(self.conv1(clips))))
        for stage, blocks in enumerate(self.stage_blocks(), start=1):
            for block in blocks:
                x = self.run_block(block, x, stage=stage, size=size)
            maps.append(x)
        return tuple(maps)

    def reset_parameters(self) -> None:
        """Draw the initial weights anew as torchvision does: convolutions normal (He), norms 1 and 0."""
        if next(self.parameters()).is_meta:
            return
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()


def _resnet50() -> Any:
    try:
        from torchvision.models import resnet50  # noqa: PLC0415 (seconds, and not every installation has it)
    except ImportError:
        raise ConfigError(
            [
                "segmentation.backbone: resnet50 is torchvision's, which isn't installed here; "
                "pip install 'morphmlp[resnet]' on every machine"
            ]
        ) from None
    return resnet50(weights=None)
