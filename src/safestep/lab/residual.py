"""A small residual network with BatchNorm, for flattened square images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu


class Residual(nn.Module):
    """Two convolutions with BatchNorm beside the way straight through.

    Args:
        before: channels of what comes in.
        after: channels of what goes out.
        stride: of the first convolution; where it or the channels change, the way through is a 1 x 1 convolution.

    Reference:
        K. He et al., arXiv 1512.03385 (2015), the basic block.
    """

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.bent = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        same = before == after and stride == 1
        through = [] if same else [nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)]
        self.through = nn.Sequential(*through)

    def forward(self, images: Tensor) -> Tensor:
        """Return images ``(batch, after, side / stride, side / stride)`` of images ``(batch, before, side, side)``."""
        return relu(self.bent(images) + self.through(images))


def resnet(channels: int = 1, side: int = 8, width: int = 16, classes: int = 10) -> nn.Sequential:
    """Return three residual blocks behind a convolution, of rising width, for flattened images.

    Example:
        >>> import torch
        >>> resnet()(torch.zeros(5, 64)).shape, resnet(3, 32, width=4)(torch.zeros(5, 3072)).shape
        (torch.Size([5, 10]), torch.Size([5, 10]))
    """
    return nn.Sequential(
        nn.Unflatten(1, (channels, side, side)),
        nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        Residual(width, width), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes),
    )  # fmt: skip
