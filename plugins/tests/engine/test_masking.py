"""Planted faults: every way to hide a gradient is caught by the check meant for it; the plain networks pass all six."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from robustgate.config import Masking, load
from robustgate.core.components import Answer, Samples
from robustgate.core.errors import ConfigurationError, MeasurementError
from robustgate.core.losses import cross_entropy
from robustgate.core.records import Case, CaseResult
from robustgate.domains.digits import Digits
from robustgate.domains.npz import Npz
from robustgate.engine.adversarial import Terms
from robustgate.engine.course import train
from robustgate.engine.draws import SampleDraws
from robustgate.engine.gate import Gate
from robustgate.engine.judge_masking import CHECKS
from robustgate.engine.masking import FACTORS, WALKS, MaskingChecks, Trial, first_right, measure_masking
from robustgate.engine.measure import Outcome
from robustgate.engine.plan import Plan, make_plan
from robustgate.engine.rescaled import HEALTHY, Rescaled, rescaled
from robustgate.engine.subjects import CountedTarget, OnnxSubject, TorchSubject
from robustgate.statistics.paired import PairedCounts
from robustgate.training.supervised import Supervised
from robustgate.zoo import cifar_resnet

CPU = torch.device("cpu")
WEIGHTS = Path(__file__).parents[3] / "fixtures" / "models"
# At this budget a third of the plain network's samples stands; at twice as much, nearly none.
SETTINGS = Masking(samples=32, steps=6, queries=100)
LINF = MaskingChecks(norm="linf", eps=0.04, settings=SETTINGS)
L2 = MaskingChecks(norm="l2", eps=0.8, settings=SETTINGS)
BRIEF = MaskingChecks(norm="linf", eps=0.04, settings=Masking(samples=12, steps=3, queries=10))


class Normalized(nn.Module):
    def __init__(self, network: nn.Module, mean: Any = 0.5, std: Any = 0.5) -> None:
        super().__init__()
        self.network = network
        self.mean, self.std = (torch.tensor(one).reshape(-1, 1, 1) for one in (mean, std))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


class Scaled(nn.Module):
    """Logits times a constant: every decision stays, the softmax saturates."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * self.network(images)


class Rounded(nn.Module):
    """Images rounded to a few levels, which has no slope; with a ripple of a thousandth, a slope that says nothing."""

    def __init__(self, network: nn.Module, ripple: float = 0.0, levels: int = 8) -> None:
        super().__init__()
        self.network, self.ripple, self.levels = network, ripple, levels

    def forward(self, images: Tensor) -> Tensor:
        rounded = (images * self.levels).round() / self.levels
        return self.network(rounded + self.ripple * torch.sin(1e6 * images))


@cache
def digits(style: str = "scene", split: str = "test") -> Samples:
    return Digits(style=style).load(split)  # type: ignore[arg-type]


@cache
def plain(style: str = "scene") -> nn.Module:
    """One of the embedded gate's trained references."""
    network = cifar_resnet(depth=8, width=16, num_classes=10)
    network.load_state_dict(load_file(WEIGHTS / f"resnet8-{style}.safetensors"))
    return Normalized(network).eval()


