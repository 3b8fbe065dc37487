"""Attacks at work: what the engine does with an attack that it does not trust, and how it fills its batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from robustgate.attacks.pgd import Pgd
from robustgate.core.components import Query, Walk
from robustgate.core.errors import MeasurementError
from robustgate.core.losses import cross_entropy
from robustgate.core.walks import among
from robustgate.engine.arena import Arena, Batch, Caps
from robustgate.engine.ledger import Ledger
from robustgate.engine.subjects import CountedTarget, TorchSubject

CPU = torch.device("cpu")
COUNT = 60
GREY = 0.5


class Brightness(nn.Module):
    """Class 1 where the mean of the pixels is above a half; the margin is 10 times the distance to it."""

    def forward(self, images: Tensor) -> Tensor:
        score = 10 * (images.mean((1, 2, 3)) - GREY)
        return torch.stack([-score, score], dim=1)


def images(count: int = COUNT) -> Tensor:
    """Image i is grey, i thousandths and a half below the middle."""
    steps = torch.arange(count)[:, None, None, None] / 1000 + 0.0005
    return (GREY - steps).expand(count, 3, 4, 4).contiguous()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scripted:
    """An attack that asks what it is told to."""

    needs_gradient: ClassVar[bool] = True
    minimizes: bool = False
    norm: str = "linf"
    eps: float = 0.03
    script: Callable[[Tensor, Tensor], Walk]

    def run(self, images: Tensor, labels: Tensor, draws, target) -> Walk:
        yield from self.script(images, labels)


def fight(attack, *, module: nn.Module | None = None, size: int = 32, part: int = 8, caps: Caps | None = None):
    """Attack all images; return what was found of all, and the target."""
    target = CountedTarget(TorchSubject(module or Brightness(), CPU), 2, "case")
    pictures, labels = images(), torch.zeros(COUNT, dtype=torch.int64)
    found: dict[int, tuple[float, int, int, int]] = {}

    def finished(batch: Batch, ledger: Ledger) -> None:
        columns = (ledger.norms, ledger.predictions, ledger.queries, ledger.gradients)
        for number, *values in zip(batch.numbers.tolist(), *(column.tolist() for column in columns), strict=True):
            found[number] = tuple(values)

    batches = (
        Batch(numbers=rows, images=pictures[rows], labels=labels[rows], seeds=rows.tolist())
        for rows in torch.split(torch.arange(COUNT), part)
    )
    Arena(target, attack, size=size, caps=caps).fight(batches, finished)
    return [found[number] for number in range(COUNT)], target


def everyone(pictures: Tensor) -> Tensor:
    return torch.arange(len(pictures))


def brighter(by: float) -> Callable[[Tensor, Tensor], Walk]:
    def script(pictures: Tensor, labels: Tensor) -> Walk:
        yield Query(everyone(pictures), pictures + by)

    return script


def test_a_point_within_the_budget_counts() -> None:
    found, _ = fight(Scripted(script=brighter(0.02)))
    assert [norm < 1 for norm, *_ in found] == [number < 20 for number in range(COUNT)]
    assert all(norm == pytest.approx(0.02, abs=1e-6) and label == 1 for norm, label, *_ in found[:20])


def test_a_point_beyond_the_budget_does_not_count_but_its_projection_does() -> None:
    found, target = fight(Scripted(script=brighter(0.2)))
    assert [norm < 1 for norm, *_ in found] == [number < 30 for number in range(COUNT)]
    assert max(norm for norm, *_ in found[:30]) <= 0.03 + 1e-6
    assert target.queries == 2 * COUNT


def test_the_best_step_counts_and_not_the_last() -> None:
    def there_and_back(pictures: Tensor, labels: Tensor) -> Walk:
        yield Query(everyone(pictures), pictures + 0.02)
        yield Query(everyone(pictures), pictures)

    found, _ = fight(Scripted(script=there_and_back))
    assert sum(norm < 1 for norm, *_ in found) == 20


def test_a_minimum_norm_attack_keeps_the_nearest_point_and_projects_it_to_the_budget() -> None:
    def closer(pictures: Tensor, labels: Tensor) -> Walk:
        for by in (0.2, 0.05, 0.1):
            answer = yield Query(everyone(pictures), pictures + by)
            assert not answer.settled.any()

    found, _ = fight(Scripted(script=closer, minimizes=True))
    # 0.05 fells the first 50; of those the projection to 0.03 still fells the first 30.
    expected = [0.03 if number < 30 else 0.05 if number < 50 else 0.1 for number in range(COUNT)]
    assert [norm for norm, *_ in found] == pytest.approx(expected, abs=1e-6)


def test_what_leaves_the_unit_box_is_clipped_before_it_is_asked() -> None:
    seen: list[float] = []

    class Watching(Brightness):
        def forward(self, pictures: Tensor) -> Tensor:
            seen.append(float(pictures.max()))
            return super().forward(pictures)

    fight(Scripted(script=brighter(5.0), eps=1.0), module=Watching())
    assert max(seen) <= 1


class Lying(TorchSubject):
    """Its gradients come with logits that claim that everything has fallen."""

    def differentiable(self) -> nn.Module:
        class Claims(nn.Module):
            def forward(self, pictures: Tensor) -> Tensor:
                return Brightness()(pictures).flip(1)

        return Claims()


@pytest.mark.parametrize("loss", [cross_entropy, None], ids=["gradient", "logits"])
@pytest.mark.parametrize(("minimizes", "asked"), [(False, COUNT), (True, 4 * COUNT)])
def test_the_artifact_decides_what_fell_whatever_the_copy_claims(loss, asked: int, *, minimizes: bool) -> None:
    target = CountedTarget(Lying(Brightness(), CPU), 2, "case")
    pictures = images()
    ledgers: list[Ledger] = []
    batch = Batch(
        numbers=everyone(pictures), images=pictures, labels=torch.zeros(COUNT, dtype=torch.int64), seeds=range(COUNT)
    )

    def script(pictures: Tensor, labels: Tensor) -> Walk:
        answer = yield Query(everyone(pictures), pictures, loss and loss(labels))
        assert not answer.settled.any()

    attack = Scripted(script=script, minimizes=minimizes)
    Arena(target, attack, size=64).fight(iter([batch]), lambda batch, ledger: ledgers.append(ledger))
    assert not ledgers[0].fallen.any()
    assert ledgers[0].norms.isinf().all()
    # Each claim was put to the artifact; a minimum-norm attack's as far out as claims are moved.
    assert target.queries == asked + (COUNT if loss is None else 0)


class Shifted(TorchSubject):
    """Its faster copy has the boundary a little nearer than the artifact's: a share of the way to it."""

    def __init__(self, share: float) -> None:
        super().__init__(Brightness(), CPU)
        self.share = share

    def differentiable(self) -> nn.Module:
        share = self.share

        class Nearer(nn.Module):
            def forward(self, pictures: Tensor) -> Tensor:
                score = 10 * (pictures.mean((1, 2, 3)) - GREY + share * 0.02)
                return torch.stack([-score, score], dim=1)

        return Nearer()


