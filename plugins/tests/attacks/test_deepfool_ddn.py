"""DeepFool and DDN: several classes, gradients that vanish, what they cost, and another library's norms."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, Sphere, ground
from torch import Tensor, nn

from robustgate.attacks._plane import distances_to_planes
from robustgate.attacks.ddn import Ddn
from robustgate.attacks.deepfool import Deepfool, step_over
from robustgate.core.budget import Budget
from robustgate.core.components import Answer, Samples
from robustgate.core.losses import cross_entropy, log_odds
from robustgate.engine.arena import Arena, Batch
from robustgate.engine.draws import SampleDraws
from robustgate.engine.ledger import Ledger
from robustgate.engine.subjects import CountedTarget, TorchSubject

SIDE, COUNT = 6, 16
VALUES = 3 * SIDE * SIDE


class Planes(nn.Module):
    """Affine logits of six classes, in double precision: the nearest boundary is the nearest of five planes."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(6, VALUES, generator=generator).double())
        # One class has a steep logit: the second best class is often not the nearest.
        self.weight.data[5] *= 4

    def forward(self, x: Tensor) -> Tensor:
        return ((x.flatten(1).double() - 0.5) @ self.weight.T).float()

    def distances(self, x: Tensor, norm: str) -> Tensor:
        """Return the distance (N, 5) to the plane of each other class, the class of the largest logit first."""
        logits = (x.flatten(1).double() - 0.5) @ self.weight.detach().T
        order = logits.argsort(dim=1, descending=True)
        differences = (self.weight.detach()[order] - self.weight.detach()[order[:, :1]])[:, 1:]
        gaps = logits.gather(1, order[:, :1]) - logits.gather(1, order[:, 1:])
        return gaps / (differences.norm(dim=2) if norm == "l2" else differences.abs().sum(dim=2))


class Scaled(nn.Module):
    """A network whose logits, and gradients, are multiplied."""

    def __init__(self, inner: nn.Module, factor: float) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.factor


