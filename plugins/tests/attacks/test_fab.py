"""FAB: its projection against scipy's solvers, closed forms with and without a box in the way, cost, torchattacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, Linear, ground
from columns import watch_columns
from published import published
from scipy.optimize import linprog, minimize
from settled import check_settled_are_dropped
from test_deepfool_ddn import COUNT, SIDE, Planes, Plateau, Scaled, on, pictures

from robustgate.attacks import fab
from robustgate.attacks._plane import step_to_plane
from robustgate.attacks.fab import Fab
from robustgate.core.budget import Budget
from robustgate.engine.subjects import TorchSubject

both_norms = pytest.mark.parametrize("norm", ["linf", "l2"])


class TestProjection:
    """The step to a plane within the box, against a linear programme (linf) and a quadratic one (l2)."""

    VALUES = 12

    def problems(self, count: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return points with values on the box's edge, gradients with zeros, and values that the box reaches or not."""
        generator = np.random.default_rng(5)
        points = generator.choice([0.0, 1.0, 0.25, 0.5, 0.9], (count, self.VALUES))
        points += (points == 0.5) * generator.uniform(-0.4, 0.4, points.shape)
        gradient = generator.normal(size=points.shape) * (generator.random(points.shape) > 0.2)
        values = generator.normal(size=count) * generator.choice([0.1, 1, 8], count)
        return points.astype(np.float32), values.astype(np.float32), gradient.astype(np.float32)

    def ours(self, norm: str, points: np.ndarray, values: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        images = [torch.from_numpy(one).view(len(values), 3, 2, 2) for one in (points, gradient)]
        step = step_to_plane(images[0], torch.from_numpy(values), images[1], norm)
        assert step.dtype == torch.float32
        return step.flatten(1).double().numpy()

    @both_norms
    def test_it_is_the_nearest_point_of_the_plane_in_the_box(self, norm: str) -> None:
        points, values, gradient = self.problems()
        steps = self.ours(norm, points, values, gradient)
        reached = 0
        for point, value, slope, step in zip(points, values, gradient, steps, strict=True):
            assert (point + step >= -1e-6).all()
            assert (point + step <= 1 + 1e-6).all()
            corner = np.where(slope * -value > 0, 1 - point, -point) * (slope != 0)
            if abs(value + slope @ corner) > 1e-6 and (value + slope @ corner) * value > 0:
                np.testing.assert_allclose(step, corner, atol=1e-6)  # out of reach
                continue
            reached += 1
            assert abs(value + slope @ step) < 1e-5
            exact = self.exact(norm, point, value, slope)
            size = np.abs(step).max() if norm == "linf" else np.linalg.norm(step)
            assert size == pytest.approx(exact, rel=1e-5, abs=1e-6)
        assert 10 < reached < len(values) - 5

    def exact(self, norm: str, point: np.ndarray, value: float, slope: np.ndarray) -> float:
        room = list(zip(-point, 1 - point, strict=True))
        if norm == "linf":  # the least t with -t <= step <= t
            eye, ones = np.eye(self.VALUES), np.ones((self.VALUES, 1))
            found = linprog(
                np.r_[np.zeros(self.VALUES), 1],
                A_ub=np.block([[eye, -ones], [-eye, -ones]]),
                b_ub=np.zeros(2 * self.VALUES),
                A_eq=np.r_[slope, 0][None],
                b_eq=[-value],
                bounds=[*room, (0, None)],
            )
            assert found.success
            return float(found.fun)
        plane = {"type": "eq", "fun": lambda step: value + slope @ step, "jac": lambda step: slope}
        squares = minimize(
            lambda step: step @ step / 2,
            np.zeros(self.VALUES),
            jac=lambda step: step,
            bounds=room,
            constraints=[plane],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert squares.success
        return float(np.linalg.norm(squares.x))

    @both_norms
    @pytest.mark.parametrize("factor", [1e-38, 1e-20, 1e20])
    def test_the_scale_of_the_plane_changes_nothing(self, norm: str, factor: float) -> None:
        points, values, gradient = self.problems()
        scale = np.float32(factor)
        scaled = self.ours(norm, points, scale * values, scale * gradient)
        # Of a float32 near 1e-38 seven bits and more are lost.
        np.testing.assert_allclose(scaled, self.ours(norm, points, values, gradient), atol=1e-5)

    @both_norms
    def test_without_a_slope_or_a_distance_there_is_no_step(self, norm: str) -> None:
        points, values, gradient = self.problems()
        assert not self.ours(norm, points, values, gradient * 0).any()
        assert not self.ours(norm, points, values * 0, gradient).any()


@both_norms
@pytest.mark.parametrize("parameters", [{}, {"targeted": False}, {"restarts": 3, "steps": 20}], ids=str)
@pytest.mark.parametrize("kind", ["linear", "sphere"])
def test_the_norm_found_is_the_distance_to_the_boundary(kind: str, norm: str, parameters: dict[str, Any]) -> None:
    where = ground(kind, 6)
    truth = where.nearest(norm).numpy()
    found = where.outcome(Fab(eps=float(np.median(truth)), norm=norm, **{"steps": 30} | parameters)).norms
    np.testing.assert_array_less(truth * (1 - 1e-5), found)
    np.testing.assert_array_less(found, truth * 1.005)


@both_norms
@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("targets", [1, 2, 9])
def test_targets_are_the_classes_of_the_largest_logits(norm: str, targeted: bool, targets: int) -> None:
    where = on(Planes())
    truth = where.subject.module.distances(where.images, norm).numpy()
    nearest = truth[:, :targets].min(axis=1)
    found = where.outcome(Fab(eps=0.1, norm=norm, targets=targets, targeted=targeted, steps=20)).norms
    np.testing.assert_array_less(truth.min(axis=1) * (1 - 1e-5), found)
    np.testing.assert_array_less(found, nearest * 1.005)
    # On the way to a class the walk may come over another's plane; mostly it does not.
    assert targets == 9 or (found > truth.min(axis=1) * 1.2).any()


class TestBox:
    """Images of which most values are 0 or 1: on a linear network the nearest adversarial point is known still."""

    def where(self) -> Ground:
        pixels = np.random.default_rng(6).choice([0, 255, 100, 180], (24, SIDE, SIDE, 3)).astype(np.uint8)
        return on(Linear(3 * SIDE**2), pixels)

    def nearest(self, where: Ground, norm: str) -> np.ndarray:
        """Return the distances, found by halving how far all values move: an answer without any sorting."""
        network = where.subject.module
        weight, images = network.weight.detach().double(), where.images.flatten(1).double()
        score = network.score(where.images).detach()
        ahead = -score.sign()[:, None] * weight.sign()
        pace = weight.abs() if norm == "l2" else torch.ones_like(weight)
        low, high = torch.zeros_like(score), torch.full_like(score, 1e4)
        for _ in range(200):
            middle = (low + high) / 2
            step = ((images + middle[:, None] * ahead * pace).clamp(0, 1)) - images
            over = (score + step @ weight) * score.sign() <= 0
            low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        step = ((images + high[:, None] * ahead * pace).clamp(0, 1)) - images
        return (step.norm(dim=1) if norm == "l2" else step.abs().amax(dim=1)).numpy()

    @both_norms
    def test_the_norm_found_is_the_smallest_in_the_box(self, norm: str) -> None:
        where = self.where()
        truth = self.nearest(where, norm)
        free = where.nearest(norm).numpy()
        assert (truth > free * 1.05).all()
        found = where.outcome(Fab(eps=0.1, norm=norm, steps=30)).norms
        np.testing.assert_array_less(truth * (1 - 1e-5), found)
        np.testing.assert_array_less(found, truth * 1.005)

    @both_norms
    def test_a_projection_that_forgets_the_box_is_caught(self, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def forgetful(points, values, gradient, norm):
            direction = Budget(norm, 1.0).direction(gradient)
            slopes = (gradient * direction).flatten(1).sum(dim=1)
            return ((points - (values / slopes)[:, None, None, None] * direction).clamp(0, 1)) - points

        monkeypatch.setattr(fab, "step_to_plane", forgetful)
        where = self.where()
        found = where.outcome(Fab(eps=0.1, norm=norm, steps=30)).norms
        assert (found > self.nearest(where, norm) * 1.005).any()


@both_norms
@pytest.mark.parametrize("parameters", [{"targeted": False}, {"restarts": 2}, {"refinements": 0}], ids=str)
def test_settled_samples_are_asked_about_no_more(norm: str, parameters: dict[str, Any]) -> None:
    where = on(Planes())
    eps = float(np.median(where.subject.module.distances(where.images, norm).numpy().min(axis=1)))
    check_settled_are_dropped(Fab(eps=eps, norm=norm, steps=6, **parameters), where)


@both_norms
@pytest.mark.parametrize("factor", [1e-25, 1e6])
def test_the_scale_of_the_logits_changes_nothing(norm: str, factor: float) -> None:
    plain = ground("sphere", SIDE, COUNT)
    scaled = on(Scaled(plain.subject.module, factor), plain.samples.images)
    truth = plain.nearest(norm).numpy()
    found = scaled.outcome(Fab(eps=1, norm=norm, steps=20)).norms
    np.testing.assert_array_less(truth * (1 - 1e-5), found)
    np.testing.assert_array_less(found, truth * 1.005)


@both_norms
@pytest.mark.parametrize("targeted", [True, False])
def test_it_gives_up_where_nothing_slopes(norm: str, targeted: bool) -> None:
    pixels = pictures()
    pixels[::2] = np.where(pixels[::2] > 127, 184, 71)  # outside the plateau, inside the sphere
    result = on(Plateau(), pixels).outcome(Fab(eps=0.5, norm=norm, targeted=targeted, steps=20))
    np.testing.assert_array_equal(np.isfinite(result.norms), np.arange(COUNT) % 2 == 0)
    assert (result.gradients[1::2] == 1).all()


def test_what_it_costs() -> None:
    where = on(Planes())
    aimed = where.outcome(Fab(eps=0.1, steps=7, targets=3, restarts=2, refinements=4))
    assert (aimed.gradients == 7 * 3 * 2).all()
    # The image, a look at every step, the search at the end (the point is next to the boundary), the confirmation.
    assert (aimed.queries == 1 + 42 + 2 + 1).all()
    assert (where.outcome(Fab(eps=0.1, steps=7, targeted=False)).gradients == 7).all()


@both_norms
def test_later_gradients_are_of_the_rivals_only(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = watch_columns(monkeypatch)
    where = on(Planes())
    whole = where.outcome(Fab(eps=0.1, norm=norm, targeted=False, rivals=9, steps=7), size=4 * COUNT)
    assert columns == [(COUNT, 5)] * 7
    columns.clear()
    few = where.outcome(Fab(eps=0.1, norm=norm, targeted=False, rivals=2, steps=7, restarts=2), size=4 * COUNT)
    assert columns == ([(COUNT, 5)] + [(COUNT, 2)] * 6) * 2
    np.testing.assert_allclose(few.norms, whole.norms, rtol=1e-3)


def test_fewer_rivals_are_no_weaker_on_a_published_network(real_data: Path) -> None:
    where = published(real_data, 3)
    few, every = (where.outcome(Fab(eps=0.1, norm="l2", targeted=False, rivals=rivals, steps=8)) for rivals in (3, 9))
    np.testing.assert_allclose(np.median(few.norms), np.median(every.norms), rtol=0.005)
    np.testing.assert_allclose(few.norms.mean(), every.norms.mean(), rtol=0.005)


class Converted(TorchSubject):
    """A network that is attacked as an artifact is that has no gradient of its own."""

    has_own_gradient = False


class Within(Fab):
    """FAB under a fixed budget, as in a composite."""

    minimizes = False


@both_norms
@pytest.mark.parametrize("targeted", [True, False])
def test_it_ends_where_all_are_settled_by_a_query_with_gradients(norm: str, targeted: bool) -> None:
    plain = ground("sphere", SIDE, COUNT)
    where = Ground(Converted(plain.subject.module, CPU), plain.samples, plain.images)
    eps = 1.2 * float(plain.nearest(norm).median())
    # In walks of one sample: where it falls at such a query, after two about the image and one beyond eps, no gradient
    # is taken of anything.
    result = where.outcome(Within(eps=eps, norm=norm, targeted=targeted, steps=20), size=4)
    assert not result.correct.any()
    assert ((result.queries == 4) & (result.gradients == 1)).any()


def test_restarts_begin_at_half_of_the_norm_found(monkeypatch: pytest.MonkeyPatch) -> None:
    where = on(Planes())
    truth = torch.from_numpy(where.subject.module.distances(where.images, "l2").min(dim=1).values.numpy())
    eps = float(truth.median())
    starts: list[torch.Tensor] = []

    def watched(self, found, rows, points, labels, aims):
        starts.append(found.budget.size(points - where.images[rows]))
        assert len(rows) == COUNT
        yield from walk(self, found, rows, points, labels, aims)

    walk = Fab._walk
    monkeypatch.setattr(Fab, "_walk", watched)
    where.outcome(Fab(eps=eps, norm="l2", restarts=3, targeted=False, steps=20), size=4 * COUNT)
    first, second, third = starts
    assert not first.any()
    torch.testing.assert_close(second, truth.float().clamp_max(eps) / 2, rtol=0.01, atol=0)
    torch.testing.assert_close(third, second, rtol=0.01, atol=0)


@pytest.mark.parametrize(("norm", "eps", "targeted"), [("linf", 0.7 / 255, False), ("l2", 0.1, True)])
def test_no_weaker_than_torchattacks(real_data: Path, norm: str, eps: float, targeted: bool) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    resnet = published(real_data, 3)
    labels, steps = torch.tensor(resnet.samples.labels), 4
    other = torchattacks.FAB(
        resnet.subject.module, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, steps=steps, multi_targeted=targeted
    )
    points, budget = other(resnet.images, labels), Budget(norm, eps)
    wrong = resnet.subject.logits(resnet.images).argmax(dim=1) != labels
    fooled = resnet.subject.logits(points).argmax(dim=1) != labels
    theirs = int((~wrong & ~(fooled & budget.contains(budget.size(points - resnet.images)))).sum())
    ours = int(resnet.outcome(Fab(eps=eps, norm=norm, steps=steps, targeted=targeted)).correct.sum())
    assert 5 <= theirs <= 25
    assert ours <= theirs + 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"eps": 0.0}, "eps must be above 0"),
        ({"eps": float("nan")}, "eps must be above 0"),
        ({"eps": 8}, "eps is in .* got 8: divide by 255"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
        ({"targets": 0}, "targets must be at least 1, got 0"),
        ({"rivals": 0}, "rivals must be at least 1, got 0"),
        ({"refinements": -1}, "refinements must be at least 0, got -1"),
        ({"alpha_max": 1.1}, "alpha_max must be from 0 to 1, got 1.1"),
        ({"eta": 0.9}, "eta must be at least 1 and finite, got 0.9"),
        ({"beta": 0.0}, "beta must be above 0 and at most 1, got 0"),
    ],
)
def test_impossible_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fab(**{"eps": 0.1} | parameters)
