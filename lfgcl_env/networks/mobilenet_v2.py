"""MobileNetV2 for 32x32 images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Expansion, channels, blocks, stride of the first block: Sandler et al., table 2.
# The second row's stride is 1 instead of 2, because the images are small.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class ConvNormReLU6(nn.Sequential):
    """A convolution without bias, batch normalisation and ReLU6.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: kernel size [pixels], odd; the padding keeps the size.
        stride: stride of the convolution.
        groups: groups of the convolution; ``in_channels`` of them make it depthwise.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel,
                stride=stride,
                padding=kernel // 2,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(),  # not in place: hooks on the layers must find what the layers gave
        )


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter depthwise, project linearly; add the input if it fits.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the depthwise convolution.
        expansion: hidden channels per input channel; 1 leaves the first convolution out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormReLU6(in_channels, hidden, 1))
        layers += [
            ConvNormReLU6(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(images, in_channels, H, W)`` to ``(images, out_channels, H/stride, W/stride)``."""
        return x + self.conv(x) if self.residual else self.conv(x)


class CifarMobileNetV2(nn.Module):
    """MobileNetV2 of width 1, 88.0 million MACs on 3x32x32.

    Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, CVPR 2018, table 2.
    Different from it: the first convolution and the second stage have stride 1, as in
    github.com/chenyaofo/pytorch-cifar-models, whose weights fit.

    Args:
        num_classes: outputs of the linear layer.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        channels, last = 32, 1280
        layers: list[nn.Module] = [ConvNormReLU6(3, channels, 3)]
        for expansion, out_channels, blocks, first_stride in STAGES:
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                layers.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        layers.append(ConvNormReLU6(channels, last, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(images, 3, H, W)`` to logits ``(images, num_classes)``."""
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))
