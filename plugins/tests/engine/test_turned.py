"""Attacks turned to use: misclassified images that are corrected, and the points that training is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from robustgate.attacks.ddn import Ddn
from robustgate.attacks.deepfool import Deepfool
from robustgate.attacks.pgd import Pgd
from robustgate.core.components import Attack, Samples
from robustgate.core.errors import MeasurementError
from robustgate.core.images import Joined, take
from robustgate.engine import turned
from robustgate.engine.draws import SampleDraws
from robustgate.engine.turned import Overlaid, Towards, corrections, last_points
from robustgate.zoo import cifar_resnet

SIZE, CLASSES = 6, 3
CPU = torch.device("cpu")
STORED = Ddn(eps=1e4, levels=256)


def samples_of(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Samples:
    names = tuple(map(str, range(len(labels))))
    return Samples(images=images, labels=labels, classes=tuple("abc"), names=names)


def noise(count: int = 60) -> Samples:
    rng = np.random.default_rng(0)
    images = rng.integers(40, 216, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return samples_of(images, rng.integers(0, CLASSES, count))


class Doubled(nn.Module):
    """Compute in double precision: sums do not depend on the batch in any bit that counts."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.double()).float()
        return logits


def linear() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES)).eval()


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout()]
    return nn.Sequential(*layers, nn.Linear(6 * SIZE * SIZE, CLASSES)).eval()


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def predictions(module: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    return module(as_tensor(images)).argmax(dim=1).numpy()


def norms(samples: Samples, rows: NDArray[np.int64], images: NDArray[np.uint8]) -> NDArray[np.float64]:
    change = (images.astype(np.float64) - samples.images[rows]) / 255
    return np.sqrt((change**2).sum(axis=(1, 2, 3)))


def corrected(module: nn.Module, samples: Samples, attack: Attack, seed: int = 0):
    return corrections(module, samples, attack, seed=seed, device=CPU)


# Corrections


@pytest.mark.parametrize("make", [linear, convolutional])
def test_every_misclassified_image_becomes_right_in_8_bits(make) -> None:
    module, samples = make(), noise()
    wrong = np.flatnonzero(predictions(module, samples.images) != samples.labels)
    assert 20 < len(wrong) < 60
    rows, images = corrected(module, samples, STORED)
    assert rows.tolist() == wrong.tolist()
    assert (images.dtype, images.shape) == (np.uint8, (len(wrong), SIZE, SIZE, 3))
    assert predictions(module, images).tolist() == samples.labels[wrong].tolist()


def test_of_a_linear_network_the_nearest_image_is_found() -> None:
    module, samples = linear(), noise()
    rows, images = corrected(module, samples, STORED)
    weight = module[1].weight.detach().double()
    logits = module(as_tensor(samples.images[rows])).detach().double()
    labels = torch.from_numpy(samples.labels[rows])
    # Half-spaces: no image that is right is nearer than the farthest of its label's borders with the other classes.
    own, count = logits[torch.arange(len(rows)), labels], torch.arange(CLASSES)
    distances = torch.stack([(logits[:, k] - own) / (weight[k] - weight[labels]).norm(dim=1) for k in count], dim=1)
    bound = distances.nan_to_num(float("-inf")).amax(dim=1).numpy()
    found = norms(samples, rows, images)
    assert (bound > 0).all()
    assert (found >= bound - 1e-6).all()
    # Rounding moves each of 108 values by up to half a level, along the normal by far less.
    assert np.median(found / bound) < 1.25


@pytest.mark.parametrize("eps", [0.5, 1.0])
def test_corrections_lie_within_the_attacks_budget(eps: float) -> None:
    module, samples = convolutional(), noise()
    for attack in (Ddn(eps=eps, levels=256), Ddn(eps=eps), Deepfool(eps=eps, norm="l2"), Pgd(eps=eps, norm="l2")):
        rows, images = corrected(module, samples, attack)
        assert len(rows)
        assert norms(samples, rows, images).max() <= eps + 1e-6
        assert predictions(module, images).tolist() == samples.labels[rows].tolist()
    assert len(corrected(module, samples, Ddn(eps=eps, levels=256))[0]) < 44


@pytest.mark.parametrize("levels", [20.5, 24.0])
def test_a_budget_between_two_levels_is_kept_in_linf_too(levels: float) -> None:
    module, samples = convolutional(), noise()
    rows, images = corrected(module, samples, Pgd(eps=levels / 255, steps=10))
    assert len(rows)
    change = np.abs(images.astype(int) - samples.images[rows])
    assert change.max() == int(levels)


def test_another_attack_corrects_more_the_farther_it_may_go() -> None:
    module, samples = convolutional(), noise()
    found = [set(corrected(module, samples, Pgd(eps=eps, steps=10))[0].tolist()) for eps in (0.06, 0.1, 0.3)]
    assert 0 < len(found[0]) < len(found[1]) < len(found[2])
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("attack", [STORED, Pgd(eps=0.05, steps=4)], ids=["ddn", "random start"])
def test_neither_the_batch_nor_who_else_is_in_it_changes_a_correction(attack, monkeypatch: pytest.MonkeyPatch) -> None:
    module, samples = Doubled(linear()), noise()
    rows, images = corrected(module, samples, attack)
    with monkeypatch.context() as patch:
        patch.setattr(turned, "batch_size", lambda _: 3)
        again, others = corrected(module, samples, attack)
    assert again.tolist() == rows.tolist()
    assert np.array_equal(others, images)
    # What draws at random draws for a row of the split; without the first rows wrong, the others' walks are the same.
    right = samples.labels.copy()
    right[:30] = predictions(module, samples.images)[:30]
    later, fewer = corrected(module, samples_of(samples.images, right), attack)
    assert later.tolist() == [row for row in rows if row >= 30]
    assert np.array_equal(fewer, images[rows >= 30])


def test_the_order_of_the_samples_does_not_count() -> None:
    module, samples = Doubled(linear()), noise()
    rows, images = corrected(module, samples, STORED)
    order = np.random.default_rng(1).permutation(len(samples))
    again, others = corrected(module, take(samples, order), STORED)
    assert (np.diff(again) > 0).all()
    back = np.argsort(order[again])
    assert order[again][back].tolist() == rows.tolist()
    assert np.array_equal(others[back], images)


def test_a_random_start_depends_on_the_seed() -> None:
    module, samples = linear(), noise()
    attack = Pgd(eps=0.05, steps=4)
    first, again, other = (corrected(module, samples, attack, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first[:10], other[:10])


def test_where_nothing_is_wrong_nothing_is_corrected() -> None:
    module, samples = linear(), noise()
    right = samples_of(np.asarray(samples.images), predictions(module, samples.images))
    rows, images = corrected(module, right, STORED)
    assert (rows.tolist(), images.shape) == ([], (0, SIZE, SIZE, 3))


def test_what_is_not_found_is_left_out() -> None:
    class Deaf(nn.Module):
        """Never answers the last class, whatever it sees."""

        def __init__(self) -> None:
            super().__init__()
            self.network = linear()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images) - torch.tensor([0.0, 0.0, 1e3])
            return logits

    samples = noise()
    rows, _ = corrected(Deaf(), samples, STORED)
    wrong = np.flatnonzero(predictions(Deaf(), samples.images) != samples.labels)
    assert rows.tolist() == [row for row in wrong if samples.labels[row] != 2]


def test_the_network_is_left_as_it_was_and_progress_is_told() -> None:
    module = convolutional().train()
    module[1].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    told: list[float] = []
    corrections(module, noise(), STORED, seed=0, device=CPU, progress=told.append)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert (module.training, module[1].training, module[4].training) == (True, False, True)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert told == sorted(told)
    assert told[-1] == 1


def test_published_network_on_real_images(real_data: Path) -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = cifar_resnet(depth=20, num_classes=10)
            self.network.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"))

        def forward(self, images: Tensor) -> Tensor:
            mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            logits: Tensor = self.network((images - mean[:, None, None]) / std[:, None, None])
            return logits

    with np.load(real_data / "cifar" / "cifar10_test_2000.npz") as file:
        images, labels = file["images"][:300], file["labels"][:300]
    samples = samples_of(images, labels.astype(np.int64))
    module = Normalized().eval()
    wrong = np.flatnonzero(predictions(module, images) != labels)
    assert len(wrong) > 15
    rows, moved = corrected(module, samples, STORED)
    assert rows.tolist() == wrong.tolist()
    assert predictions(module, moved).tolist() == labels[rows].tolist()
    assert norms(samples, rows, moved).max() < 1


# Images with some replaced


@pytest.mark.parametrize(
    "rows", [3, -1, slice(1, 6, 2), slice(None), [5, 0, 2], np.array([2, 2, 7]), np.array([], int)]
)
def test_overlaid_images_are_read_as_an_array_is(rows: int | slice | Sequence[int]) -> None:
    images = noise(8).images
    replaced = np.full((3, SIZE, SIZE, 3), 9, dtype=np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None]
    expected = np.array(images)
    expected[[2, 5, 7]] = replaced
    before = images.tobytes()
    # Of a domain in several files, too.
    for whole in (images, Joined([images[:3], images[3:]])):
        overlaid = Overlaid(whole, np.array([2, 5, 7]), replaced)
        assert (overlaid.shape, overlaid.dtype, len(overlaid)) == (images.shape, images.dtype, 8)
        found = overlaid[rows]
        assert np.array_equal(found, expected[rows])
        found[...] = 0
    assert images.tobytes() == before


# A class against all others


@pytest.mark.parametrize("label", range(CLASSES))
def test_towards_a_class_is_taken_for_that_class(label: int) -> None:
    module = convolutional()
    towards, images = Towards(module, label), as_tensor(noise().images)
    with torch.no_grad():
        logits, pair = module(images), towards(images)
        traced = torch.fx.symbolic_trace(towards)(images)
    assert ((logits.argmax(dim=1) == label) == (pair.argmax(dim=1) == 1)).all()
    assert torch.equal(pair[:, 1], logits[:, label])
    rest = [one for one in range(CLASSES) if one != label]
    assert torch.equal(pair[:, 0], logits[:, rest].amax(dim=1))
    assert torch.equal(traced, pair)


def test_a_tie_is_not_taken_for_the_class() -> None:
    class Flat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.new_zeros(len(images), CLASSES)

    assert Towards(Flat(), 0)(torch.zeros(1, 3, 2, 2)).argmax(dim=1).tolist() == [0]


# The points that training is shown


def draws(count: int) -> SampleDraws:
    return SampleDraws(range(count))


def climb(module: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int, relative_step: float) -> Tensor:
    """PGD as Madry et al. write it, from the images themselves."""
    points = images.clone()
    for _ in range(steps):
        leaf = points.clone().requires_grad_()
        functional.cross_entropy(module(leaf), labels, reduction="sum").backward()
        points = points + eps * relative_step * leaf.grad.sign()
        points = (images + (points - images).clamp(-eps, eps)).clamp(0, 1)
    return points


@pytest.mark.parametrize("make", [linear, convolutional])
def test_last_points_are_where_pgd_ends_fooled_or_not(make) -> None:
    module, samples = make(), noise(24)
    images, labels = as_tensor(samples.images), torch.from_numpy(samples.labels)
    images[:4] = images[:4].round()  # at the border of [0, 1]
    attack = Pgd(eps=0.03, steps=5, relative_step=0.4, random_start=False, give_up=float("inf"))
    found = last_points(module, images, labels, attack, draws(24), classes=CLASSES)
    expected = climb(module, images, labels, 0.03, 5, 0.4)
    assert (module(images).argmax(1) != labels).any()
    assert (module(images).argmax(1) == labels).any()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert (found >= 0).all()
    assert (found <= 1).all()


def test_looking_for_points_leaves_the_network_as_it_was() -> None:
    module = convolutional().train()
    module[1].eval()  # as a recipe does that freezes the statistics
    before = {key: value.clone() for key, value in module.state_dict().items()}
    images, labels = as_tensor(noise(24).images), torch.from_numpy(noise(24).labels)
    first, again = (last_points(module, images, labels, Pgd(eps=0.03), draws(24), classes=CLASSES) for _ in range(2))
    # In eval mode: no unit was dropped, no statistics followed.
    assert torch.equal(first, again)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert (module.training, module[1].training, module[4].training) == (True, False, True)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert not first.requires_grad


def test_points_are_of_the_weights_as_they_are_now() -> None:
    module = linear()
    images, labels = torch.full((4, 3, SIZE, SIZE), 0.5), torch.zeros(4, dtype=torch.int64)
    attack = Pgd(eps=0.03, random_start=False)
    first = last_points(module, images, labels, attack, draws(4), classes=CLASSES)
    with torch.no_grad():
        module[1].weight.neg_()
    turned_round = last_points(module, images, labels, attack, draws(4), classes=CLASSES)
    assert not torch.equal(first, turned_round)


def test_no_gradient_is_an_error_not_an_image_that_stays() -> None:
    class Blind(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.detach().flatten(1)[:, :CLASSES]

    images, labels = as_tensor(noise(4).images), torch.from_numpy(noise(4).labels)
    with pytest.raises(MeasurementError, match="training: a white-box attack needs gradients, and none flow"):
        last_points(Blind(), images, labels, Pgd(eps=0.03), draws(4), classes=CLASSES)
    with pytest.raises(MeasurementError, match="training: a white-box attack needs gradients, and none flow"):
        corrected(Blind(), noise(), STORED)
