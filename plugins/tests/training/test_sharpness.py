"""SAM and ASAM: where they take the gradient, in closed form, and what they leave as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from bright_halves import course_of, doubled, network, network_of, same, sides
from torch import Tensor, nn

from robustgate.engine.course import train
from robustgate.training._sharpness import SharpnessAware
from robustgate.training.asam import Asam
from robustgate.training.sam import Sam
from robustgate.training.supervised import Supervised

LR, MOMENTUM = 0.1, 0.5
ONE_STEP = {"epochs": 1, "batch_size": 8, "lr": LR, "momentum": MOMENTUM, "weight_decay": 0.0, "shift": 0}


class Parameters(nn.Module):
    """Answers with its parameters, end to end, whatever it is shown."""

    def __init__(self, **values: Tensor) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(value.clone()))

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([parameter.flatten() for parameter in self.parameters()])


def gradient_used(recipe: Supervised, loss: Callable[[Tensor], Tensor], **values: Tensor) -> Tensor:
    """Return the gradient by which one step moves parameters, from where they are after it."""
    module = Parameters(**values)
    before = module(torch.empty(0)).detach()
    train(module, recipe, sides(8), objective=lambda _images, logits, _labels: loss(logits))
    # The first step of Nesterov's momentum is g + m g, at the peak where it is the only one.
    return (before - module(torch.empty(0)).detach()) / (LR * (1 + MOMENTUM))


def quadratic(size: int) -> tuple[Tensor, Tensor]:
    """Return the matrix of a convex quadratic, and a point."""
    stream = torch.Generator().manual_seed(0)
    root = torch.randn(size, size, generator=stream, dtype=torch.float64)
    return root @ root.T, torch.randn(size, generator=stream, dtype=torch.float64)


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_sam_takes_a_quadratics_gradient_where_its_closed_form_says(rho: float) -> None:
    matrix, point = quadratic(5)
    found = gradient_used(Sam(**ONE_STEP, rho=rho), lambda w: w @ matrix @ w / 2, weight=point[:2], bias=point[2:])
    slope = matrix @ point
    # One norm over both parameters: the perturbation is rho along the slope of all of them together.
    torch.testing.assert_close(found, matrix @ (point + rho * slope / slope.norm()), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rho", "eta"), [(0.5, 0.01), (2.0, 0.3)])
def test_asam_takes_a_quadratics_gradient_where_its_closed_form_says(rho: float, eta: float) -> None:
    matrix, point = quadratic(5)
    recipe = Asam(**ONE_STEP, rho=rho, eta=eta)
    found = gradient_used(recipe, lambda w: w @ matrix @ w / 2, weight=point[:2], bias=point[2:])
    slope = matrix @ point
    scale = torch.cat([point[:2].abs() + eta, torch.ones(3, dtype=torch.float64)])  # no "weight" in the name: 1
    perturbation = rho * scale**2 * slope / (scale * slope).norm()
    torch.testing.assert_close(found, matrix @ (point + perturbation), rtol=1e-12, atol=1e-12)


def test_the_first_looks_gradient_leaves_no_trace_in_the_second() -> None:
    # A slope that does not depend on the place: were the two added up, it would be twice as steep.
    slope = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    found = gradient_used(Sam(**ONE_STEP), lambda w: w @ slope, weight=slope)
    torch.testing.assert_close(found, slope)


def perturbed_loss(module: nn.Module, recipe: SharpnessAware) -> Tensor:
    """Return the loss at the perturbed weights."""
    losses: list[Tensor] = []

    def objective(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        losses.append(nn.functional.cross_entropy(logits, labels))
        return losses[-1]

    train(module, recipe, sides(8), objective=objective)
    first, second = losses
    assert second > first
    return second.detach()


def two_layers(factor: float) -> nn.Module:
    torch.manual_seed(3)
    first, second = nn.Linear(108, 5, bias=False), nn.Linear(5, 2, bias=False)
    first.weight.data *= factor
    second.weight.data /= factor
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)


def test_asam_does_not_see_a_rescaling_that_the_network_does_not() -> None:
    asam, sam = Asam(**ONE_STEP, rho=1.0, eta=1e-9), Sam(**ONE_STEP, rho=0.2)
    as_made, scaled = (perturbed_loss(doubled(two_layers(factor)), asam) for factor in (1.0, 8.0))
    torch.testing.assert_close(scaled, as_made, rtol=1e-6, atol=0)
    as_made, scaled = (perturbed_loss(doubled(two_layers(factor)), sam) for factor in (1.0, 8.0))
    assert not torch.isclose(scaled, as_made, rtol=0.05), "the test must be able to tell"


RECIPES = [Sam(**ONE_STEP), Asam(**ONE_STEP)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_where_there_is_no_slope_nothing_moves(recipe: SharpnessAware) -> None:
    found = gradient_used(recipe, lambda w: (w * 0).sum(), weight=torch.tensor([1.0, 0.0, -2.0]))
    assert torch.equal(found, torch.zeros(3))


@pytest.mark.parametrize("recipe", RECIPES)
def test_weights_come_back_bit_for_bit_and_statistics_are_those_of_one_look(recipe: SharpnessAware) -> None:
    samples, module = sides(32), network(dropout=0.0)
    weights = copy.deepcopy(dict(module.named_parameters()))
    looked = copy.deepcopy(module).train()
    run = recipe.begin(network_of(module.train()), course_of(samples))
    images, labels = next(run.shuffled())
    loss = recipe.gradients(run, images, labels)
    assert same(dict(module.named_parameters()), weights)
    assert torch.equal(loss, nn.functional.cross_entropy(looked(images), labels))
    assert same(dict(module.named_buffers()), dict(looked.named_buffers()))
    # Where the same batch normalisation is looked through twice, both looks are through the batch's own statistics.
    assert all(part.training for part in module.modules())
    assert all(one.track_running_stats for one in module.modules() if isinstance(one, nn.BatchNorm2d))


def test_parameters_that_are_not_trained_are_left_out_of_the_perturbation() -> None:
    matrix, point = quadratic(4)
    module = Parameters(weight=point[:2], fixed_weight=point[2:])
    module.fixed_weight.requires_grad_(False)
    recipe = Sam(**ONE_STEP, rho=0.3)
    train(module, recipe, sides(8), objective=lambda _i, logits, _l: logits @ matrix @ logits / 2)
    slope = (matrix @ point)[:2]
    moved = point + 0.3 * torch.cat([slope / slope.norm(), torch.zeros(2, dtype=torch.float64)])
    expected = point[:2] - LR * (1 + MOMENTUM) * (matrix @ moved)[:2]
    torch.testing.assert_close(module.weight.detach(), expected)
    assert torch.equal(module.fixed_weight, point[2:])


@pytest.mark.parametrize("kind", [Sam, Asam])
def test_a_radius_near_zero_is_plain_descent(kind: type[SharpnessAware]) -> None:
    settings = {"epochs": 2, "batch_size": 16}
    plain, near, far = (doubled(network(dropout=0.0)) for _ in range(3))
    train(plain, Supervised(**settings), sides())
    train(near, kind(**settings, rho=1e-9), sides())
    train(far, kind(**settings, rho=0.5), sides())
    torch.testing.assert_close(near.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(far[0].weight, plain[0].weight, rtol=1e-2)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (Sam, {"rho": 0.0}, "rho must be above 0, got 0"),
        (Asam, {"rho": -1.0}, "rho must be above 0, got -1"),
        (Asam, {"eta": 0.0}, "eta must be above 0, got 0"),
        (Sam, {"epochs": 0}, "epochs must be at least 1, got 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(kind: type, parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**{"epochs": 1, **parameters})
