"""The networks of the study that the zoo does not have: those whose published weights lie beside the project."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    """Two convolutions and a shortcut; only the last block of a stage is followed by a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, ends: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            convolution = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(out_channels))
        self.ends = ends

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))) + self.shortcut(x)
        return functional.relu(out) if self.ends else out


class DistillerResNet(nn.Module):
    """The ResNets of karanchahal/distiller: a stem of 64 channels, stages of 16, 32 and 64, 4 x 4 average pooling."""

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, width in enumerate((16, 32, 64), 1):
            made = []
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                made.append(_Block(channels, width, stride, ends=block == blocks - 1))
                channels = width
            self.add_module(f"layer{stage}", nn.Sequential(*made))
        self.linear = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, 32, 32) to logits (N, num_classes)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            out = self.get_submodule(f"layer{stage}")(out)
        logits: Tensor = self.linear(functional.avg_pool2d(out, 4).flatten(1))
        return logits


def distiller_resnet(*, depth: int, num_classes: int) -> DistillerResNet:
    """Build a ResNet of 6n+2 layers."""
    return DistillerResNet((depth - 2) // 6, num_classes)


# Expansion, channels, blocks, stride of the first: table 2 of Sandler et al. 2018 (arXiv 1801.04381).
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class _Convolution(nn.Module):
    """A convolution with TensorFlow's padding (an odd pixel goes below and to the right), and a ReLU6 after it."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int, *, depthwise: bool, relu6: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, groups=inputs if depthwise else 1)
        self.relu6 = relu6

    def forward(self, x: Tensor) -> Tensor:
        size, stride = self.conv.kernel_size[0], self.conv.stride[0]
        lacks = [max(0, (-(-side // stride) - 1) * stride + size - side) for side in x.shape[2:]]
        if any(lacks):
            x = functional.pad(x, (lacks[1] // 2, lacks[1] - lacks[1] // 2, lacks[0] // 2, lacks[0] - lacks[0] // 2))
        x = self.conv(x)
        return functional.relu6(x) if self.relu6 else x


class _Inverted(nn.Module):
    """An inverted residual."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        layers = [_Convolution(inputs, wide, 1, 1, depthwise=False, relu6=True)] if expansion > 1 else []
        layers.append(_Convolution(wide, wide, 3, stride, depthwise=True, relu6=True))
        layers.append(_Convolution(wide, outputs, 1, 1, depthwise=False, relu6=False))
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.adds else out


class MobileNetV2(nn.Module):
    """MobileNetV2 with batch normalisation folded into its convolutions, as files for devices hold it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_Convolution(3, 32, 3, 2, depthwise=False, relu6=True)]
        channels = 32
        for expansion, width, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(_Inverted(channels, width, stride if block == 0 else 1, expansion))
                channels = width
        layers.append(_Convolution(channels, 1280, 1, 1, depthwise=False, relu6=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def mobilenet_v2(*, num_classes: int) -> MobileNetV2:
    """Build a MobileNetV2 whose input is (x - 128) / 128 of 8-bit levels."""
    return MobileNetV2(num_classes)


def dequantized(module: MobileNetV2, weights: Path, description: Path) -> None:
    """Give the features the values that the 8-bit weights of a published file stand for; the classifier stays."""
    quantized = load_file(weights)
    layers = [one for one in module.modules() if isinstance(one, _Convolution)]
    described = json.loads(description.read_text(encoding="utf-8"))["convs"]
    with torch.no_grad():
        for layer, told in zip(layers, described[:-1], strict=True):  # the last is the old classifier
            values = quantized[f"{told['name']}.weight_q"].float()
            layer.conv.weight.copy_((values - told["w_zp"]) * told["w_scale"])
            layer.conv.bias.copy_(quantized[f"{told['name']}.bias_q"].float() * told["b_scale"])