@cache
def student() -> nn.Module:
    """A student distilled at temperature 100 from a teacher trained at it, and used at 1 (Papernot et al. 2016).

    At its temperature it learns what any student learns; its logits at 1 are a hundred times as large.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Scaled(Normalized(cifar_resnet(depth=8, width=8, num_classes=10)), 100.0)
    teacher = Scaled(plain(), 100.0)

    def objective(images: Tensor, logits: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            taught = functional.log_softmax(teacher(images) / 100, dim=1)
        soft = functional.log_softmax(logits / 100, dim=1)
        return functional.kl_div(soft, taught, reduction="batchmean", log_target=True)

    recipe = Supervised(epochs=6, lr=0.1, batch_size=16, shift=0)
    return train(module, recipe, digits(split="train"), objective=objective)


def measure(module: nn.Module, checks: MaskingChecks = LINF, samples: Samples | None = None, **given: Any) -> Outcome:
    subject = TorchSubject(module, CPU)
    return measure_masking(subject, samples or digits(), "case", lambda *_: None, checks, 3, **given)


@cache
def undisguised(checks: MaskingChecks = LINF, style: str = "scene") -> Outcome:
    """What the checks find of a plain network."""
    return measure(plain(style), checks, digits(style))


def masked(outcome: Outcome, checks: MaskingChecks = LINF) -> set[str]:
    """Return the checks that fail."""
    counts = {name: PairedCounts(**found) for name, found in outcome.details["checks"].items()}
    assert counts.keys() == CHECKS.keys()
    return {name for name, found in counts.items() if found.drop > checks.settings.tolerance}


def share(outcome: Outcome, name: str) -> float:
    return PairedCounts(**outcome.details["checks"][name]).drop


# Planted faults.


@pytest.mark.parametrize(
    ("style", "checks"),
    [("scene", LINF), ("scene", L2), ("handwritten", LINF), ("printed", LINF)],
    ids=["scene linf", "scene l2", "handwritten", "printed"],
)
def test_a_plain_network_passes_all_six(style: str, checks: MaskingChecks) -> None:
    outcome = undisguised(checks, style)
    assert masked(outcome, checks) == set()
    assert outcome.details["attacked"] == 32


def test_the_published_resnet20_passes_all_six(real_data: Path) -> None:
    network = cifar_resnet(depth=20, num_classes=10)
    network.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"))
    module = Normalized(network, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).eval()
    samples = Npz(files={"test": real_data / "cifar" / "cifar10_test_2000.npz"}).load("test")
    checks = MaskingChecks(norm="linf", eps=1 / 255, settings=Masking(samples=20, steps=5, queries=60))
    assert masked(measure(module, checks, samples), checks) == set()
    loud = measure(Scaled(module, 1000), checks, samples)
    assert {"zero gradient", "unbounded budget"} <= masked(loud, checks)


def test_logits_a_thousand_times_as_large_are_caught() -> None:
    outcome = measure(Scaled(plain(), 1000))
    assert {"zero gradient", "loss scale", "unbounded budget"} <= masked(outcome)
    assert share(outcome, "zero gradient") == 1.0
    # Every decision is the plain network's: what stands under all attacks together does not change with the mask.
    assert abs(outcome.details["fallen"] - undisguised().details["fallen"]) <= 2


def test_a_student_of_temperature_100_is_caught() -> None:
    subject = TorchSubject(student(), CPU)
    images = torch.tensor(digits().images).permute(0, 3, 1, 2) / 255
    assert float((subject.logits(images).argmax(1).numpy() == digits().labels).mean()) > 0.8
    assert {"zero gradient", "loss scale"} <= masked(measure(student()))
    # The same student at its own temperature hides nothing.
    assert masked(measure(student().network)) == set()  # type: ignore[arg-type]


def test_a_quantizer_without_slope_is_caught() -> None:
    outcome = measure(Rounded(plain()))
    assert {"zero gradient", "unbounded budget", "gradient-free"} <= masked(outcome)


def test_a_quantizer_whose_slope_misleads_is_caught_by_the_attack_without_gradients() -> None:
    outcome = measure(Rounded(plain(), ripple=1e-3))
    assert share(outcome, "zero gradient") == 0
    assert "gradient-free" in masked(outcome)
    # The plain network's robust accuracy is far lower: this is what the gradient hid.
    assert outcome.details["fallen"] < undisguised().details["fallen"] / 2


class Turned(torch.autograd.Function):
    """The identity, whose gradient is turned around further than `reach` from the nearest of some images."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, known: Tensor, reach: float) -> Tensor:
        distances = (images[:, None] - known[None]).abs().flatten(2).amax(dim=2).amin(dim=1)
        ctx.turned = (distances > reach)[:, None, None, None]
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return torch.where(ctx.turned, -gradient, gradient), None, None


def test_a_gradient_that_turns_around_away_from_the_images_is_caught_as_not_monotone() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(90, 166, (40, 4, 4, 3), generator=generator, dtype=torch.uint8)
    images = pixels.permute(0, 3, 1, 2).float() / 255
    weight = torch.randn(48, 2, generator=generator)
    weight -= weight.mean(dim=0)

    class Linear(nn.Module):
        turns = True

        def forward(self, x: Tensor) -> Tensor:
            x = Turned.apply(x, images, 0.05) if self.turns else x  # type: ignore[no-untyped-call]
            return x.flatten(1) @ weight

    module = Linear()
    labels = module(images).argmax(dim=1)
    samples = Samples(images=pixels.numpy(), labels=labels.numpy(), classes=("a", "b"), names=("",) * 40)
    checks = MaskingChecks(norm="linf", eps=0.08, settings=SETTINGS)
    assert "monotone" in masked(measure(module, checks, samples), checks)
    module.turns = False
    assert masked(measure(module, checks, samples), checks) == set()