class Plateau(nn.Module):
    """Class 1 outside a sphere; half way to its surface nothing changes, so that there is no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.sphere = Sphere(VALUES, radius=3.0)

    def forward(self, x: Tensor) -> Tensor:
        score = self.sphere(x)[:, 1].clamp_min(-20 * (3.0**2 - 2.0**2))
        return torch.stack([torch.zeros_like(score), score], dim=1)


def pictures(count: int = COUNT, *, low: int = 90, high: int = 166) -> np.ndarray:
    return np.random.default_rng(4).integers(low, high, (count, SIDE, SIDE, 3), dtype=np.uint8)


def on(module: nn.Module, pixels: np.ndarray | None = None) -> Ground:
    pixels = pictures() if pixels is None else pixels
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
    logits = module(images)
    samples = Samples(
        images=pixels,
        labels=logits.argmax(dim=1).numpy().astype(np.int64),
        classes=tuple(map(str, range(logits.shape[1]))),
        names=("",) * len(pixels),
    )
    return Ground(TorchSubject(module, CPU), samples, images)


def siege(where: Ground, attack: Any, *, part: int = COUNT) -> list[Ledger]:
    """Return what an attack found, in walks of `part` samples."""
    target = CountedTarget(where.subject, len(where.samples.classes), "case")
    rows = torch.split(torch.arange(len(where.images)), part)
    labels = torch.from_numpy(where.samples.labels)
    found: list[Ledger] = []
    batches = (
        Batch(numbers=some, images=where.images[some], labels=labels[some], seeds=some.tolist()) for some in rows
    )
    Arena(target, attack, size=part).fight(batches, lambda batch, ledger: found.append(ledger))
    return found


class TestSeveralClasses:
    @pytest.mark.parametrize("norm", ["l2", "linf"])
    def test_deepfool_finds_the_nearest_of_the_planes(self, norm: str) -> None:
        where = on(Planes())
        truth = where.subject.module.distances(where.images, norm).numpy()
        found = where.outcome(Deepfool(eps=0.1, norm=norm)).norms
        np.testing.assert_array_less(truth.min(axis=1) * (1 - 1e-5), found)
        np.testing.assert_allclose(found, truth.min(axis=1), rtol=0.01)

    @pytest.mark.parametrize("norm", ["l2", "linf"])
    @pytest.mark.parametrize("candidates", [2, 3, 6])
    def test_candidates_are_those_of_the_largest_logits(self, norm: str, candidates: int) -> None:
        where = on(Planes())
        truth = where.subject.module.distances(where.images, norm).numpy()
        nearest = truth[:, : candidates - 1].min(axis=1)
        (ledger,) = siege(where, Deepfool(eps=1e-6, norm=norm, candidates=candidates, steps=1, refinements=0))
        # One step, and a point 2 % and 1.02 x 1e-4 beyond the nearest plane of a candidate.
        np.testing.assert_allclose(ledger.norms.numpy(), 1.02 * (nearest + 1e-4), rtol=1e-4)
        assert candidates == 6 or (nearest > truth.min(axis=1) * 1.2).any()

    def test_ddn_is_never_below_the_nearest_plane(self) -> None:
        # How near it comes depends on the logits: cross-entropy climbs to all classes at once, each by its probability.
        where = on(Planes())
        truth = where.subject.module.distances(where.images, "l2").numpy().min(axis=1)
        found = where.outcome(Ddn(eps=0.1)).norms
        np.testing.assert_array_less(truth * (1 - 1e-5), found)
        assert np.median(found / truth) < 1.1


class TestVanishingGradients:
    @pytest.mark.parametrize("factor", [1e-25, 1e3, 1e6])
    @pytest.mark.parametrize("attack", [Deepfool(eps=1), Deepfool(eps=1, norm="linf"), Ddn(eps=1)], ids=repr)
    def test_the_scale_of_the_logits_changes_nothing(self, attack: Any, factor: float) -> None:
        plain = ground("sphere", SIDE, COUNT)
        scaled = on(Scaled(plain.subject.module, factor), plain.samples.images)
        loss = cross_entropy(torch.from_numpy(scaled.samples.labels))
        _, gradient = CountedTarget(scaled.subject, 2, "case").gradient(scaled.images, loss)
        squares = gradient.square().sum(dim=(1, 2, 3))
        assert bool((squares == 0).all()) == (factor != 1)  # where a plain normalisation has nothing to go on
        truth = plain.nearest(attack.norm).numpy()
        found = scaled.outcome(attack).norms
        np.testing.assert_array_less(truth * (1 - 1e-5), found)
        np.testing.assert_array_less(found, truth * 1.01)

    @pytest.mark.parametrize("norm", ["l2", "linf"])
    def test_deepfool_gives_up_where_nothing_slopes(self, norm: str) -> None:
        where = on(Plateau())
        result = where.outcome(Deepfool(eps=0.5, norm=norm))
        assert result.correct.all()
        assert np.isinf(result.norms).all()
        assert (result.gradients == 1).all()

    def test_one_sample_without_a_slope_stops_no_other(self) -> None:
        pixels = pictures()
        pixels[::2] = np.where(pixels[::2] > 127, 184, 71)  # outside the plateau, inside the sphere
        result = on(Plateau(), pixels).outcome(Deepfool(eps=0.5))
        np.testing.assert_array_equal(np.isfinite(result.norms), np.arange(COUNT) % 2 == 0)

    def test_ddn_goes_at_random_where_nothing_slopes_each_sample_by_its_own_stream(self) -> None:
        where = on(Plateau())
        truth = (3.0 - (where.images - 0.5).flatten(1).norm(dim=1)).numpy()
        (whole,) = siege(where, Ddn(eps=2.0))
        assert (whole.norms.numpy() >= truth * (1 - 1e-5)).all()
        assert (whole.norms.numpy() <= truth * 1.05).all()
        parts = siege(where, Ddn(eps=2.0), part=3)
        torch.testing.assert_close(torch.cat([one.points for one in parts]), whole.points, rtol=0, atol=1e-5)

    def test_the_nearest_boundary_of_gradients_that_vanish(self) -> None:
        gradient = torch.zeros(3, 2, 3, 1, 1)
        gradient[0, 1, 0] = 2e-30
        gradient[1] = torch.tensor([3.0, 0, 4])[:, None, None]
        values = torch.tensor([[-1e-40, -4e-30], [-1.0, -5.0], [-1.0, 0.0]])
        budget = Budget("l2", 1.0)
        step, moves = step_over(gradient, distances_to_planes(values, gradient, budget), budget)
        assert moves.tolist() == [True, True, False]
        assert torch.isfinite(step).all()
        expected = torch.tensor([[2.0001, 0, 0], [0.6 * 0.2001, 0, 0.8 * 0.2001], [0, 0, 0]])
        torch.testing.assert_close(step[:, :, 0, 0], expected)

    def test_the_log_odds_climb_as_the_cross_entropy_does(self) -> None:
        logits = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
        labels = torch.arange(8) % 5
        odds = log_odds(labels)(logits)
        entropy = cross_entropy(labels)(logits)
        torch.testing.assert_close(nn.functional.softplus(odds), entropy)
        (slope,) = torch.autograd.grad(odds.sum(), logits)
        (other,) = torch.autograd.grad(entropy.sum(), logits)
        torch.testing.assert_close(slope * odds.sigmoid()[:, None], other)


class TestRefinement:
    @pytest.mark.parametrize("halvings", [0, 2, 5, 12])
    def test_every_halving_halves_what_is_left(self, halvings: int) -> None:
        where = ground("sphere", SIDE, COUNT)
        truth = where.nearest("l2").numpy()
        (first,) = siege(where, Deepfool(eps=0.1, refinements=0))
        (ledger,) = siege(where, Deepfool(eps=0.1, refinements=halvings))
        excess = ledger.norms.numpy() - truth
        assert (excess <= first.norms.numpy() * 0.5**halvings + 1e-6).all()
        # About both edges of the cell with the boundary; on a sphere the margin is a parabola.
        spent = ledger.queries - first.queries
        assert (spent >= (1 if halvings else 0)).all()
        assert (spent <= (3 if halvings else 0)).all()
        assert (ledger.gradients == first.gradients).all()

    def test_who_is_over_the_boundary_asks_for_no_more_gradients(self) -> None:
        result = ground("linear", SIDE, COUNT).outcome(Deepfool(eps=0.1, steps=50))
        assert (result.gradients == 1).all()  # of the image

    def test_ddn_comes_back_from_the_nearest_point_that_fooled_not_the_last(self) -> None:
        image = torch.full((1, 3, SIDE, SIDE), 0.5)
        attack = Ddn(eps=0.1, steps=5, initial_norm=1.0)
        walk = attack.run(image, torch.tensor([0]), SampleDraws([0]), None)  # type: ignore[arg-type]
        query, norms = next(walk), []
        for fooled in (False, True, False, False, True):
            norms.append(float((query.points - image).norm()))
            flags = torch.tensor([fooled])
            query = walk.send(Answer(torch.zeros(1, 2), torch.ones_like(image), flags, torch.tensor([False])))
        assert norms == pytest.approx([0, 1.05, 1.05 * 0.95, 1.05**2 * 0.95, 1.05**3 * 0.95])
        assert float((query.points - image).norm()) == pytest.approx(norms[1])

    def test_ddn_begins_at_the_linearised_boundary_and_goes_on_to_the_next_until_a_point_fools(self) -> None:
        image = torch.full((1, 3, SIDE, SIDE), 0.5)
        walk = Ddn(eps=0.1, steps=6).run(image, torch.tensor([0]), SampleDraws([0]), None)  # type: ignore[arg-type]
        query, norms = next(walk), []
        slope = float(torch.ones_like(image).norm())
        # What the margin lacks at each point, in units of distance at its slope.
        for lacks, fooled in ((0.3, False), (0.1, False), (0.001, False), (0.0, True), (0.2, False)):
            norms.append(float((query.points - image).norm()))
            logits = torch.tensor([[lacks * slope, 0.0]])
            answer = Answer(logits, torch.ones_like(image), torch.tensor([fooled]), torch.tensor([False]))
            query = walk.send(answer)
        # 0.001 farther would be less than a growth by gamma.
        assert norms == pytest.approx([0, 0.3, 0.4, 0.42, 0.42 * 0.95], rel=1e-5)
        # Once a point has fooled the radius changes by gamma alone.
        assert float((query.points - image).norm()) == pytest.approx(0.42 * 0.95 * 1.05, rel=1e-5)

    def test_ddn_leaves_an_image_whose_logits_tie(self) -> None:
        image = torch.full((1, 3, SIDE, SIDE), 0.5)
        walk = Ddn(eps=0.1, steps=6).run(image, torch.tensor([0]), SampleDraws([0]), None)  # type: ignore[arg-type]
        query, norms = next(walk), []
        nothing = torch.tensor([False])
        for _ in range(5):
            query = walk.send(Answer(torch.zeros(1, 2), torch.ones_like(image), nothing, nothing))
            norms.append(float((query.points - image).norm()))
        assert norms == pytest.approx([0.001, 0.002, 0.003, 0.004, 0.005], rel=1e-3)

    def test_steps_that_end_short_of_the_boundary_leave_the_sample_standing(self) -> None:
        where = on(Planes(), pictures(low=0, high=256))
        result = where.outcome(Deepfool(eps=0.1, steps=1, overshoot=0, refinements=0))
        (ledger,) = siege(where, Deepfool(eps=0.1, steps=1, refinements=0))
        assert (result.gradients == 1).all()
        assert bool(ledger.norms.isinf().any())  # clipped, one step did not do
        assert np.isfinite(where.outcome(Deepfool(eps=0.1)).norms).all()


class TestLevels:
    def test_points_lie_on_the_levels(self) -> None:
        where = ground("linear", SIDE, COUNT)
        (ledger,) = siege(where, Ddn(eps=0.2, levels=256))
        levels = ledger.points * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
        assert (ledger.norms.numpy() >= where.nearest("l2").numpy() * (1 - 1e-5)).all()

    def test_rounding_costs_norm(self) -> None:
        where = ground("linear", 12, COUNT)
        (rounded,), (free,) = siege(where, Ddn(eps=0.2, levels=256)), siege(where, Ddn(eps=0.2))
        assert float((rounded.norms / free.norms).median()) > 1.05


class Small(nn.Module):
    """A convolutional network of seven classes, weights drawn, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(6)
            layers = (nn.Conv2d(3, 12, 3), nn.Softplus(beta=4), nn.Flatten(), nn.Linear(12 * (SIDE - 2) ** 2, 7))
            self.layers = nn.Sequential(*layers).double().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.double()).float()


