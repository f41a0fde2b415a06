"""ResNet-18 for images of 32 by 32: BatchNorm, and a first convolution that keeps the size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's documentation calls it so)


class ResNet18(nn.Module):
    """The residual network of He et al. with two basic blocks in each of four stages.

    Args:
        width: channels of the first stage; each stage doubles them and halves the image.
        classes: logits of an image.

    Example:
        >>> import torch
        >>> ResNet18(width=4)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Reference:
        K. He et al., arXiv 1512.03385 (2015).
    """

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            for block in range(2):
                wanted = width * 2**stage
                blocks.append(_Block(channels, wanted, stride=2 if stage and not block else 1))
                channels = wanted
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of shape ``(batch, classes)`` for images of shape ``(batch, 3, height, width)``."""
        x = self.blocks(F.relu(self.norm(self.stem(images))))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class _Block(nn.Module):
    def __init__(self, given: int, wanted: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(given, wanted, 3, stride=stride, padding=1, bias=False),
            nn.Conv2d(wanted, wanted, 3, padding=1, bias=False),
        )
        self.first_norm, self.second_norm = nn.BatchNorm2d(wanted), nn.BatchNorm2d(wanted)
        same = given == wanted and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(given, wanted, 1, stride=stride, bias=False), nn.BatchNorm2d(wanted))
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.second_norm(self.second(F.relu(self.first_norm(self.first(x)))))
        return F.relu(inner + self.shortcut(x))
