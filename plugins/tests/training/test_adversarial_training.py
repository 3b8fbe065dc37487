"""Adversarial training: where the points are, in closed form, what is left of supervised training, what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bright_halves import SIZE, course_of, network, network_of, same, samples_of, sides
from torch import Tensor, nn

from robustgate.attacks.fgsm import Fgsm
from robustgate.attacks.pgd import Pgd
from robustgate.attacks.worst_case import WorstCase
from robustgate.config import load
from robustgate.core.components import Constraint, Samples
from robustgate.core.errors import ConfigurationError
from robustgate.engine.course import train
from robustgate.training.adversarial import Adversarial
from robustgate.training.supervised import Supervised

EPS = 0.08


class Shown(nn.Module):
    """A network that remembers what it was shown in train mode, and how often in eval mode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.trained: list[Tensor] = []
        self.asked = 0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.trained.append(images.detach().clone())
        else:
            self.asked += 1
        logits: Tensor = self.inner(images)
        return logits


def shown(recipe: Supervised, samples: Samples, *, dropout: float = 0.5) -> Shown:
    module = Shown(network(dropout=dropout))
    train(module, recipe, samples, seed=3)
    return module


def test_the_attack_that_nobody_names_is_the_papers() -> None:
    (attack,) = {Adversarial(epochs=1).attack}
    assert attack == Pgd(eps=8 / 255, norm="linf", steps=7, relative_step=0.25, give_up=float("inf"))
    assert attack.random_start


def test_the_network_learns_from_the_corner_of_the_ball_where_its_loss_is_highest() -> None:
    # A linear network's loss has its maximum over the ball at the corner that the weights' signs name.
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    recipe = Adversarial(epochs=1, batch_size=32, attack=Pgd(eps=EPS, steps=8, relative_step=0.5, give_up=float("inf")))
    run = recipe.begin(network_of(module), course_of(sides(32)))
    images, labels = next(run.shuffled())
    loss = recipe.gradients(run, images, labels)

    first, second = module[1].weight.detach()
    away = torch.stack([second - first, first - second]).sign().view(2, 3, SIZE, SIZE)[labels]
    corners = (images + EPS * away).clamp(0, 1)
    expected = nn.functional.cross_entropy(module(corners), labels)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    gradient = module[1].weight.grad.clone()
    module.zero_grad()
    expected.backward()
    torch.testing.assert_close(gradient, module[1].weight.grad, rtol=1e-5, atol=1e-7)


def test_points_are_within_the_budget_and_found_in_eval_mode() -> None:
    settings = {"epochs": 2, "batch_size": 32, "flip": True}
    attack = Pgd(eps=EPS, steps=3, give_up=float("inf"))
    clean = shown(Supervised(**settings), sides())
    moved = shown(Adversarial(**settings, attack=attack), sides())
    assert len(moved.trained) == len(clean.trained) == 6
    assert moved.asked == 6 * (3 + 1)  # the attack asks about where it ends, too
    assert clean.asked == 0
    for points, images in zip(moved.trained, clean.trained, strict=True):
        assert points.min() >= 0
        assert points.max() <= 1
        sizes = (points - images).abs().flatten(1).amax(dim=1)
        assert sizes.max() <= EPS + 1e-6
        assert sizes.min() > EPS / 2, "every image is moved"


def test_of_each_batch_the_share_is_attacked_and_the_rest_left_as_it_is() -> None:
    settings = {"epochs": 1, "batch_size": 32}
    clean = shown(Supervised(**settings), sides())
    moved = shown(Adversarial(**settings, attack=Fgsm(eps=EPS), share=0.3), sides())
    for points, images in zip(moved.trained, clean.trained, strict=True):
        changed = (points != images).flatten(1).any(dim=1)
        assert changed.tolist() == [True] * 10 + [False] * 22


def test_without_a_share_it_is_supervised_training_bit_for_bit_and_nothing_is_attacked() -> None:
    settings = {"epochs": 3, "batch_size": 16, "flip": True}
    plain, unmoved = shown(Supervised(**settings), sides()), shown(Adversarial(**settings, share=0.0), sides())
    moved = shown(Adversarial(**settings), sides())
    assert same(unmoved.state_dict(), plain.state_dict())
    assert unmoved.asked == 0
    assert not same(moved.state_dict(), plain.state_dict())


def test_batch_normalisation_follows_the_points_alone_and_counts_them_once() -> None:
    module = network(dropout=0.0).train()
    recipe = Adversarial(epochs=1, batch_size=32, attack=Fgsm(eps=EPS))
    run = recipe.begin(network_of(module), course_of(sides(32)))
    images, labels = next(run.shuffled())
    convolved: list[Tensor] = []
    module[0].register_forward_hook(lambda _module, _args, made: convolved.append(made.detach()))
    recipe.gradients(run, images, labels)
    assert module[1].num_batches_tracked == 1
    torch.testing.assert_close(module[1].running_mean, 0.1 * convolved[-1].mean((0, 2, 3)))
    assert all(part.training for part in module.modules())