class TestAgainstFoolbox:
    """The same norms, sample by sample, without the search that theirs has not; smaller ones with it."""

    @pytest.fixture
    def where(self) -> Ground:
        return on(Small(), pictures(low=0, high=256))

    def theirs(self, where: Ground, name: str, **parameters: Any) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own age
            foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
            model = foolbox.PyTorchModel(where.subject.module, bounds=(0, 1), device="cpu")
            attack = getattr(foolbox.attacks, name)(**parameters)
            points, _, fooled = attack(model, where.images, torch.from_numpy(where.samples.labels), epsilons=None)
        assert bool(fooled.all())
        return Budget("linf" if name.startswith("Linf") else "l2", 1.0).size(points - where.images).numpy()

    @pytest.mark.parametrize(("norm", "name"), [("l2", "L2DeepFoolAttack"), ("linf", "LinfDeepFoolAttack")])
    @pytest.mark.parametrize("candidates", [3, 10])
    def test_deepfool(self, where: Ground, norm: str, name: str, candidates: int) -> None:
        theirs = self.theirs(where, name, steps=50, candidates=candidates, overshoot=0.02)
        every = Deepfool(eps=0.1, norm=norm, candidates=candidates, rivals=candidates, refinements=0)
        (plain,) = siege(where, every)
        np.testing.assert_allclose(plain.norms.numpy(), theirs, rtol=1e-3)
        (ours,) = siege(where, Deepfool(eps=0.1, norm=norm, candidates=candidates))
        assert (ours.norms.numpy() <= theirs * (1 + 1e-6)).all()
        assert np.median(ours.norms.numpy() / theirs) < 0.999

    @pytest.mark.parametrize("steps", [20, 100])
    def test_ddn(self, where: Ground, steps: int) -> None:
        theirs = self.theirs(where, "DDNAttack", steps=steps, gamma=0.05, init_epsilon=1.0)
        (plain,) = siege(where, Ddn(eps=0.1, steps=steps, initial_norm=1.0, refinements=0))
        np.testing.assert_allclose(plain.norms.numpy(), theirs, rtol=1e-3)
        (nearer,) = siege(where, Ddn(eps=0.1, steps=steps, initial_norm=1.0))
        assert (nearer.norms.numpy() <= theirs * (1 + 1e-6)).all()
        (ours,) = siege(where, Ddn(eps=0.1, steps=2 * steps // 5))
        assert np.log(ours.norms.numpy() / theirs).mean() < 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Deepfool(eps=0.0), "eps must be above 0"),
        (lambda: Deepfool(eps=float("nan")), "eps must be above 0"),
        (lambda: Deepfool(eps=8, norm="linf"), "eps is in .* got 8: divide by 255"),
        (lambda: Deepfool(eps=1, steps=0), "steps must be at least 1, got 0"),
        (lambda: Deepfool(eps=1, candidates=1), "candidates must be at least 2, .* got 1"),
        (lambda: Deepfool(eps=1, rivals=0), "rivals must be at least 1, got 0"),
        (lambda: Deepfool(eps=1, overshoot=-0.1), "overshoot must be at least 0 and finite, got -0.1"),
        (lambda: Deepfool(eps=1, refinements=-1), "refinements must be at least 0, got -1"),
        (lambda: Ddn(eps=0.0), "eps must be above 0"),
        (lambda: Ddn(eps=1, steps=1), "steps must be at least 2, .* got 1"),
        (lambda: Ddn(eps=1, gamma=1.0), "gamma must be above 0 and below 1, got 1"),
        (lambda: Ddn(eps=1, initial_norm=0.0), "initial_norm must be above 0 and finite, got 0"),
        (lambda: Ddn(eps=1, levels=1), "levels must be at least 2, or none, got 1"),
        (lambda: Ddn(eps=1, refinements=-1), "refinements must be at least 0, got -1"),
    ],
)
def test_impossible_parameters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
