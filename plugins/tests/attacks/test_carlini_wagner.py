"""Carlini & Wagner's attack against closed forms, against the faults of its peers, and what it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, Linear, ground
from published import resnet20
from torch import Tensor, nn

from robustgate.attacks.carlini_wagner import CarliniWagner
from robustgate.core.components import Answer, Samples
from robustgate.core.losses import margin
from robustgate.engine.adversarial import measure_adversarial
from robustgate.engine.draws import SampleDraws
from robustgate.engine.subjects import CountedTarget, TorchSubject

ROUNDING = 1e-5  # what a float32 norm may be too small by, as a share of it


class Rescaled(nn.Module):
    """Another network's logits, scaled and shifted: the decisions are the same."""

    def __init__(self, network: nn.Module, *, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.network, self.scale, self.shift = network, scale, shift

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.network(images) + self.shift


def posed(network: nn.Module, pixels: Tensor, classes: int = 2) -> Ground:
    """Return a ground of uint8 images (N, 3, H, W), with the labels that the network gives them."""
    images = pixels.float() / 255
    subject = TorchSubject(network, CPU)
    samples = Samples(
        images=pixels.permute(0, 2, 3, 1).contiguous().numpy(),
        labels=subject.logits(images).argmax(dim=1).numpy(),
        classes=tuple(map(str, range(classes))),
        names=("",) * len(pixels),
    )
    return Ground(subject, samples, images)


def binary(count: int = 24, side: int = 8) -> tuple[Ground, np.ndarray]:
    """Return images of 0 and 255 alone on a linear network, and their distances: the box [0, 1] is in the way.

    From 0 a value only rises, from 1 it only falls: the nearest point moves along what is left of w.
    """
    generator = torch.Generator().manual_seed(5)
    pixels = 255 * torch.randint(0, 2, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    network = Linear(3 * side * side)
    images = pixels.float() / 255
    score = network.score(images).detach()
    downhill = -score.sign()[:, None] * network.weight.detach().double()
    free = torch.where(images.flatten(1) == 0, downhill > 0, downhill < 0)
    return posed(network, pixels), (score.abs() / (free * downhill).norm(dim=1)).numpy()


def check(found: np.ndarray, truth: np.ndarray, tolerance: float = 0.05) -> None:
    assert (found >= truth * (1 - ROUNDING)).all(), f"below the boundary by {(1 - found / truth).max():.2e}"
    assert (found <= truth * (1 + tolerance)).all(), f"beyond the boundary by {(found / truth - 1).max():.2e}"


@pytest.mark.parametrize("kind", ["linear", "sphere"])
@pytest.mark.parametrize(("side", "size"), [((4, 4), 4), ((8, 6), 20), ((16, 16), 128)])
def test_the_norm_found_is_the_distance_to_the_boundary(kind: str, side: tuple[int, int], size: int) -> None:
    field = ground(kind, side)
    check(field.outcome(CarliniWagner(eps=1.0), size=size).norms, field.nearest("l2").numpy(), 0.01)


@pytest.mark.parametrize("initial_c", [1e-6, 1e-3, 1.0])
def test_any_first_c_finds_its_way(initial_c: float) -> None:
    field = ground("linear", 4)
    check(field.outcome(CarliniWagner(eps=1.0, initial_c=initial_c)).norms, field.nearest("l2").numpy())


@pytest.mark.parametrize("side", [4, 32])
def test_samples_at_very_different_distances(side: int) -> None:
    # A step of the paper's length is 0.07 long at 4 x 4 pixels and 0.28 at 32 x 32.
    field = ground("linear", side)
    network = field.subject.module
    distance = network.distance(field.images, "l2")
    towards = network.score(field.images[:1]).sign()
    # The plane is moved to within 1e-4 of sample 0.
    moved = Linear(network.weight.numel())
    moved.bias = nn.Parameter(network.bias - (towards * (distance[0] - 1e-4) * network.weight.norm()).float())
    posed_again = posed(moved, (field.images * 255).round().to(torch.uint8))
    truth = posed_again.nearest("l2").numpy()
    assert abs(truth[0] - 1e-4) < 2e-6
    assert truth.max() > 1000 * truth[0]
    check(posed_again.outcome(CarliniWagner(eps=1.0)).norms, truth)


def test_pixels_of_0_and_1_move() -> None:
    field, truth = binary()
    assert 0.01 < truth.min() < truth.max() < 2
    check(field.outcome(CarliniWagner(eps=1.0)).norms, truth)


def test_torchattacks_does_not_move_pixels_of_0_and_1() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    field, _ = binary()
    found = torchattacks.CW(field.subject.module, c=100, steps=50)(field.images, torch.tensor(field.samples.labels))
    assert torch.equal(found, field.images)


@pytest.mark.parametrize("shift", [-20.0, 20.0])
def test_a_shift_of_all_logits_changes_nothing(shift: float) -> None:
    field = ground("sphere", 4)
    shifted = posed(Rescaled(field.subject.module, shift=shift), (field.images * 255).round().to(torch.uint8))
    found = shifted.outcome(CarliniWagner(eps=1.0)).norms
    check(found, field.nearest("l2").numpy(), 0.01)


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**-12, 2.0**12, 2.0**40])
def test_the_scale_of_the_logits_changes_nothing(scale: float) -> None:
    field = ground("sphere", 4)
    scaled = posed(Rescaled(field.subject.module, scale=scale), (field.images * 255).round().to(torch.uint8))
    attack = CarliniWagner(eps=1.0)
    found, as_it_is = scaled.outcome(attack), field.outcome(attack)
    np.testing.assert_allclose(found.norms, as_it_is.norms, rtol=1e-4)
    np.testing.assert_array_equal(found.gradients, as_it_is.gradients)


