"""VGG-16 with batch normalisation for 32x32 images."""

import torch
from torch import Tensor, nn

# Channels of the convolutions, "M" for max pooling: configuration D of Simonyan and Zisserman.
LAYOUT: tuple[int | str, ...] = (
    *(64, 64, "M"),
    *(128, 128, "M"),
    *(256, 256, 256, "M"),
    *(512, 512, 512, "M"),
    *(512, 512, 512, "M"),
)


class CifarVGG16(nn.Module):
    """VGG-16-BN with three narrow linear layers, 313.7 million MACs on 3x32x32.

    Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*,
    ICLR 2015, configuration D. Different from it: batch normalisation after every convolution,
    and linear layers of 512 instead of 4096 units, as in github.com/chenyaofo/pytorch-cifar-models,
    whose weights fit.

    Args:
        num_classes: outputs of the last linear layer.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for entry in LAYOUT:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
            else:
                conv = nn.Conv2d(channels, entry, 3, padding=1)
                # Not in place: hooks on the layers must find what the layers gave.
                layers += [conv, nn.BatchNorm2d(entry), nn.ReLU()]
                channels = entry
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)  # the identity on 32x32 images
        self.classifier = nn.Sequential(
            nn.Linear(channels, 512),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(512, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(images, 3, H, W)``, at least 32x32, to logits ``(images, num_classes)``."""
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))
