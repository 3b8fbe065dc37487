"""Deep CORAL: what it is for, whose labels it never sees, and that a kill changes nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from bright_halves import SIZE, network, same, samples_of, sides
from mortal import Killed, Mortal
from numpy.typing import NDArray
from torch import nn

from robustgate.core.components import Samples
from robustgate.core.errors import CompressionError
from robustgate.engine.course import train
from robustgate.training.deep_coral import DeepCoral
from robustgate.training.supervised import Supervised


def coloured(seed: int, *, scale: float = 1.0, offset: float = 0.0, count: int = 256) -> Samples:
    """Images of two classes that differ in red, and more clearly in green; `scale` and `offset` are another camera's.

    The green of another camera is scaled and moved: a border drawn through it means nothing there, red still does.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    sign = 2 * labels - 1
    red = 128 + 24 * sign + 12 * rng.standard_normal(count)
    green = 60 + offset + scale * (16 * sign + 4 * rng.standard_normal(count))
    images = np.zeros((count, SIZE, SIZE, 3), dtype=np.uint8)
    images[..., 0], images[..., 1] = red[:, None, None], green[:, None, None]
    return samples_of(images, labels)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


@torch.no_grad()
def accuracy(module: nn.Module, samples: Samples) -> float:
    images = torch.from_numpy(samples.images).permute(0, 3, 1, 2) / 255
    return (module(images).argmax(1).numpy() == samples.labels).mean().item()


SOURCE, TARGET = coloured(0), coloured(1, scale=2.5, offset=100)


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    module = linear()
    train(module, Supervised(epochs=20, lr=1.0, batch_size=32, weight_decay=0.0), SOURCE)
    return module


def adapted(module: nn.Module, weight: float, target: Samples = TARGET) -> nn.Module:
    options = {"lr": 0.3, "batch_size": 64, "weight_decay": 0.0, "layers": {"logits": weight}}
    recipe = DeepCoral(epochs=20, target="camera", **options)
    return train(copy.deepcopy(module), recipe, SOURCE, unlabelled={"camera": target})


def test_a_network_learns_to_do_without_what_the_other_camera_changes(trained: nn.Module) -> None:
    before = accuracy(trained, TARGET)
    after, control = adapted(trained, 1.0), adapted(trained, 0.0)
    assert accuracy(trained, SOURCE) > 0.99
    assert before < 0.6
    assert accuracy(control, TARGET) < 0.6
    assert accuracy(after, TARGET) > 0.9
    assert accuracy(after, SOURCE) > 0.9
    # What it goes by: red alone, where it had gone by both.
    for module, share in ((after, (0.0, 0.2)), (control, (0.7, 1.5))):
        red, green, _ = (module[2].weight[1] - module[2].weight[0]).tolist()
        assert share[0] <= abs(green / red) <= share[1]


def test_the_targets_labels_are_never_looked_at(trained: nn.Module) -> None:
    labels: NDArray[np.int64] = np.random.default_rng(0).permutation(TARGET.labels)
    other = samples_of(np.asarray(TARGET.images), labels)
    assert same(adapted(trained, 1.0).state_dict(), adapted(trained, 1.0, other).state_dict())


def test_its_images_are(trained: nn.Module) -> None:
    assert not same(adapted(trained, 1.0).state_dict(), adapted(trained, 1.0, SOURCE).state_dict())


def test_the_domain_that_it_looks_at_is_known_before() -> None:
    assert DeepCoral(epochs=1, target="webcam").domains == ("webcam",)


def test_recipes_that_differ_in_weights_alone_are_two() -> None:
    one, other = (DeepCoral(epochs=1, target="webcam", layers={"logits": weight}) for weight in (1.0, 2.0))
    assert one != other
    assert len({one, other}) == 2


def test_a_domain_that_is_not_there_is_an_error() -> None:
    with pytest.raises(CompressionError, match="no unlabelled images of 'webcan'; given: webcam"):
        train(network(), DeepCoral(epochs=1, target="webcan"), sides(), unlabelled={"webcam": sides()})


# Two calls a step, six steps an epoch, three epochs.
@pytest.mark.parametrize("at", np.random.default_rng(7).choice(36, 3, replace=False).tolist())
def test_a_training_that_was_killed_ends_with_the_same_weights(at: int, tmp_path: Path) -> None:
    # 40 images, 16 a step: no epoch ends where all target images have been shown as often.
    options = {"unlabelled": {"dim": coloured(3, count=40)}, "seed": 4}
    changes = {"flip": True, "transforms": {"RandomErasing": {}}}
    recipe = DeepCoral(epochs=3, batch_size=16, target="dim", layers={"logits": 1.0, "inner.0": 5.0}, **changes)
    whole = Mortal(network())
    train(whole, recipe, sides(), **options)
    with pytest.raises(Killed):
        train(Mortal(network(), at), recipe, sides(), folder=tmp_path, **options)
    again = Mortal(network())
    train(again, recipe, sides(), folder=tmp_path, **options)
    assert same(again.state_dict(), whole.state_dict())
