"""Sizes that no experiment sets, for the networks and for what only counts them."""

from morphmlp.config.values import Branch

INPUT_CHANNELS = 3
ALL_BRANCHES: tuple[Branch, ...] = ("height", "width", "channel")
REWEIGHT_REDUCTION = 4
"""Channels of a stage over hidden channels of the layer that weighs its branches."""
FPN_UNITS = (1, 1, 2, 3)
"""Units per map in Semantic FPN: each but the first map's is followed by a doubling, until stride 4 is reached."""
POOLED_SIDES = (1, 2, 3, 6)
"""Rows and columns to which UPerNet pools the last map."""
RESNET_DIMS = (256, 512, 1024, 2048)
"""Channels of a ResNet-50's four maps."""
RESNET_DEPTHS = (3, 4, 6, 3)
