"""Supervised training: what the seed decides, what the parameters do, and what is left behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from bright_halves import SIZE, network, same, samples_of, sides
from torch import Tensor, nn
from torch.nn import functional

from robustgate.core.components import Samples
from robustgate.engine.course import train
from robustgate.training._descent import share_of_peak
from robustgate.training.supervised import Supervised


def trained(recipe: Supervised, seed: int, *, global_seed: int = 0, dropout: float = 0.5) -> dict[str, Tensor]:
    module = network(dropout=dropout)
    torch.manual_seed(global_seed)
    train(module, recipe, sides(), seed=seed)
    return module.state_dict()


def accuracy(module: nn.Module, samples: Samples) -> float:
    images = torch.from_numpy(samples.images).permute(0, 3, 1, 2) / 255
    return (module(images).argmax(1).numpy() == samples.labels).mean().item()


def test_the_seed_decides_everything_and_the_global_stream_nothing() -> None:
    recipe = Supervised(epochs=2, batch_size=16, flip=True)
    first = trained(recipe, 1)
    assert same(first, trained(recipe, 1, global_seed=99))
    assert not same(first, trained(recipe, 2))


def test_the_global_stream_is_as_it_was() -> None:
    module = network(dropout=0.5)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(module, Supervised(epochs=1, batch_size=16), sides())
    assert torch.equal(torch.rand(3), expected)


def test_a_separable_problem_is_learnt() -> None:
    module = network(dropout=0.0)
    assert accuracy(module.eval(), sides()) < 0.7
    train(module, Supervised(epochs=8, batch_size=16, shift=0), sides())
    assert accuracy(module, sides()) == 1.0


def test_the_network_is_left_in_eval_mode_and_without_gradients() -> None:
    module = network(dropout=0.0)
    train(module, Supervised(epochs=1), sides())
    assert not any(part.training for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


class Watched(nn.Module):
    """Answers 0 for every image and keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.batches: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(images)
        self.modes.append(self.training)
        return self.weight.expand(len(images), 2)


def watched(recipe: Supervised, samples: Samples, **options) -> Watched:
    module = Watched().eval()
    train(module, recipe, samples, seed=3, **options)
    return module