@pytest.mark.parametrize(
    ("share", "asked", "norm"), [(0.0005, 2, 0.02 * 1.001), (0.005, 3, 0.02 * 1.01), (0.2, 4, None)]
)
def test_a_claim_that_rounding_makes_false_is_moved_out_until_the_artifact_confirms_it(share, asked, norm) -> None:
    target = CountedTarget(Shifted(share), 2, "case")
    # The copy is wrong about the point 0.02 away, halfway between its boundary and the artifact's.
    pictures = torch.full((1, 3, 4, 4), GREY - 0.02 * (1 + share / 2))
    ledgers: list[Ledger] = []
    batch = Batch(numbers=torch.arange(1), images=pictures, labels=torch.zeros(1, dtype=torch.int64), seeds=[0])

    def script(pictures: Tensor, labels: Tensor) -> Walk:
        answer = yield Query(everyone(pictures), pictures + 0.02, cross_entropy(labels))
        assert answer.adversarial.all()  # by the copy

    attack = Scripted(script=script, minimizes=True)
    Arena(target, attack, size=64).fight(iter([batch]), lambda batch, ledger: ledgers.append(ledger))
    assert target.queries == asked
    assert float(ledgers[0].norms[0]) == (pytest.approx(norm, rel=1e-4) if norm else float("inf"))