# What each check counts, from planted walks.


class Planted(Trial):
    """A trial whose walks are written down: which samples stand under each."""

    def __init__(self, stood: dict[str, list[int]], tolerance: float = 0.02) -> None:
        count = 10
        pixels = np.zeros((count, 2, 2, 3), np.uint8)
        samples = Samples(images=pixels, labels=np.zeros(count, np.int64), classes=("a", "b"), names=("",) * count)
        checks = MaskingChecks(norm="linf", eps=0.1, settings=Masking(tolerance=tolerance))
        target: Any = None
        super().__init__(target, samples, checks, 0, Terms(), lambda *_: None)
        self.stood = stood
        self.asked: dict[str, list[int]] = {}

    def stand(self, walk: str, attack: Any, among: np.ndarray) -> np.ndarray:
        self.asked[walk] = np.flatnonzero(among).tolist()
        return np.isin(np.arange(10), self.stood.get(walk, [])) & among

    def zero_gradient(self) -> np.ndarray:
        return np.isin(np.arange(10), self.stood.get("zero gradient", []))


def counts(n: int, lost: int, gained: int) -> PairedCounts:
    return PairedCounts(n=n, lost=lost, gained=gained)


AT = {factor: f"pgd at {factor:g} eps" for factor in FACTORS}


def test_each_check_counts_what_its_walks_say() -> None:
    walks = {
        AT[0.25]: [0, 1, 2, 3, 4, 5],
        AT[0.5]: [0, 1, 2, 3, 6, 7, 8],
        AT[1.0]: [0, 1, 2, 3],
        AT[2.0]: [0, 1],
        AT[8.0]: [1, 8, 9],
        "pgd unbounded": [5, 6, 7],
        "zero gradient": [1, 9],
        "gradient-free at 1 eps": [1, 2, 3],
        "gradient-free at 1 eps, others": [9],
        "gradient-free at 8 eps": [1],
        "gradient-free at 8 eps, others": [4],
        "more steps": [4, 5, 6],
        "more steps, others": [0],
        "pgd on dlr": [0, 7, 8],
        "pgd on rescaled logits": [2],
    }
    trial = Planted(walks)
    assert trial.checked() == {
        "unbounded budget": counts(10, 3, 0),
        "more steps": counts(10, 3, 3),  # 4, 5, 6 fell under fewer steps; 1, 2, 3 fall under more
        "gradient-free": counts(10, 2, 1),  # far off 8, 9 fall without gradients, 4 does not; nearer 0, and not 9
        "monotone": counts(10, 3, 2),  # from a quarter to a half of eps: 6, 7, 8 rise, 4, 5 fall
        "loss scale": counts(10, 2, 2),  # of 1, 2, 3 the scale is not to blame for 2; 7, 8 stand under DLR alone
        "zero gradient": counts(10, 2, 0),
    }
    assert trial.asked["more steps"] == [4, 5, 6, 7, 8, 9]
    assert trial.asked["pgd on rescaled logits"] == [1, 2, 3]


def test_what_cannot_fail_a_check_is_not_attacked() -> None:
    everyone = list(range(10))
    trial = Planted(
        {AT[0.25]: everyone, AT[0.5]: everyone, AT[1.0]: [0, 1], "pgd on dlr": [0, 1], "gradient-free at 1 eps": [0, 1]}
    )
    assert all(found.drop <= 0.02 for found in trial.checked().values())
    free = {"gradient-free at 1 eps", "gradient-free at 8 eps"}
    assert set(trial.asked) == {*AT.values(), "pgd unbounded", "more steps", *free, "pgd on dlr"}
    assert len(trial.asked) == WALKS
    # With one more sample allowed, one is not looked at twice.
    assert "more steps, others" in spoilt(0.02).asked
    assert "more steps, others" not in spoilt(0.1).asked