def asked(field: Ground, attack: CarliniWagner) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the rows, the points and the margins of every query that has a loss."""
    labels, target = torch.tensor(field.samples.labels), CountedTarget(field.subject, 2, "case")
    walk = attack.run(field.images, labels, SampleDraws(range(len(labels))), target)
    heard, answer = [], None
    with torch.no_grad():
        while True:
            try:
                query = walk.send(answer) if answer is not None else next(walk)
            except StopIteration:
                return heard
            logits, gradient = field.subject.logits(query.points), query.points.new_empty(0)
            margins = margin(labels[query.rows])(logits)
            if query.loss is not None:
                gradient = target.gradient(query.points, query.loss)[1]
                heard.append((query.rows, query.points, margins))
            answer = Answer(logits, gradient, margins > 0, torch.zeros_like(margins, dtype=torch.bool))


def test_the_first_point_is_the_image_and_the_second_is_near() -> None:
    for field, truth in (binary(), (ground("linear", 4), ground("linear", 4).nearest("l2").numpy())):
        first, second, *_ = asked(field, CarliniWagner(eps=1.0))
        assert torch.equal(first[1], field.images)
        step = (second[1] - field.images).flatten(1).norm(dim=1)
        assert (step > 0).all()
        assert (step <= torch.tensor(truth).clamp_min(1e-6)).all()


def test_the_confidence_is_reached() -> None:
    field = ground("linear", 4)
    best = {}
    for confidence in (0.0, 1.0):
        margins = torch.full((len(field.images),), float("-inf"))
        for rows, _, values in asked(field, CarliniWagner(eps=1.0, confidence=confidence)):
            margins[rows] = margins[rows].maximum(values)
        best[confidence] = margins
    assert (best[1.0] >= 1).all()
    assert (best[1.0] < 2).all()
    assert (best[0.0] > 0).all()
    assert (best[0.0] < 1).all()


class Stubborn:
    """An artifact whose twin gives way 0.02 before it does."""

    has_own_gradient = False
    device = CPU

    def __init__(self, network: Linear) -> None:
        self.network = network
        self.twin = EarlyTwin(network)

    def logits(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.network(images)

    def differentiable(self) -> nn.Module:
        return self.twin


class EarlyTwin(nn.Module):
    """A network of which everything is in class 1 that is nearer to it than 0.02."""

    def __init__(self, network: Linear) -> None:
        super().__init__()
        self.network = network
        self.early = 0.02 * float(network.weight.detach().norm())

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + torch.tensor([0.0, self.early])


def test_what_the_artifact_still_gets_right_is_pushed_on() -> None:
    field = ground("linear", 4)
    subject = Stubborn(field.subject.module)
    attack = CarliniWagner(eps=1.0)
    outcome = measure_adversarial(subject, field.samples, "case", lambda *_: None, attack, seed=7)
    check(outcome.norms, field.nearest("l2").numpy())


def test_a_sample_whose_gradient_is_zero_is_given_up_at_once() -> None:
    class Dead(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]) + 0 * images.flatten(1).sum(dim=1, keepdim=True)

    outcome = posed(Dead(), torch.full((3, 3, 4, 4), 128, dtype=torch.uint8)).outcome(CarliniWagner(eps=1.0))
    assert outcome.correct.all()
    assert outcome.gradients.tolist() == [1, 1, 1]


def test_without_stopping_early_every_step_is_taken() -> None:
    # One gradient at the image, which every search begins with; after the last step of a search none.
    attack = CarliniWagner(eps=1.0, binary_searches=3, steps=20, abort_early=False)
    outcome = ground("linear", 4).outcome(attack)
    assert set(outcome.gradients.tolist()) == {1 + 3 * 19}


def test_stopping_early_costs_a_fraction_and_no_strength() -> None:
    field = ground("sphere", 4)
    early, late = (field.outcome(CarliniWagner(eps=1.0, abort_early=one)) for one in (True, False))
    assert early.gradients.mean() < 0.15 * late.gradients.mean()
    assert len(set(early.gradients.tolist())) > 1  # each for itself
    assert (early.norms <= 1.01 * late.norms).all()


@pytest.mark.parametrize("kind", ["linear", "sphere"])
def test_the_batch_changes_nothing(kind: str) -> None:
    field, attack = ground(kind, 4), CarliniWagner(eps=1.0)
    together = field.outcome(attack, size=128)
    apart = field.outcome(attack, size=4)
    np.testing.assert_allclose(apart.norms, together.norms, rtol=1e-4)
    np.testing.assert_array_equal(apart.gradients, together.gradients)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 0.0}, "eps must be above 0"),
        ({"binary_searches": 0}, "binary_searches must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"refinements": -1}, "refinements must be at least 0, got -1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"initial_c": -1.0}, "initial_c must be above 0"),
        ({"confidence": -1.0}, "confidence must be at least 0"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CarliniWagner(**{"eps": 1.0} | parameters)


def test_nearer_than_theirs_at_fewer_gradients(real_data: Path) -> None:
    """On CIFAR-10 and the published ResNet-20: theirs do 50 steps, and 9 searches of 20."""
    torchattacks, foolbox = pytest.importorskip("torchattacks"), pytest.importorskip("foolbox")
    with np.load(real_data / "cifar" / "cifar10_test_2000.npz") as arrays:
        field = posed(resnet20(real_data), torch.tensor(arrays["images"][:8]).permute(0, 3, 1, 2), classes=10)
    images, labels = field.images.contiguous(), torch.tensor(field.samples.labels)
    ours = field.outcome(CarliniWagner(eps=1.0, steps=100))
    model = foolbox.PyTorchModel(field.subject.module, bounds=(0, 1))
    searched, _, _ = foolbox.attacks.L2CarliniWagnerAttack(steps=20)(model, images, labels, epsilons=None)
    for theirs in (searched, torchattacks.CW(field.subject.module, steps=50)(images, labels)):
        fooled = field.subject.logits(theirs).argmax(dim=1) != labels
        norms = (theirs - images).flatten(1).norm(dim=1).where(fooled, float("inf"))
        assert (ours.norms <= 0.9 * norms.numpy()).all()
    assert ours.gradients.mean() <= 9 * 20