def test_every_epoch_shows_each_image_once_in_train_mode_in_unit_range() -> None:
    samples = sides(64)
    module = watched(Supervised(epochs=3, batch_size=16, shift=0), samples)
    assert (len(module.batches), set(module.modes)) == (12, {True})
    expected = sorted(image.tobytes() for image in samples.images)
    epochs = [torch.cat(module.batches[start : start + 4]) for start in (0, 4, 8)]
    for epoch in epochs:
        seen = (epoch * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert sorted(image.tobytes() for image in seen) == expected
    assert not torch.equal(epochs[0], epochs[1])


@pytest.mark.parametrize(("count", "sizes"), [(5, [5]), (16, [16]), (31, [16]), (40, [16, 16])])
def test_batches_are_full_and_a_small_set_is_one_batch(count: int, sizes: list[int]) -> None:
    module = watched(Supervised(epochs=1, batch_size=16), sides(count))
    assert [len(batch) for batch in module.batches] == sizes


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    rows = np.clip(np.arange(SIZE) - down, 0, SIZE - 1)
    columns = np.clip(np.arange(SIZE) - right, 0, SIZE - 1)
    return image[rows][:, columns]


@pytest.mark.parametrize("flip", [False, True])
def test_augmented_images_are_exact_translations_with_replicated_edges(flip: bool) -> None:
    shift = 2
    image = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    samples = samples_of(np.repeat(image[None], 600, axis=0), np.zeros(600))
    (batch,) = watched(Supervised(epochs=1, batch_size=600, shift=shift, flip=flip), samples).batches
    steps = range(-shift, shift + 1)
    allowed = {
        moved(side, down, right).tobytes(): (down, right, mirrored)
        for mirrored, side in ((False, image), (True, image[:, ::-1]))
        for down in steps
        for right in steps
    }
    seen = [
        allowed[one.tobytes()] for one in (batch * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    ]
    # Each of 25 places about 24 times of 600, both ways round where flipping is asked for and never where it is not.
    places = {(down, right) for down, right, _ in seen}
    assert len(places) == 25
    mirrored = sum(flipped for _, _, flipped in seen)
    assert 240 < mirrored < 360 if flip else mirrored == 0


def test_the_objective_takes_the_place_of_cross_entropy() -> None:
    calls = []

    def pull_to_three(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        calls.append((images.shape, labels.tolist()))
        return (logits - 3).square().mean()

    module = watched(Supervised(epochs=100, batch_size=16, weight_decay=0.0), sides(32), objective=pull_to_three)
    torch.testing.assert_close(module.weight.detach(), torch.full((2,), 3.0), atol=1e-2, rtol=0)
    assert len(calls) == 200
    assert calls[0][0] == (16, 3, SIZE, SIZE)
    assert sorted(calls[0][1] + calls[1][1]) == [0] * 16 + [1] * 16


def steps_of(recipe: Supervised, gradients: Callable[[int], float], count: int) -> list[float]:
    """Return the weight after each step of a network whose loss has the gradient that `gradients` says."""
    weight: list[float] = []
    step = iter(range(count))

    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, images: Tensor) -> Tensor:
            weight.append(self.weight.item())
            return self.weight

    module = Scalar()
    train(module, recipe, sides(8), objective=lambda _i, logits, _l: logits * gradients(next(step)))
    return [*weight[1:], module.weight.item()]


def test_steps_are_nesterovs_with_the_momentum_and_decay_asked_for() -> None:
    recipe = Supervised(epochs=7, batch_size=8, lr=0.1, momentum=0.7, weight_decay=0.01)
    found = steps_of(recipe, lambda step: math.sin(step + 1), 7)
    # Sutskever et al. 2013, as torch writes it: v = m v + g; w = w - lr (g + m v).
    weight, velocity, expected = 1.0, 0.0, []
    for step in range(7):
        gradient = math.sin(step + 1) + 0.01 * weight
        velocity = 0.7 * velocity + gradient
        weight -= 0.1 * share_of_peak(step, 7) * (gradient + 0.7 * velocity)
        expected.append(weight)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_the_learning_rate_peaks_at_lr_once_and_ends_low(steps: int) -> None:
    shares = [share_of_peak(step, steps) for step in range(steps)]
    peak = max(1, round(0.3 * steps)) - 1
    assert shares[peak] == pytest.approx(1.0)
    assert all(before < after for before, after in pairwise(shares[: peak + 1]))
    assert all(before > after > 0 for before, after in pairwise(shares[peak:]))
    assert steps < 1000 or max(shares[0], shares[-1]) < 1e-4


def test_a_single_step_is_taken_at_lr() -> None:
    recipe = Supervised(epochs=1, batch_size=8, lr=0.1, momentum=0.5, weight_decay=0.0)
    assert steps_of(recipe, lambda _: 1.0, 1) == pytest.approx([1 - 0.1 * 1.5])


def test_labels_are_smoothed() -> None:
    weight = torch.tensor([1.0, -2.0], requires_grad=True)
    labels = torch.zeros(8, dtype=torch.int64)
    functional.cross_entropy(weight.expand(8, 2), labels, label_smoothing=0.2).backward()
    module = Watched()
    module.weight.data = weight.detach().clone()
    recipe = Supervised(epochs=1, batch_size=8, lr=0.1, momentum=0.5, weight_decay=0.0, label_smoothing=0.2)
    train(module, recipe, samples_of(sides(8).images, np.zeros(8)))
    torch.testing.assert_close(module.weight.detach(), weight.detach() - 0.1 * 1.5 * weight.grad)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be above 0, got 0"),
        ({"momentum": 0.0}, "momentum must be above 0 and below 1, got 0"),
        ({"momentum": 1.0}, "momentum must be above 0 and below 1, got 1"),
        ({"weight_decay": -0.1}, "weight_decay must not be below 0, got -0.1"),
        ({"batch_size": 1}, r"batch_size must be at least 2 \(batch normalisation\), got 1"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be a share in \[0, 1\), got 1"),
        ({"shift": -1}, "shift must not be below 0, got -1"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Supervised(**{"epochs": 1, **parameters})
