"""Small reference architectures."""

from robustgate.zoo.cifar_resnet import cifar_resnet

__all__ = ["cifar_resnet"]
