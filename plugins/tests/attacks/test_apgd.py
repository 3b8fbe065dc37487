"""APGD: the algorithm against a slow one written for one sample, closed forms, few classes, torchattacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, ground
from published import published
from torch import Tensor, nn

from robustgate.attacks import _apgd, apgd_ce
from robustgate.attacks._apgd import checkpoints, climb
from robustgate.attacks.apgd_ce import ApgdCe
from robustgate.attacks.apgd_t import ApgdT
from robustgate.core.budget import Budget
from robustgate.core.components import Answer, Query, Samples
from robustgate.core.losses import cross_entropy
from robustgate.engine.subjects import TorchSubject


def test_checkpoints_are_the_papers() -> None:
    # Section 3.3: w = ceil(p N), p = 0, 0.22, then by max(0.22 - 0.03 j, 0.06).
    assert checkpoints(100) == {0, 22, 41, 57, 70, 80, 87, 93, 99}
    assert checkpoints(10) == {0, 3, 5, 6, 7, 8, 9, 10}
    assert checkpoints(1) == {0, 1}


def first_value(_: Tensor):
    return lambda logits: logits[:, 0]


def drive(walk, answers):
    """Send a walk scripted answers; return the points of its queries, in order."""
    asked = [next(walk)]
    for answer in answers:
        try:
            asked.append(walk.send(answer(asked[-1])))
        except StopIteration:
            return asked
    raise AssertionError("the script is too short")


def slow_apgd(centre, start, values, gradients, norm: str, eps: float) -> list[np.ndarray]:
    """Algorithm 1 for one sample, in float64: `values` and `gradients` are those of its k-th point, whatever it is.

    Of the first step it asks, as the authors' code does, whether it came above 0.
    """
    steps = len(values)

    def project(point):
        offset = point - centre
        if norm == "linf":
            return np.clip(centre + np.clip(offset, -eps, eps), 0, 1)
        length = np.sqrt((offset**2).sum())
        return np.clip(centre + (offset if length <= eps else offset / length * eps), 0, 1)

    ends = sorted(checkpoints(steps))
    points, size = [start], 2 * eps
    x, before, f, g = start, start, list(values), list(gradients)
    best = (f[0], start, g[0])
    halved_at, best_at = {0: False}, {0: f[0]}
    for k in range(steps):
        if f[k] > best[0]:
            best = (f[k], x, g[k])
        if k in ends and k > 0:
            last = ends[ends.index(k) - 1]
            # f[k] as it came: only afterwards does a halving put the summit in its place.
            ups = sum(f[i + 1] > (f[i] if i else 0) for i in range(last, k))
            one = ups < 0.75 * (k - last)
            two = not halved_at[last] and best_at[last] == best[0]
            halved_at[k], best_at[k] = one or two, best[0]
            if one or two:
                size /= 2
                f[k], x, g[k] = best
        direction = np.sign(g[k]) if norm == "linf" else g[k] / np.sqrt((g[k] ** 2).sum())
        z = project(x + size * direction)
        following = z if k == 0 else project(x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x = x, following
        points.append(x)
    return points


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [1, 7, 10, 100])
def test_the_climb_is_algorithm_1(norm: str, steps: int) -> None:
    # Losses that mostly rise, mostly fall, rise from a pit below the summit, stay, and wander.
    rng = np.random.default_rng(5)
    drift = np.array([0.5, 1.0, -1.0, 0.05, 0.0, 0.3, 0.8, -0.2])
    values = (drift[:, None] + rng.normal(size=(8, steps))).cumsum(axis=1)
    values[3] = np.r_[10.0, np.arange(steps - 1)]
    values[4] = 1.0
    gradients = rng.normal(size=(8, steps, 3, 2, 2))
    images = torch.tensor(rng.uniform(0.02, 0.98, size=(8, 3, 2, 2))).float()
    eps = 0.1
    start = Budget(norm, eps).project(images + 0.03 * torch.tensor(rng.normal(size=images.shape)).float(), images)

    def answer(step: int):
        def give(query: Query) -> Answer:
            logits = torch.tensor(values[:, step]).float()[:, None]
            gradient = torch.tensor(gradients[:, step]).float()
            none = torch.zeros(8, dtype=torch.bool)
            return Answer(logits, gradient, none, none)

        return give

    walk = climb(images, start, first_value, (torch.zeros(8, dtype=torch.int64),), Budget(norm, eps), steps)
    asked = drive(walk, [answer(min(step, steps - 1)) for step in range(steps + 1)])
    assert [query.loss is None for query in asked] == [False] * steps + [True]
    for row in range(8):
        centre, begin = images[row].double().numpy(), start[row].double().numpy()
        rounded = values[row].astype(np.float32).astype(float)
        expected = slow_apgd(centre, begin, rounded, gradients[row], norm, eps)
        found = [query.points[row].numpy() for query in asked]
        np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=2e-6)


class Peak(nn.Module):
    """Two logits whose difference is highest, and still below 0, at `summit`: nothing is to be found, only climbed."""

    def __init__(self, summit: Tensor) -> None:
        super().__init__()
        self.register_buffer("summit", summit)

    def forward(self, x: Tensor) -> Tensor:
        low = -1 - (x - self.summit).abs().sum(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(low), low], dim=1)


def nearest_to_the_summit(steps: int) -> float:
    """Climb to a summit within the ball; return how near the last quarter of the queries came, as a share of eps."""
    eps, centre = 0.1, torch.full((1, 3, 1, 1), 0.5)
    summit = centre + eps * torch.tensor([0.37, -0.21, 0.68])[:, None, None]
    network = Peak(summit)
    walk = climb(centre, centre - eps, first_score, (torch.zeros(1, dtype=torch.int64),), Budget("linf", eps), steps)
    query, distances = next(walk), []
    while True:
        distances.append(float((query.points - summit).abs().max()) / eps)
        with torch.enable_grad():
            leaf = query.points.clone().requires_grad_()
            logits = network(leaf)
            (gradient,) = torch.autograd.grad(logits[:, 1].sum(), leaf)
        no = torch.zeros(1, dtype=torch.bool)
        try:
            query = walk.send(Answer(logits.detach(), gradient, no, no))
        except StopIteration:
            return min(distances[-steps // 4 :])


def first_score(_: Tensor):
    return lambda logits: logits[:, 1]


def test_halving_homes_in_on_a_summit_inside_the_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nearest_to_the_summit(100) <= 0.05
    monkeypatch.setattr(_apgd, "checkpoints", lambda steps: frozenset())
    assert nearest_to_the_summit(100) >= 0.2


def test_a_settled_sample_leaves_at_once() -> None:
    images = torch.full((3, 3, 2, 2), 0.5)
    walk = climb(images, images, first_value, (torch.zeros(3, dtype=torch.int64),), Budget("linf", 0.1), 5)

    def answer(settled: list[bool]):
        flags = torch.tensor(settled)
        return lambda query: Answer(torch.ones(len(flags), 1), torch.ones_like(query.points), flags, flags)

    asked = drive(walk, [answer([False, True, False]), answer([True, False]), answer([True])])
    assert [query.rows.tolist() for query in asked] == [[0, 1, 2], [0, 2], [2]]


@pytest.mark.parametrize("make", [ApgdCe, ApgdT])
@pytest.mark.parametrize(("norm", "share"), [("linf", 0.3), ("linf", 0.7), ("l2", 0.3), ("l2", 0.7)])
def test_it_fells_exactly_those_within_reach(make, norm: str, share: float) -> None:
    field = ground("linear", count=64)
    nearest = field.nearest(norm)
    eps = float(nearest.quantile(share))
    assert field.images.min() - eps > 0
    standing = field.outcome(make(eps=eps, norm=norm, steps=30)).correct
    certain = ((nearest - eps).abs() > 1e-5).numpy()
    assert certain.sum() >= 62
    np.testing.assert_array_equal(standing[certain], (nearest > eps).numpy()[certain])


class Planes(nn.Module):
    """Affine logits: the nearest boundary is the nearest of a few planes."""

    def __init__(self, classes: int, values: int, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, values, generator=torch.Generator().manual_seed(3)))
        # One class has a steep logit: it is often nearer than a likelier one.
        self.weight.data[-1] *= 4
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * ((x.flatten(1) - 0.5) @ self.weight.T)

    def distance(self, x: Tensor, norm: str) -> Tensor:
        weight, logits = self.weight.detach(), (x.flatten(1) - 0.5) @ self.weight.detach().T
        label = logits.argmax(dim=1)
        slopes = (weight[None] - weight[label][:, None]).norm(p=2 if norm == "l2" else 1, dim=2)
        gaps = (logits.gather(1, label[:, None]) - logits) / slopes
        return gaps.scatter(1, label[:, None], float("inf")).amin(dim=1)


def planes(classes: int, scale: float = 1.0) -> Ground:
    count, side = 48, 4
    pixels = torch.randint(90, 166, (count, side, side, 3), generator=torch.Generator().manual_seed(2))
    images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255
    network = Planes(classes, 3 * side * side, scale)
    samples = Samples(
        images=pixels.to(torch.uint8).numpy(),
        labels=network(images).argmax(dim=1).numpy(),
        classes=tuple(map(str, range(classes))),
        names=("",) * count,
    )
    return Ground(TorchSubject(network, CPU), samples, images)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_target_is_reached_with_any_number_of_classes(classes: int, norm: str) -> None:
    field = planes(classes)
    nearest = field.nearest(norm).numpy()
    eps = float(np.quantile(nearest, 0.5))
    standing = field.outcome(ApgdT(eps=eps, norm=norm, steps=40)).correct
    assert standing[nearest > eps + 1e-6].all()
    assert not standing[nearest < 0.98 * eps].any()


def test_only_as_many_targets_as_told_the_likeliest_first() -> None:
    # Ten targets of 5 steps cost a standing sample 1 + 10 * 6 queries; fewer targets fell fewer.
    field = planes(10)
    eps = float(field.nearest("linf").quantile(0.5))
    outcomes = [field.outcome(ApgdT(eps=eps, steps=5, targets=targets)) for targets in (1, 3, 9, 99)]
    fallen = [int((~outcome.correct).sum()) for outcome in outcomes]
    assert fallen == sorted(fallen)
    assert fallen[0] < fallen[-1]
    assert fallen[2] == fallen[3]
    for outcome, targets in zip(outcomes, (1, 3, 9, 9), strict=True):
        assert set(outcome.gradients[outcome.correct]) == {5 * targets}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_saturated_network_does_not_stop_the_climb(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Logits times 1,000: float32 rounds the cross-entropy of nearly all these samples to 0, and its gradient too.
    nearest = planes(2).nearest(norm).numpy()
    eps = float(np.quantile(nearest, 0.8))
    attack, saturated = ApgdCe(eps=eps, norm=norm, steps=30), planes(2, scale=1000.0)
    certain = np.abs(nearest - eps) > 1e-5
    np.testing.assert_array_equal(saturated.outcome(attack).correct[certain], (nearest > eps)[certain])
    monkeypatch.setattr(apgd_ce, "log_odds", cross_entropy)
    np.testing.assert_array_equal(planes(2).outcome(attack).correct[certain], (nearest > eps)[certain])
    assert saturated.outcome(attack).correct.sum() >= (nearest > eps).sum() + 10


def test_restarts_are_for_what_still_stands() -> None:
    field = ground("linear")
    eps = float(field.nearest("linf").quantile(0.5))
    once = field.outcome(ApgdCe(eps=eps, steps=5))
    thrice = field.outcome(ApgdCe(eps=eps, steps=5, restarts=2))
    np.testing.assert_array_equal(once.correct, thrice.correct)
    assert set(once.gradients[once.correct]) == {5}
    assert set(thrice.gradients[thrice.correct]) == {15}
    np.testing.assert_array_equal(once.gradients[~once.correct], thrice.gradients[~once.correct])


@pytest.mark.parametrize("make", [ApgdCe, ApgdT])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"eps": 0}, "eps must be above 0.*got 0"),
        ({"eps": 8.0}, "eps is in .0, 1. units, got 8"),
        ({"eps": 0.1, "steps": 0}, "steps must be at least 1, got 0"),
        ({"eps": 0.1, "restarts": -1}, "restarts must be at least 0, got -1"),
    ],
)
def test_impossible_parameters_are_refused(make, wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make(**wrong)
    make(eps=8.0, norm="l2")


def test_targets_must_be_one_at_least() -> None:
    with pytest.raises(ValueError, match="targets must be at least 1, got 0"):
        ApgdT(eps=0.1, targets=0)


# At 10 steps their APGDT is stronger by chance: its first check compares the first loss with a zero from the end of an
# array, takes it for no rise, and so halves a step that is too long for a short walk. From 30 steps on that is even, but
# for a sample or two of 100 that either finds or not by its seed.
@pytest.mark.parametrize(
    ("ours", "theirs", "norm", "eps"),
    [
        (ApgdCe(eps=1 / 255, steps=30), "APGD", "Linf", 1 / 255),
        (ApgdCe(eps=0.25, norm="l2", steps=30), "APGD", "L2", 0.25),
        (ApgdT(eps=1 / 255, steps=30, targets=2), "APGDT", "Linf", 1 / 255),
    ],
)
def test_no_weaker_than_torchattacks(real_data: Path, ours, theirs: str, norm: str, eps: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    resnet = published(real_data, 10)
    labels = torch.tensor(resnet.samples.labels)
    other = getattr(torchattacks, theirs)(resnet.subject.module, norm=norm, eps=eps, steps=30)
    if theirs == "APGDT":
        other.n_target_classes = ours.targets
    found = resnet.subject.logits(other(resnet.images, labels)).argmax(dim=1)
    outcome = resnet.outcome(ours)
    assert 0 < outcome.correct.mean() < 0.4
    assert outcome.correct.sum() <= int((found == labels).sum()) + 2