def test_random_starts_are_the_steps_own() -> None:
    module = network(dropout=0.0)
    recipe = Adversarial(epochs=1, batch_size=32, attack=Pgd(eps=EPS, steps=1, relative_step=1.0))
    samples = sides(32)
    run = recipe.begin(network_of(module), course_of(samples))
    images, labels = next(run.shuffled())

    def points(step: int, seed: int = 0) -> Tensor:
        return course_of(samples, seed=seed).perturbed(network_of(module), images, labels, recipe.attack, step)

    assert torch.equal(points(4), points(4))
    assert not torch.equal(points(4), points(5))
    assert not torch.equal(points(4), points(4, seed=1))


def strong_and_weak(count: int, seed: int) -> Samples:
    """A corner that tells nine labels in ten, by far; the other pixels tell all of them, each by less than the budget.

    So whoever wants the most right on clean images goes by what an attack can take away (Tsipras et al. 2019, arXiv
    1805.12152, section 2.1).
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    signs = (2 * labels - 1)[:, None, None, None]
    images = 0.5 + 0.04 * signs + rng.normal(0, 0.05, (count, SIZE, SIZE, 3))
    told = np.where(rng.random(count)[:, None, None, None] < 0.9, signs, -signs)
    images[:, :2, :2] = 0.5 + 0.2 * told
    return samples_of((images.clip(0, 1) * 255).round().astype(np.uint8), labels)


def accuracies(module: nn.Module, samples: Samples) -> tuple[float, float]:
    """Return the share of images that are right, and of those that stay so under 20 steps of PGD from the image."""
    images = torch.from_numpy(samples.images).permute(0, 3, 1, 2) / 255
    labels = torch.from_numpy(samples.labels)
    points = images.clone()
    for _ in range(20):
        points.requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(module(points), labels), points)
        points = (points.detach() + EPS / 4 * slope.sign()).clamp(images - EPS, images + EPS).clamp(0, 1)
    clean, attacked = ((module(one).argmax(1) == labels).float().mean().item() for one in (images, points))
    return clean, attacked


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    first, second = nn.Linear(3 * SIZE * SIZE, 16), nn.Linear(16, 2)
    return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), first, nn.ReLU(), second)


def test_it_raises_accuracy_under_attack_at_equal_epochs() -> None:
    settings = {"epochs": 8, "batch_size": 64, "shift": 0}
    learnt, unseen = strong_and_weak(512, 0), strong_and_weak(512, 1)
    plain, robust = small(), small()
    train(plain, Supervised(**settings), learnt)
    train(robust, Adversarial(**settings, attack=Pgd(eps=EPS, steps=7, relative_step=0.25)), learnt)
    clean, attacked = accuracies(plain, unseen)
    clean_of_robust, attacked_of_robust = accuracies(robust, unseen)
    assert clean > 0.99
    assert attacked < 0.1
    assert clean_of_robust > 0.85
    assert attacked_of_robust > 0.85


def test_constraints_hold_while_the_network_is_attacked_and_trained() -> None:
    module = network()
    with torch.no_grad():
        module[0].weight[module[0].weight.abs() < 0.1] = 0
        module[5].weight.copy_((module[5].weight * 20).round() / 20)
    zeros, values = module[0].weight == 0, len(module[5].weight.unique())
    before = module[0].weight.detach().clone()
    constraints = (
        Constraint(kind="zeros", parameters=("0.weight",)),
        Constraint(kind="clusters", parameters=("5.weight",)),
    )
    train(module, Adversarial(epochs=2, batch_size=16), sides(), constraints=constraints)
    assert torch.equal(module[0].weight == 0, zeros)
    assert 0 < zeros.sum() < zeros.numel()
    assert len(module[5].weight.unique()) == values
    assert not torch.equal(module[0].weight, before)


def test_the_attack_runs_in_the_recipes_precision() -> None:
    kinds: set[torch.dtype] = set()
    module = network()
    module[5].register_forward_hook(lambda _module, _args, made: kinds.add(made.dtype))
    train(module, Adversarial(epochs=1, batch_size=32, mixed_precision=True), sides())
    assert kinds == {torch.bfloat16}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"share": 1.5}, r"share must be in \[0, 1\], got 1.5"),
        ({"share": -0.5}, r"share must be in \[0, 1\], got -0.5"),
        ({"attack": WorstCase(attacks=("a", "b"))}, "attack must be one that attacks by itself, got WorstCase"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adversarial(**{"epochs": 1, **parameters})


TRAINED = """
[compressions.trained]
steps = [{ finetune = { recipe = "adversarial", epochs = 1, attack = { %s } } }]
"""


def test_a_configuration_names_its_attack(tiny) -> None:
    (step,) = load(tiny.configure(extra=TRAINED % 'method = "fgsm", eps = 0.02')).compressions["trained"]
    assert step.finetune == Adversarial(epochs=1, attack=Fgsm(eps=0.02))
    with pytest.raises(ConfigurationError, match=r"attack.method: unknown name 'fgms' in attacks .did you mean 'fgsm'"):
        load(tiny.configure(extra=TRAINED % 'method = "fgms", eps = 0.02'))