def test_an_exact_query_is_answered_by_the_artifact_alone() -> None:
    target = CountedTarget(Lying(Brightness(), CPU), 2, "case")
    pictures = images()
    batch = Batch(
        numbers=everyone(pictures), images=pictures, labels=torch.zeros(COUNT, dtype=torch.int64), seeds=range(COUNT)
    )
    claimed: list[int] = []

    def script(pictures: Tensor, labels: Tensor) -> Walk:
        for exact in (True, False):
            answer = yield Query(everyone(pictures), pictures, exact=exact)
            claimed.append(int((answer.logits.argmax(1) != labels).sum()))

    Arena(target, Scripted(script=script), size=64).fight(iter([batch]), lambda _, ledger: None)
    assert claimed == [0, COUNT]


@pytest.mark.parametrize("size", [8, 16, 32])
def test_the_batch_is_refilled_as_samples_fall(size: int) -> None:
    calls: list[int] = []
    begun: list[int] = []

    class Counting(Brightness):
        def forward(self, pictures: Tensor) -> Tensor:
            calls.append(len(pictures))
            return super().forward(pictures)

    def steps(pictures: Tensor, labels: Tensor) -> Walk:
        begun.append(len(calls))
        rows, points = everyone(pictures), pictures
        while len(rows):
            points = points + 0.003  # of a walk's four neighbours, three fall together
            answer = yield Query(rows, points, exact=True)
            rows, points = rows[~answer.settled], points[~answer.settled]

    found, _ = fight(Scripted(script=steps, eps=0.07), module=Counting(), size=size, part=4)
    assert all(norm < 1 for norm, *_ in found)
    while_more = calls[: begun[-1]]
    assert len(while_more) >= 3
    assert min(while_more) > size - 4
    assert max(calls) < size + 4


def test_the_outcome_does_not_depend_on_the_batch() -> None:
    attack = Pgd(eps=0.03, steps=5)
    first, _ = fight(attack, size=64, part=16)
    for size, part in ((60, 60), (7, 3), (1, 1)):
        other, _ = fight(attack, size=size, part=part)
        assert [label for _, label, *_ in other] == [label for _, label, *_ in first]
        assert [norm for norm, *_ in other] == pytest.approx([norm for norm, *_ in first], abs=1e-6)


def test_walks_with_other_losses_share_a_batch_and_each_has_its_own_gradients() -> None:
    got: dict[int, Tensor] = {}

    def script(pictures: Tensor, labels: Tensor) -> Walk:
        first = round((GREY - 0.0005 - float(pictures[0].mean())) * 1000) // 8
        if first % 2:
            answer = yield Query(everyone(pictures), pictures, lambda logits: logits[:, 1])
        else:
            answer = yield Query(everyone(pictures), pictures, lambda logits: logits * torch.tensor([1.0, 3.0]))
        got[first] = answer.gradient

    _, target = fight(Scripted(script=script), size=64, part=8)
    unit = 10 / 48
    for first, gradient in got.items():
        if first % 2:
            torch.testing.assert_close(gradient, torch.full_like(gradient, unit))
        else:
            torch.testing.assert_close(gradient[:, 0], torch.full_like(gradient[:, 0], -unit))
            torch.testing.assert_close(gradient[:, 1], torch.full_like(gradient[:, 1], 3 * unit))
    assert len(got) == 8
    assert target.gradients == COUNT