def spoilt(tolerance: float) -> Planted:
    trial = Planted({AT[1.0]: [0], "more steps": [4]}, tolerance)
    trial.checked()
    return trial


# The measuring.


def test_the_value_is_that_of_all_attacks_within_eps_together() -> None:
    outcome = undisguised()
    details = outcome.details
    within = [walk for walk in details["walks"].values() if walk["eps"] <= LINF.eps and walk["attacked"] == 32]
    assert len(within) == 4
    standing = details["attacked"] - details["fallen"]
    assert 0 < standing == outcome.correct.sum() <= min(walk["stood"] for walk in within)
    assert outcome.norms is not None
    assert float(outcome.norms[~outcome.correct].max()) <= LINF.eps + 1e-6
    assert np.isinf(outcome.norms[outcome.correct]).all()


@pytest.mark.parametrize("checks", [LINF, L2], ids=["linf", "l2"])
def test_every_gradient_and_query_is_told(checks: MaskingChecks, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: dict[str, int] = {"gradient": 0, "logits": 0, "glance": 0}
    for name in spent:
        asked: Callable[..., Any] = getattr(CountedTarget, name)

        def counted(self: CountedTarget, images: Tensor, *given: Any, asked: Any = asked, name: str = name) -> Any:
            spent[name] += len(images)
            return asked(self, images, *given)

        monkeypatch.setattr(CountedTarget, name, counted)
    outcome = measure(plain(), checks)
    details = outcome.details
    assert details["gradients"] == spent["gradient"] == outcome.gradients.sum()  # type: ignore[union-attr]
    assert details["queries"] == sum(walk["queries"] for walk in details["walks"].values())
    choosing = spent["logits"] + spent["glance"] - details["queries"]
    assert 0 < choosing <= 128  # the first batch of the split held enough that are right
    # Seven walks of 6 steps, one of 24, one gradient at the image: of these 67 about a sample it takes less than half.
    assert details["gradients"] <= 32 * 67 / 2


def test_batches_do_not_change_a_trial() -> None:
    whole, parts = measure(plain(), BRIEF), measure(plain(), BRIEF, terms=Terms(size=5))
    assert np.array_equal(whole.predictions, parts.predictions)
    assert whole.details["checks"] == parts.details["checks"]


def test_variants_are_asked_about_the_same_samples() -> None:
    samples = digits()
    order = np.random.Generator(np.random.PCG64DXSM(5)).permutation(len(samples))
    for module in (plain(), Rounded(plain(), levels=2)):
        target = CountedTarget(TorchSubject(module, CPU), 10, "case")
        chosen = first_right(target, samples, 30, 5)
        images = torch.tensor(samples.images).permute(0, 3, 1, 2) / 255
        right = target.subject.logits(images).argmax(dim=1).numpy() == samples.labels
        expected = [row for row in order if right[row]][:30]
        assert chosen.names == tuple(samples.names[row] for row in expected)
        assert np.array_equal(chosen.images, samples.images[expected])
    few = Masking(samples=10_000, steps=1, queries=1)
    part = Samples(**(vars(samples) | {"images": samples.images[:9], "labels": samples.labels[:9]}))
    outcome = measure(plain(), MaskingChecks(norm="linf", eps=0.04, settings=few), part)
    assert outcome.details["attacked"] <= 9, "all that are right, where there are fewer than asked for"


def test_a_network_that_is_never_right_cannot_be_checked() -> None:
    samples = digits()
    wrong = Samples(**(vars(samples) | {"labels": np.full(len(samples), 3)}))
    with pytest.raises(MeasurementError, match="case: none of 467 samples is classified right: nothing to attack"):
        measure(OneHot(), LINF, wrong)


class OneHot(nn.Module):
    """Says 7 to everything."""

    def forward(self, images: Tensor) -> Tensor:
        return functional.one_hot(torch.full((len(images),), 7), 10).float() + 0 * images.mean((1, 2, 3))[:, None]


def test_a_gradient_that_does_not_flow_or_is_no_number_is_an_error() -> None:
    class Detached(Scaled):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).detach()

    class Broken(Scaled):
        def forward(self, images: Tensor) -> Tensor:
            zero = images - images.detach()
            return super().forward(images) + zero.abs().sqrt().sum((1, 2, 3))[:, None]

    with pytest.raises(MeasurementError, match="none flow from the logits to the images"):
        measure(Detached(plain(), 1.0))
    with pytest.raises(MeasurementError, match="the gradient holds NaN or infinity"):
        measure(Broken(plain(), 1.0))


