"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) with TensorFlow's padding, and published 8-bit weights for it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

# Expansion, channels, number of blocks, stride of the first: table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, LAST = 32, 1280


def convolution(
    in_channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1, *, clipped: bool = True
) -> nn.Sequential:
    """Return a normalised convolution, padded as TensorFlow's SAME pads an even side: more at the bottom and right."""
    before, behind = (size - stride) // 2, (size - stride + 1) // 2
    uneven = [nn.ZeroPad2d((before, behind, before, behind))] if before < behind else []
    padding = 0 if uneven else before
    layer = nn.Conv2d(in_channels, out_channels, size, stride, padding, groups=groups, bias=False)
    return nn.Sequential(*uneven, layer, nn.BatchNorm2d(out_channels), *([nn.ReLU6()] if clipped else []))


class Block(nn.Module):
    """An inverted residual: expanded, convolved channel by channel, projected, and added where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.layers = nn.Sequential(
            *([convolution(in_channels, wide, 1)] if expansion > 1 else []),
            convolution(wide, wide, 3, stride, wide),
            convolution(wide, out_channels, 1, clipped=False),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H/stride, W/stride)."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """Maps images in [-1, 1], of a side that 32 divides, to features and logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, STEM, 3, 2)]
        channels = STEM
        for expansion, width, blocks, stride in STAGES:
            for place in range(blocks):
                layers.append(Block(channels, width, expansion, stride if place == 0 else 1))
                channels = width
        layers.append(convolution(channels, LAST, 1))
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(LAST, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to what the classifier reads (N, 1280)."""
        mean: Tensor = self.layers(x).mean(dim=(2, 3))
        return mean

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


def mobilenet_v2(*, num_classes: int) -> MobileNetV2:
    """Build the network of width 1."""
    return MobileNetV2(num_classes)


def published(weights: Path) -> MobileNetV2:
    """Return the network of a file of 8-bit weights (1001 classes, the first of them background), in float32.

    Batch normalisation was folded into the convolutions before they were quantized: here it only adds their biases.
    """
    codes = load_file(weights)
    described = json.loads(weights.with_suffix(".json").read_text())["convs"]
    network = mobilenet_v2(num_classes=1001)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for layer, norm, one in zip(layers, [*norms, network.classifier], described, strict=True):
            weight = (codes[f"{one['name']}.weight_q"].float() - one["w_zp"]) * one["w_scale"]
            layer.weight.copy_(weight.view_as(layer.weight))
            norm.bias.copy_(codes[f"{one['name']}.bias_q"].float() * one["b_scale"])
        for norm in norms:
            norm.weight.fill_((1 + norm.eps) ** 0.5)
    return network.eval()


def unfold(network: MobileNetV2, images: Tensor) -> None:
    """Give each batch normalisation the statistics of `images` (N, 3, H, W), and leave what the network computes.

    Without it, fine-tuning a network of folded weights diverges.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    seen: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def see(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        var, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        seen[norm].append(torch.stack([mean, var]))

    hooks = [norm.register_forward_pre_hook(see) for norm in norms]
    with torch.no_grad():
        for batch in images.split(64):
            network.features(batch)
        for norm, hook in zip(norms, hooks, strict=True):
            hook.remove()
            mean, var = torch.stack(seen[norm]).mean(dim=0)
            slope = norm.weight / (norm.running_var + norm.eps).sqrt()
            offset = norm.bias - slope * norm.running_mean
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)
            norm.weight.copy_(slope * (var + norm.eps).sqrt())
            norm.bias.copy_(offset + slope * mean)