def test_where_most_fall_the_artifact_is_asked_first_and_no_gradient_is_wasted() -> None:
    def script(pictures: Tensor, labels: Tensor) -> Walk:
        rows = everyone(pictures)
        answer = yield Query(rows, pictures, cross_entropy(labels))
        answer = yield Query(rows, pictures + 0.0595, cross_entropy(labels))
        left = ~answer.settled
        if left.any():
            yield Query(rows[left], pictures[left] + 0.06, cross_entropy(labels[left]))

    found, target = fight(Scripted(script=script, eps=0.06), size=8, part=8)
    assert all(norm < 1 for norm, *_ in found)
    # The first walk cannot know; of the others' samples only the last, at 0.0595 exactly, is asked for its gradient.
    assert target.gradients <= COUNT + 8 + 2


def nothing(pictures: Tensor, labels: Tensor) -> Walk:
    yield from ()


def endless(pictures: Tensor, labels: Tensor) -> Walk:
    while True:
        yield Query(everyone(pictures), pictures)


def endless_climb(pictures: Tensor, labels: Tensor) -> Walk:
    while True:
        yield Query(everyone(pictures), pictures, cross_entropy(labels))


def nan(pictures: Tensor, labels: Tensor) -> Walk:
    yield Query(everyone(pictures), pictures * float("nan"))


def misshapen(pictures: Tensor, labels: Tensor) -> Walk:
    yield Query(everyone(pictures), pictures[:, :, :2])


def test_an_attack_that_asks_nothing_fells_nothing() -> None:
    found, target = fight(Scripted(script=nothing))
    assert all(norm == float("inf") for norm, *_ in found)
    assert target.queries == 0


@pytest.mark.parametrize(
    ("script", "caps", "message"),
    [
        (endless, Caps(queries=30), "asked 30 times about one sample and is not done"),
        (endless_climb, Caps(queries=30), "asked 30 times about one sample and is not done"),
        (endless, Caps(seconds=0.05), r"took longer than 0\.05 s and is not done"),
        (nan, Caps(), "NaN or infinity"),
        (misshapen, Caps(), r"asked about \(8, 3, 2, 4\) for 8 samples"),
    ],
)
def test_a_broken_attack_is_an_error_and_no_robustness(script, caps: Caps, message: str) -> None:
    with pytest.raises(MeasurementError, match=f"^case: the attack .*{message}"):
        fight(Scripted(script=script), caps=caps)


def test_among_passes_queries_on_under_the_samples_own_numbers() -> None:
    def script(pictures: Tensor, labels: Tensor) -> Walk:
        chosen = torch.arange(1, len(pictures), 2)
        standing = yield from among(chosen, brighter(0.02)(pictures[chosen], labels[chosen]))
        seen.append(standing.tolist())

    seen: list[list[int]] = []
    found, _ = fight(Scripted(script=script), part=COUNT, size=COUNT)
    assert [number for number in range(COUNT) if found[number][0] < 1] == list(range(1, 20, 2))
    assert seen == [list(range(21, COUNT, 2))]


def test_what_a_library_asks_of_the_module_itself_is_counted() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Library:
        needs_gradient: ClassVar[bool] = True
        minimizes: ClassVar[bool] = False
        norm: str = "linf"
        eps: float = 0.03

        def run(self, pictures: Tensor, labels: Tensor, draws, target) -> Walk:
            module = target.module()
            with torch.enable_grad():
                leaf = pictures.requires_grad_()
                (gradient,) = torch.autograd.grad(module(leaf)[:, 1].sum(), leaf)
            yield Query(everyone(pictures), pictures.detach() + 0.02 * gradient.sign())

    found, target = fight(Library())
    assert sum(norm < 1 for norm, *_ in found) == 20
    # What has fallen was confirmed.
    assert (target.queries, target.gradients) == (2 * COUNT + 20, COUNT)
    assert [(queries, gradients) for _, _, queries, gradients in found] == 20 * [(3, 1)] + 40 * [(2, 1)]