def test_an_artifact_without_gradient_is_attacked_without() -> None:
    outcome = measure(plain(), BRIEF, missing="model.onnx has none")
    assert outcome.details["no_gradient"] == "model.onnx has none"
    assert "checks" not in outcome.details
    (walk,) = outcome.details["walks"].values()
    assert outcome.details["gradients"] == 0
    assert (walk["eps"], walk["attacked"], walk["gradients"]) == (LINF.eps, 12, 0)


def test_a_file_is_checked_through_its_twin_and_without_one_only_attacked(
    tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    int8 = '\n[compressions.int8]\nsteps = [{ method = "static_quantization" }]\n'
    path = tiny.configure((OFF, "[masking]\nsamples = 40\nsteps = 6\nqueries = 10\n"), extra=int8)

    def result() -> CaseResult:
        gate = Gate(make_plan(load(path)), today=date(2026, 1, 1))
        return gate.result(next(case for case in checked(gate.plan) if case.name == "tiny-int8-day-linf"))

    twin = result()
    assert len(twin.findings) == len(CHECKS)
    assert twin.details["gradients"] > 40
    # The artifact is asked about every point whose gradient is the twin's.
    assert all(walk["queries"] >= walk["gradients"] for walk in twin.details["walks"].values())

    def none(self: OnnxSubject) -> nn.Module:
        raise self.without_gradient("planted")

    monkeypatch.setattr(OnnxSubject, "differentiable", none)
    tiny.configure((OFF, "[masking]\nsamples = 30\nqueries = 10\n"), extra=int8)
    blind = result()
    assert blind.details["no_gradient"].endswith("planted")
    assert (blind.verdict, blind.findings, blind.details["gradients"], blind.n) == ("pass", (), 0, 30)


def test_progress_rises_to_the_end_of_the_last_walk() -> None:
    heard: list[tuple[int, int]] = []
    subject = TorchSubject(plain(), CPU)
    measure_masking(subject, digits(), "case", lambda done, total: heard.append((done, total)), BRIEF, 3)
    assert {total for _, total in heard} == {WALKS * 12}
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert heard[-1][0] == WALKS * 12


# Logits scaled down.


def test_a_network_of_small_logits_is_walked_on_as_without_scaling() -> None:
    labels = torch.tensor([0, 2])
    logits = torch.tensor([[4.0, 1.0, -5.0], [3.0, 0.0, 3.0 + HEALTHY]], requires_grad=True)
    assert torch.equal(rescaled(labels)(logits), cross_entropy(labels)(logits))
    for factor in (1e2, 1e5):
        # However large, they are those of the margin that is healthy, and their gradient points as it did.
        large = (factor * logits).detach().requires_grad_()
        rescaled(labels)(large).sum().backward()
        small = (logits * HEALTHY / torch.tensor([[3.0], [HEALTHY]])).detach().requires_grad_()
        cross_entropy(labels)(small).sum().backward()
        assert large.grad is not None
        assert small.grad is not None
        ours, theirs = (one.grad / one.grad.norm(dim=1, keepdim=True) for one in (large, small))
        torch.testing.assert_close(ours, theirs)


def test_a_rescaled_walk_asks_about_the_points_of_the_inner_one() -> None:
    attack = LINF.pgd()
    images, labels = torch.full((3, 3, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)

    def points(one: Any) -> list[Tensor]:
        walk = one.run(images, labels, SampleDraws([1, 2, 3]), None)
        found = [next(walk)]
        for step in range(100):
            gone = torch.tensor([step > 2, False, False])[: len(found[-1].rows)]
            gradient = torch.full_like(found[-1].points, float(step % 2) - 0.5)
            try:
                found.append(walk.send(Answer(torch.zeros(len(gone), 2), gradient, gone, gone & (step == 3))))
            except StopIteration:
                break
        assert [query.loss is None for query in found] == [False] * attack.steps + [True]
        return [query.points for query in found]

    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(points(attack), points(Rescaled(inner=attack)), strict=True)
    )
    assert (Rescaled(inner=attack).norm, Rescaled(inner=attack).eps) == (attack.norm, attack.eps)


def test_budgets_of_the_checks() -> None:
    assert (LINF.unbounded(3072).eps, L2.unbounded(3072).eps) == (1.0, pytest.approx(55.4256))
    wide = MaskingChecks(norm="linf", eps=0.6, settings=Masking())
    assert [wide.budget(factor) for factor in FACTORS] == [0.15, 0.3, 0.6, 1.0, 1.0]
    assert (wide.gradient_free(2.0).eps, wide.gradient_free(2.0).queries) == (1.0, 200)


# The plan.

OFF = "[masking]\nenabled = false\n"


def checked(plan: Plan) -> list[Case]:
    return [case for case in plan.cases if case.shift.kind == "masking"]


def test_every_variant_is_checked_in_every_norm_at_its_largest_budget(planned) -> None:
    more = '\n[attacks.wide]\nmethod = "fgsm"\neps = 0.03\n[attacks.free]\nmethod = "square"\neps = 0.3\n'
    cases = checked(planned((OFF, ""), extra=more))
    compressions = ["none", "control", "fp60", "fp60_ptsq", "fp25"]
    assert [case.name for case in cases] == [
        f"resnet18-{compression}-amazon-{norm}" for compression in compressions for norm in ("linf", "l2")
    ]
    linf, l2 = (case.shift for case in cases[:2])
    assert (linf.name, linf.norm, linf.eps, linf.detail) == ("linf", "linf", 0.03, "linf, eps 0.03")
    assert (l2.eps, l2.phrase) == (0.25, "checked for gradient masking (l2, eps 0.25)")
    assert MaskingChecks.of(linf, Masking()) == MaskingChecks(norm="linf", eps=0.03, settings=Masking())


def test_no_checks_where_no_attack_uses_gradients_or_they_are_switched_off(planned) -> None:
    assert not checked(planned())
    blind = (('method = "pgd"\neps = 0.004\nsteps = 40', 'method = "square"\neps = 0.004'), (OFF, ""))
    assert [case.shift.name for case in checked(planned(*blind))[:2]] == ["l2", "l2"]


def test_a_file_without_gradient_is_not_checked(planned, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    for name in ("made.tflite", "made.onnx"):
        (tmp_path / name).touch()
    files = "".join(
        f'\n[compressions.{suffix}]\nsteps = [{{ method = "artifact", files = {{ resnet18 = {{ amazon = "made.{suffix}"'
        " } } }]\n"
        for suffix in ("tflite", "onnx")
    )
    plan = planned((OFF, ""), extra=files)
    assert {"tflite", "onnx"} <= {case.variant.compression for case in plan.cases}
    compressions = {case.variant.compression for case in checked(plan)}
    assert "tflite" not in compressions
    assert "onnx" in compressions


def test_rules_for_accuracies_leave_the_checks_alone_unless_they_name_them(planned) -> None:
    plan = planned((OFF, ""))
    assert all("masking" not in [rule.name for rule in rules] for rules in plan.policies[0].case_rules.values())
    assert not any(plan.policies[0].case_rules.get(case.name) for case in checked(plan)), "the floor for all cases"
    assert all(plan.opponents(case) == {} for case in checked(plan))
    rule = '\n[[policies.edge.rules]]\nname = "stands"\nmin = 0.1\nwhere = { kind = "masking", norm = "l2" }\n'
    named = planned((OFF, ""), extra=rule)
    assert [case.name for case in checked(named) if named.policies[0].case_rules.get(case.name)] == [
        case.name for case in checked(named) if case.shift.norm == "l2"
    ]
    with pytest.raises(ConfigurationError, match="rule 'stands' selects no case"):
        planned((OFF, ""), extra=rule.replace("min", "max_drop"))


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("samples = 0", "masking: samples must be at least 1, got 0; enabled = false switches the checks off"),
        ("tolerance = 2", "masking: tolerance must be a fraction in [0, 1), got 2"),
        ("sample = 5", "masking: unknown key 'sample' (did you mean 'samples'?)"),
    ],
)
def test_impossible_settings_are_told(planned, table: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned(("enabled = false", table))
    assert caught.value.problems[0].startswith(problem)
