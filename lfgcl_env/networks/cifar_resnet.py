"""Residual networks for 32x32 images: ResNet-20, 32, 44, 56, 110.

He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016, section 4.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lfgcl_env.edge.choices import check_choice


class ZeroPadShortcut(nn.Module):
    """Option A of He et al.: subsample in space, pad the new channels with zeros; no parameters.

    The zeros are split evenly before and after the channels, as the published weights expect.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, at least ``in_channels``.
        stride: every ``stride``-th row and column is kept.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(images, in_channels, H, W)`` to ``(images, out_channels, H/stride, W/stride)``."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class ConvShortcut(nn.Sequential):
    """Option B of He et al.: a strided 1x1 convolution and batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )


SHORTCUTS: dict[str, type[nn.Module]] = {"A": ZeroPadShortcut, "B": ConvShortcut}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them.

    Args:
        in_channels: channels of the input.
        out_channels: channels of both convolutions.
        stride: stride of the first convolution and of the shortcut.
        shortcut: ``"A"`` or ``"B"``, used where the shape changes; elsewhere it is the identity.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = SHORTCUTS[shortcut](in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``relu(residual(x) + shortcut(x))``."""
        # Not in place: hooks on the layers must find what the layers gave.
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet for small images: three stages of 16, 32 and 64 channels, one linear layer.

    Args:
        depth: number of weighted layers, ``6 n + 2`` for ``n`` blocks a stage.
        num_classes: outputs of the linear layer.
        shortcut: ``"A"``, parameter-free, as in the paper's CIFAR experiments; or ``"B"``,
            a 1x1 convolution where the shape changes.

    Raises:
        ValueError: if ``depth`` is not of the form 6 n + 2, or ``shortcut`` is unknown.

    >>> sum(p.numel() for p in CifarResNet(20).parameters())
    269722
    """

    def __init__(self, depth: int, num_classes: int = 10, shortcut: str = "A") -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(
                f"depth {depth} is not 6 n + 2 for n blocks a stage: "
                "the nearest choices are 8, 14, 20, 26, 32, 38, 44, 50, 56, ..., 110"
            )
        check_choice(shortcut, SHORTCUTS, "shortcut")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks, shortcut)
        self.layer2 = _stage(16, 32, 2, blocks, shortcut)
        self.layer3 = _stage(32, 64, 2, blocks, shortcut)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(images, 3, H, W)`` to logits ``(images, num_classes)``."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _stage(
    in_channels: int, out_channels: int, stride: int, blocks: int, shortcut: str
) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    rest = (BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
