"""ResNets for small images (He et al. 2016, arXiv 1512.03385, section 4.2): 6n+2 layers in three stages.

Parameter names are those of the widely used published weights (``conv1``, ``layer1.0.conv1``, ..., ``linear``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustgate.core.errors import ModelError


class PaddedShortcut(nn.Module):
    """The shortcut without parameters (the paper's option A): every second pixel, new channels zero.

    The new channels are split evenly before and behind the old ones; where there are fewer channels than before, the
    ones in the middle pass. It can be pruned: `keep_inputs` and `keep_outputs` are what a pruning step calls on a
    layer that knows its own channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.stride = stride
        before = (out_channels - in_channels) // 2
        # Output channel i shows input channel source[i]; -1 stands for zeros.
        self.source = [i - before if 0 <= i - before < in_channels else -1 for i in range(out_channels)]

    @property
    def out_channels(self) -> int:
        """Number of channels after the shortcut."""
        return len(self.source)

    def keep_outputs(self, kept: list[int]) -> None:
        """Drop every output channel whose index is not in `kept`."""
        self.source = [self.source[i] for i in kept]

    def keep_inputs(self, kept: list[int]) -> None:
        """Adapt to an input that has lost every channel whose index is not in `kept`: what showed it is zero now."""
        position = {old: new for new, old in enumerate(kept)}
        self.source = [position.get(i, -1) for i in self.source]
        self.in_channels = len(kept)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H/stride), ceil(W/stride))."""
        x = x[:, :, :: self.stride, :: self.stride]
        before = next((i for i, source in enumerate(self.source) if source >= 0), 0)
        behind = len(self.source) - before - self.in_channels
        if self.source == [-1] * before + list(range(self.in_channels)) + [-1] * behind:
            return functional.pad(x, (0, 0, 0, 0, before, behind))
        # After pruning the kept channels may lie anywhere: append one zero channel and pick.
        padded = functional.pad(x, (0, 0, 0, 0, 0, 1))
        index = [source if source >= 0 else self.in_channels for source in self.source]
        return padded.index_select(1, torch.tensor(index, device=x.device))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        plain = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if plain else PaddedShortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of `blocks` blocks, of `widths` channels; global mean; one linear layer."""

    def __init__(self, blocks: int, widths: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(3, first, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = self._stage(first, first, blocks, 1)
        self.layer2 = self._stage(first, second, blocks, 2)
        self.layer3 = self._stage(second, third, blocks, 2)
        self.linear = nn.Linear(third, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, out_channels, stride)
        return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to logits (N, num_classes)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def cifar_resnet(
    *, depth: int, num_classes: int, width: int | None = None, widths: Sequence[int] | None = None
) -> CifarResNet:
    """Build a ResNet of `depth` = 6n+2 layers.

    `widths` are the channels of its three stages; `width` stands for width, 2 and 4 times width (16 in the paper, and
    where neither is given). Raises ModelError.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ModelError(f"cifar_resnet: depth must be 6n+2 (8, 14, 20, 26, 32, ...), got {depth}")
    if width is not None and widths is not None:
        raise ModelError(f"cifar_resnet: give either width or widths, got {width} and {list(widths)}")
    if widths is None:
        widths = [(16 if width is None else width) * times for times in (1, 2, 4)]
    if len(widths) != 3 or min(widths) < 1:
        raise ModelError(f"cifar_resnet: widths must be three counts of channels above 0, got {list(widths)}")
    first, second, third = widths
    return CifarResNet((depth - 2) // 6, (first, second, third), num_classes)
