"""Artifacts without gradients of their own: three figures, the worst per sample; and the worst of several attacks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from robustgate.attacks.ddn import Ddn
from robustgate.attacks.fgsm import Fgsm
from robustgate.attacks.pgd import Pgd
from robustgate.config import load
from robustgate.core.components import Query, Reading, Samples
from robustgate.core.errors import ConfigurationError, MeasurementError
from robustgate.core.images import take
from robustgate.core.records import Case
from robustgate.engine.adversarial import WALKS, Terms, measure_adversarial
from robustgate.engine.examples import Examples
from robustgate.engine.figures import FIGURES, measure_transferred, missing_gradient, unite, worst_attack
from robustgate.engine.gate import Gate
from robustgate.engine.measure import Outcome
from robustgate.engine.measured import Joined, Part
from robustgate.engine.plan import make_plan
from robustgate.engine.subjects import OnnxSubject, TorchSubject, load_file

CPU = torch.device("cpu")
SIDE = 4
VALUES = 3 * SIDE * SIDE


# What several attacks did, together.


def drawn_part(folder: Path, count: int, seed: int, clean: np.ndarray) -> Part:
    """A made-up outcome of an attack on samples of which `clean` are right without it, and its examples."""
    random = np.random.default_rng(seed)
    folder.mkdir()
    fell = clean & (random.random(count) < 0.5)
    norms = np.where(clean, np.where(fell, random.random(count), np.inf), 0).astype(np.float32)
    # The example of a sample tells whose it is: the attack's number, and the sample's.
    with Examples(folder, count, (3, 2, 2)) as examples:
        for row in random.permutation(np.flatnonzero(fell)):
            examples.add(np.array([row]), torch.full((1, 3, 2, 2), seed + row / count))
    costs = {name: random.integers(0, 9, count) for name in ("queries", "gradients")}
    predictions = np.where(clean & ~fell, 0, seed)
    zeros = np.zeros(count, np.int64)
    return Part(
        folder=folder,
        outcome=Outcome(
            labels=zeros, predictions=predictions, details={}, norms=norms, examples=examples.places, **costs
        ),
    )


@pytest.mark.parametrize("comparable", [True, False])
def test_the_worst_is_taken_sample_by_sample(tmp_path: Path, comparable: bool) -> None:
    count = 200
    clean = np.random.default_rng(9).random(count) < 0.9
    parts = {str(seed): drawn_part(tmp_path / str(seed), count, seed, clean) for seed in (1, 2, 3)}
    whole = unite(parts, comparable=comparable)
    united = whole.outcome
    outcomes = {name: part.outcome for name, part in parts.items()}
    for row in range(count):
        fell = [name for name, one in outcomes.items() if not one.correct[row]]
        assert united.correct[row] == (not fell)
        assert united.queries[row] == sum(one.queries[row] for one in outcomes.values())
        assert united.gradients[row] == sum(one.gradients[row] for one in outcomes.values())
        if comparable:
            assert united.norms[row] == min(one.norms[row] for one in outcomes.values())
        if not fell or not clean[row]:
            assert not whole.has_example[row]
            continue
        felled_by = min(fell, key=lambda name: outcomes[name].norms[row]) if comparable else fell[0]
        assert united.predictions[row] == int(felled_by)
        assert whole.points(np.array([row])).unique().item() == pytest.approx(int(felled_by) + row / count)
    assert united.details["attacked"] == clean.sum()
    assert united.details["fallen"] == (clean & ~united.correct).sum() == whole.has_example.sum()
    assert (united.norms is None) == (not comparable)
    assert ("largest_norm" in united.details) == comparable


def test_the_worst_attack_tells_each_alone(tmp_path: Path) -> None:
    clean = np.ones(100, np.bool_)
    parts = {name: drawn_part(tmp_path / name, 100, seed, clean) for seed, name in enumerate(("pgd", "square"), 1)}
    outcome = worst_attack(parts, comparable=False).outcome
    assert outcome.details["alone"] == {name: part.outcome.correct.mean() for name, part in parts.items()}
    both = parts["pgd"].outcome.correct & parts["square"].outcome.correct
    assert outcome.details["together"] == both.mean() < min(outcome.details["alone"].values())


def test_a_measurement_without_examples_cannot_be_transferred(tmp_path: Path) -> None:
    zeros = np.zeros(3, np.int64)
    part = Part(outcome=Outcome(labels=zeros, predictions=zeros, details={}), folder=tmp_path)
    with pytest.raises(MeasurementError, match="no adversarial examples were kept"):
        _ = part.has_example
    with pytest.raises(MeasurementError, match="no adversarial examples were kept"):
        part.points(zeros[:1])


# Examples of the reference, asked of the artifact.


class Linear(nn.Module):
    """Two logits, 0 and w·x + b, the plane through the grey image."""

    def __init__(self, seed: int = 1, shift: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(VALUES, generator=torch.Generator().manual_seed(seed)))
        self.bias = nn.Parameter(shift - 0.5 * self.weight.detach().sum())

    def score(self, images: Tensor) -> Tensor:
        return images.flatten(1).double() @ self.weight.double() + self.bias.double()

    def forward(self, images: Tensor) -> Tensor:
        score = self.score(images).float()
        return torch.stack([torch.zeros_like(score), score], dim=1)


def samples_of(network: Linear, count: int = 48) -> tuple[Samples, Tensor]:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(90, 166, (count, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    images = pixels.permute(0, 3, 1, 2).float() / 255
    labels = (network.score(images) > 0).long().numpy()
    return Samples(images=pixels.numpy(), labels=labels, classes=("no", "yes"), names=("",) * count), images


def quiet(*_: object) -> None:
    pass


def attacked(folder: Path, subject, samples: Samples, attack) -> Part:
    folder.mkdir()
    with Examples(folder, len(samples), (3, SIDE, SIDE)) as examples:
        outcome = measure_adversarial(subject, samples, "reference", quiet, attack, 7, examples=examples)
    return Part(outcome=outcome, folder=folder)


@pytest.mark.parametrize(
    "attack", [Fgsm(eps=0.02), Pgd(eps=0.08, norm="l2", steps=40, random_start=False), Ddn(eps=0.08, steps=100)]
)
def test_what_fells_a_reference_fells_its_equal_and_stretched_what_is_a_little_farther(tmp_path: Path, attack) -> None:
    network = Linear()
    samples, images = samples_of(network)
    reference = attacked(tmp_path / "reference", TorchSubject(network, CPU), samples, attack)
    assert 5 < (~reference.outcome.correct).sum() < 43
    same = measure_transferred(TorchSubject(network, CPU), samples, "case", quiet, attack, reference)
    np.testing.assert_array_equal(same.correct, reference.outcome.correct)
    assert same.gradients.sum() == 0
    # The artifact's plane lies a little beyond the reference's: the found points do not reach it, stretched ones do.
    moved = Linear(shift=-0.3)
    labels = (moved.score(images) > 0).long().numpy()
    ours = labels == samples.labels
    outcome = measure_transferred(TorchSubject(moved, CPU), samples, "case", quiet, attack, reference)
    norm = moved.weight.detach().abs().sum() if attack.norm == "linf" else moved.weight.detach().norm()
    distance = (moved.score(images).detach().abs() / norm).numpy()
    fell = ours & ~outcome.correct
    has_one = reference.has_example
    assert not fell[~has_one].any()
    assert not fell[distance > attack.eps + 1e-6].any()
    # At 0.9 of eps: the direction of DDN is the normal's but for a few degrees.
    assert fell[ours & has_one & (distance < 0.9 * attack.eps)].all()
    assert (outcome.norms[fell] <= attack.eps + 1e-6).all()
    assert outcome.queries.max() == 2
    np.testing.assert_array_equal(outcome.norms[~ours], 0)


class Overshooting:
    """Asks once about each sample: within the budget where it is a no, at twice the budget where it is a yes."""

    needs_gradient, minimizes, norm, eps = False, True, "linf", 0.02

    def __init__(self, network: Linear) -> None:
        self.direction = network.weight.detach().sign().reshape(3, SIDE, SIDE)

    def run(self, images, labels, draws, target) -> Iterator[Query]:
        steps = torch.where(labels == 1, -2 * self.eps, 0.99 * self.eps)
        yield Query(torch.arange(len(images)), images + steps[:, None, None, None] * self.direction)


def test_what_only_the_projection_felled_is_told_of_each_sample() -> None:
    network = Linear()
    samples, images = samples_of(network)
    attack, subject = Overshooting(network), TorchSubject(network, CPU)
    nearest = (network.score(images).detach().abs() / network.weight.detach().abs().sum()).numpy()
    # A walk holds but two samples.
    outcome = measure_adversarial(subject, samples, "case", quiet, attack, 7, terms=Terms(size=2 * WALKS))
    yes = samples.labels == 1
    by_norm, projected = ~yes & (nearest < 0.99 * attack.eps), yes & (nearest < attack.eps)
    assert min(by_norm.sum(), projected.sum()) > 3
    np.testing.assert_array_equal(outcome.projected, projected)
    np.testing.assert_array_equal(outcome.correct, ~(by_norm | projected))
    assert (outcome.details["fallen"], outcome.details["fallen_by_norm"]) == (
        (by_norm | projected).sum(),
        by_norm.sum(),
    )


# A twin that answers otherwise than its file.


class Liar:
    """An artifact whose twin leads away from its boundary."""

    has_own_gradient = False
    device = CPU

    def __init__(self, network: Linear) -> None:
        self.network = network
        self.twin = Linear()
        self.twin.weight = nn.Parameter(-network.weight.detach())

    def logits(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.network(images)

    def differentiable(self) -> nn.Module:
        return self.twin


def test_a_twin_that_lies_is_caught_by_the_other_figures(tmp_path: Path) -> None:
    from robustgate.attacks.gradient_free import GradientFree

    network, attack = Linear(), Pgd(eps=0.02, random_start=False)
    samples, images = samples_of(network)
    nearest = (network.score(images).detach().abs() / network.weight.detach().abs().sum()).numpy()
    reference = attacked(tmp_path / "reference", TorchSubject(network, CPU), samples, attack)
    twin = attacked(tmp_path / "twin", Liar(network), samples, attack)
    assert twin.outcome.correct.all()
    transferred = measure_transferred(Liar(network), samples, "case", quiet, attack, reference)
    free = attacked(tmp_path / "free", Liar(network), samples, GradientFree(eps=0.02, queries=400))
    parts = {"twin": twin, "transferred": Part(outcome=transferred, folder=tmp_path), "gradient_free": free}
    outcome = unite(parts, comparable=True).outcome
    np.testing.assert_array_equal(outcome.correct, nearest > 0.02)
    expected = np.all([part.outcome.correct for part in parts.values()], axis=0)
    np.testing.assert_array_equal(outcome.correct, expected)
    # Alone, without a reference that is alike, the gradient-free attack catches it too.
    assert not free.outcome.correct[nearest < 0.006].any()
    assert free.outcome.correct[nearest > 0.02].all()


# Where there is no gradient.


class Mean(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((2, 3))
        if self.kind == "detached":
            return mean.detach()
        return (mean * 20).round() if self.kind == "rounded" else mean


def onnx_file(path: Path, operator: str) -> Path:
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
        helper.make_node(operator, ["mean"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"), [("plain", None), ("detached", "none flow from"), ("rounded", "it is zero at each of 2 images")]
)
def test_a_torchscript_file_is_probed(tmp_path: Path, kind: str, reason: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(Mean(kind)).save(str(tmp_path / "net.pt"))
    subject = load_file(tmp_path / "net.pt", Reading(), "net-vendor-day", CPU, threads=1)
    found = missing_gradient(subject, torch.rand(2, 3, 8, 8))
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith("net-vendor-day: a white-box attack needs gradients, net.pt has none")
        assert reason in found


def test_an_int8_program_has_none(tmp_path: Path) -> None:
    import torch.ao.quantization.fx._decomposed
    from torch.export import export, save

    operators = torch.ops.quantized_decomposed

    class Quantized(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            stored = operators.quantize_per_tensor(images, 0.25, 0, 0, 255, torch.uint8)
            return operators.dequantize_per_tensor(stored, 0.25, 0, 0, 255, torch.uint8).mean((2, 3))

    save(export(Quantized(), (torch.rand(2, 3, 8, 8),)), tmp_path / "int8.pt2")
    subject = load_file(tmp_path / "int8.pt2", Reading(), "net", CPU, threads=1)
    assert "none flow from the logits to the images" in str(missing_gradient(subject, torch.rand(2, 3, 8, 8)))


def test_a_twin_is_a_gradient_and_a_torch_network_is_taken_to_have_one(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 8, 8)
    with_twin = OnnxSubject(onnx_file(tmp_path / "a.onnx", "Sigmoid"), "net", CPU, threads=1)
    without = OnnxSubject(onnx_file(tmp_path / "b.onnx", "Asinh"), "net", CPU, threads=1)
    assert missing_gradient(with_twin, images) is None
    assert "Asinh" in str(missing_gradient(without, images))
    # Detached, it is broken: the attack itself says so, and nothing stands in for it.
    assert missing_gradient(TorchSubject(Mean("detached"), CPU), images) is None


def test_other_errors_are_not_taken_for_a_missing_gradient() -> None:
    class Broken:
        has_own_gradient = False

        def differentiable(self) -> nn.Module:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        missing_gradient(Broken(), torch.rand(2, 3, 8, 8))


# Through a real gate.

INT8 = """
[compressions.int8]
steps = [{ method = "static_quantization", calibration_images = 20 }]
"""
SQUARE = '\n[attacks.square]\nmethod = "square"\neps = 0.02\nqueries = 20\n'
QUERIES = ('cache = "cache"', 'cache = "cache"\ngradient_free_queries = 30')


def open_gate(path: Path) -> Gate:
    return Gate(make_plan(load(path)), today=date(2026, 1, 1))


def case_named(gate: Gate, name: str) -> Case:
    return next(case for case in gate.plan.cases if case.name == name)


def test_an_int8_file_is_measured_by_three_figures_and_the_worst_counts(tiny) -> None:
    gate = open_gate(tiny.configure(QUERIES, extra=INT8))
    case = case_named(gate, "tiny-int8-day-pgd")
    found = gate.result(case)
    parts = {figure: gate.measurements.of(case, figure) for figure in FIGURES}
    standing = np.all([part.outcome.correct for part in parts.values()], axis=0)
    outcome = gate.measurements.of(case).outcome
    np.testing.assert_array_equal(outcome.correct, standing)
    assert found.correct == standing.sum()
    assert found.details["figures"] == {name: part.outcome.correct.mean() for name, part in parts.items()}
    assert found.details["figures"]["twin"] < 1
    assert "no_gradient" not in found.details
    assert found.details["twin_agreement"] > 0.98
    assert parts["transferred"].outcome.queries.max() <= 2
    # One more where a point outside the budget was projected to it.
    assert parts["gradient_free"].outcome.queries.max() <= 31
    total = sum(int(part.outcome.queries.sum()) for part in parts.values())
    assert found.details["queries"] == outcome.queries.sum() == total
    # Every kept example fools the file, within the budget.
    measured = gate.measurements.of(case)
    rows = np.flatnonzero(measured.has_example)
    assert len(rows) == found.details["fallen"]
    points = measured.points(rows)
    samples = take(gate.library.samples("day", "test"), gate.measurements.drawn(case))
    predicted = gate.foundry.subject(case.variant).logits(points).argmax(dim=1).numpy()
    np.testing.assert_array_equal(predicted, outcome.predictions[rows])
    assert (predicted != samples.labels[rows]).all()
    clean = torch.from_numpy(samples.images[rows]).permute(0, 3, 1, 2).float() / 255
    assert float((points - clean).abs().max()) <= 0.02 + 1e-6


SEED = ("[gate]", "[gate]\nseed = 1")


def test_a_twin_that_lies_is_caught_by_the_gate(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    # With some seeds a sample near the budget falls to the twin alone: neither of the other figures goes as far.
    honest = open_gate(tiny.configure(QUERIES, SEED, extra=INT8))
    expected = honest.measurements.of(case_named(honest, "tiny-int8-day-pgd")).outcome.correct
    differentiable = OnnxSubject.differentiable

    class Turned(nn.Module):
        """A twin whose gradient leads away from the boundary."""

        def __init__(self, twin: nn.Module) -> None:
            super().__init__()
            self.twin = twin

        def forward(self, images: Tensor) -> Tensor:
            return -self.twin(images)

    monkeypatch.setattr(OnnxSubject, "differentiable", lambda self: Turned(differentiable(self)))
    gate = open_gate(tiny.configure(('cache = "cache"', 'cache = "other"'), ("[gate]", SEED[1]), extra=INT8))
    figures = gate.result(case_named(gate, "tiny-int8-day-pgd")).details["figures"]
    assert figures["twin"] > expected.mean() + 0.02
    assert figures["transferred"] < figures["twin"]
    found = gate.measurements.of(case_named(gate, "tiny-int8-day-pgd")).outcome.correct
    np.testing.assert_array_equal(found, expected)


def test_a_reference_and_a_network_have_one_figure(tiny) -> None:
    gate = open_gate(tiny.configure())
    for name in ("tiny-none-day-pgd", "tiny-fp25-day-pgd"):
        assert "figures" not in gate.result(case_named(gate, name)).details


def folder_of(measured: Joined) -> Path:
    """The folder of what was measured at once."""
    (part,) = measured.parts
    return part.folder


def test_attacks_of_one_budget_share_the_gradient_free_figure(tiny) -> None:
    same = ("eps = 0.05", "eps = 0.02")
    gate = open_gate(tiny.configure(QUERIES, same, extra=INT8))
    fgsm, pgd = (
        gate.measurements.of(case_named(gate, f"tiny-int8-day-{name}"), "gradient_free") for name in ("fgsm", "pgd")
    )
    assert folder_of(fgsm) == folder_of(pgd)
    other = open_gate(
        tiny.configure(same, ('cache = "cache"', 'cache = "cache"\ngradient_free_queries = 31'), extra=INT8)
    )
    changed = other.measurements.of(case_named(other, "tiny-int8-day-pgd"), "gradient_free")
    assert folder_of(changed) != folder_of(pgd)


def test_a_file_without_a_gradient_says_why_and_has_two_figures(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: OnnxSubject) -> nn.Module:
        raise self.without_gradient("planted")

    monkeypatch.setattr(OnnxSubject, "differentiable", none)
    gate = open_gate(tiny.configure(QUERIES, extra=INT8))
    found = gate.result(case_named(gate, "tiny-int8-day-pgd"))
    assert found.details["figures"]["twin"] is None
    assert found.details["figures"]["transferred"] < 1
    assert found.details["no_gradient"].endswith("planted")
    assert "tiny-int8-day" in found.details["no_gradient"]
    # Nothing was differentiated, but for the reference's own case.
    assert found.details["gradients"] == 0


def test_an_attack_without_gradients_runs_as_it_is(tiny) -> None:
    gate = open_gate(tiny.configure(extra=INT8 + SQUARE))
    details = gate.result(case_named(gate, "tiny-int8-day-square")).details
    assert "figures" not in details
    assert details["gradients"] == 0


def test_a_tflite_file_is_measured_without_any_gradient(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="runs TFLite files: pip install 'robustgate[litert]'")
    with np.load(real_data / "cifar/cifar10_test_2000.npz") as arrays:
        rows = slice(0, 48)
        np.savez(
            tmp_path / "cifar.npz",
            images=arrays["images"][rows],
            labels=arrays["labels"][rows],
            classes=arrays["classes"],
        )
    configuration = f"""
    [gate]
    gradient_free_queries = 20
    [domains.cifar]
    kind = "npz"
    files = {{ test = "cifar.npz" }}
    [models.resnet]
    build = "robustgate.zoo:cifar_resnet"
    args = {{ depth = 20, num_classes = 10 }}
    normalize = {{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }}
    weights = {{ cifar = "{real_data}/weights/cifar10_resnet20.safetensors" }}
    [compressions.vendor]
    artifact = {{ resnet = {{ cifar = "{real_data}/tflite/mlperf_tiny_pretrainedResnet_quant.tflite" }} }}
    input = {{ layout = "nhwc", high = 255 }}
    [attacks.pgd]
    method = "pgd"
    eps = 0.03
    steps = 5
    [policies.edge]
    [[policies.edge.rules]]
    name = "floor"
    min = 0.0
    """
    (tmp_path / "robustgate.toml").write_text(configuration)
    gate = open_gate(tmp_path / "robustgate.toml")
    case = case_named(gate, "resnet-vendor-cifar-pgd")
    details = gate.result(case).details
    assert details["figures"]["twin"] is None
    assert "mlperf_tiny_pretrainedResnet_quant" in details["no_gradient"] or "model.tflite" in details["no_gradient"]
    parts = [gate.measurements.of(case, figure) for figure in FIGURES[1:]]
    outcome = gate.measurements.of(case).outcome
    np.testing.assert_array_equal(outcome.correct, np.all([part.outcome.correct for part in parts], axis=0))
    clean = gate.measurements.of(case_named(gate, "resnet-vendor-cifar")).outcome
    assert outcome.correct.sum() < clean.correct.sum()
    assert details["gradients"] == 0


# The worst of several attacks.

WORST = '\n[attacks.worst]\nmethod = "worst_case"\nattacks = ["fgsm", "pgd"]\n'


@pytest.mark.parametrize("compression", ["none", "fp25", "int8"])
def test_the_worst_case_is_the_and_of_its_parts(tiny, compression: str) -> None:
    changes = (('method = "fgsm"\neps = 0.05', 'method = "pgd"\nnorm = "l2"\neps = 0.5'), QUERIES)
    gate = open_gate(tiny.configure(*changes, extra=INT8 + WORST))
    case = case_named(gate, f"tiny-{compression}-day-worst")
    found = gate.result(case)
    parts = {
        name: gate.measurements.of(case_named(gate, f"tiny-{compression}-day-{name}")).outcome
        for name in ("fgsm", "pgd")
    }
    outcome = gate.measurements.of(case).outcome
    both = parts["fgsm"].correct & parts["pgd"].correct
    np.testing.assert_array_equal(outcome.correct, both)
    assert found.correct == both.sum()
    assert found.details["alone"] == {name: part.correct.mean() for name, part in parts.items()}
    assert found.details["together"] == both.mean()
    assert (case.shift.norm, case.shift.eps, outcome.norms) == (None, None, None)
    np.testing.assert_array_equal(outcome.queries, parts["fgsm"].queries + parts["pgd"].queries)


def test_the_worst_case_measures_nothing_anew(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = open_gate(tiny.configure(extra=WORST))
    for name in ("fgsm", "pgd"):
        gate.result(case_named(gate, f"tiny-none-day-{name}"))
    monkeypatch.setattr("robustgate.engine.measurements.measure_adversarial", None)
    case = case_named(gate, "tiny-none-day-worst")
    assert gate.result(case).correct == tiny.correct(tiny.day, 127.5, shift=255 * 0.05)
    # Norms agree, budgets do not; the smaller norm of both attacks counts.
    assert (case.shift.norm, case.shift.eps, case.shift.detail) == ("linf", None, "union of fgsm, pgd")
    assert case.shift.phrase == "under worst (union of fgsm, pgd)"
    outcome = gate.measurements.of(case).outcome
    assert outcome.norms is not None
    assert float(outcome.norms[outcome.predictions != outcome.labels].max()) == pytest.approx(0.05, abs=1e-6)


def test_what_a_worst_case_joins_decides_what_it_is(tiny) -> None:
    first = open_gate(tiny.configure(extra=WORST))
    before = first.result(case_named(first, "tiny-none-day-worst"))
    again = open_gate(tiny.configure(extra=WORST))
    assert again.result(case_named(again, "tiny-none-day-worst")).cached
    changed = open_gate(tiny.configure(("eps = 0.05", "eps = 0.06"), extra=WORST))
    after = changed.result(case_named(changed, "tiny-none-day-worst"))
    assert after.measurement != before.measurement
    assert after.correct < before.correct


@pytest.mark.parametrize(
    ("attacks", "problem"),
    [
        ('["fgsm", "pdg"]', "attacks.worst.attacks: no attack 'pdg' (did you mean 'pgd'?); known: fgsm, pgd"),
        ('["fgsm", "worst"]', "attacks.worst.attacks: 'worst' is a union itself: name what it joins"),
        ('["pgd"]', "attacks.worst: attacks must name at least two attacks, each once, got ['pgd']"),
        ('["pgd", "pgd"]', "attacks.worst: attacks must name at least two attacks, each once, got ['pgd', 'pgd']"),
    ],
)
def test_a_worst_case_of_what_there_is_not_is_refused(tiny, attacks: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tiny.configure(extra=WORST.replace('["fgsm", "pgd"]', attacks)))
    assert problem in caught.value.problems


# The keys of [gate].


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("batch = 0", "gate: batch must be at least 1, got 0"),
        ("attack_seconds = 0.0", "gate: attack_seconds must be above 0, got 0"),
        ("attack_queries = 0", "gate: attack_queries must be at least 1, got 0"),
        ("gradient_free_queries = 1", "gate: gradient_free_queries must be at least 2, got 1"),
        (
            "attack_queries = 100",
            "gate: gradient_free_queries must be at most attack_queries, the cap, which is 100, got 200",
        ),
    ],
)
def test_impossible_terms_are_refused(tiny, line: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tiny.configure(('cache = "cache"', f'cache = "cache"\n{line}')))
    assert caught.value.problems == (problem,)


def test_the_terms_reach_the_attacks_and_the_key(tiny) -> None:
    gate = open_gate(tiny.configure())
    first = gate.result(case_named(gate, "tiny-none-day-pgd"))
    capped = open_gate(tiny.configure(('cache = "cache"', 'cache = "other"\nattack_seconds = 1e-9')))
    with pytest.raises(MeasurementError, match="took longer than 1e-09 s"):
        capped.result(case_named(capped, "tiny-none-day-pgd"))
    short = ('cache = "cache"', 'cache = "other"\nattack_queries = 2\ngradient_free_queries = 2')
    few = open_gate(tiny.configure(short, extra=SQUARE))
    with pytest.raises(MeasurementError, match="asked 2 times about one sample"):
        few.result(case_named(few, "tiny-none-day-square"))
    # So small a batch holds walks of a single sample.
    small = open_gate(tiny.configure(('cache = "cache"', 'cache = "cache"\nbatch = 5')))
    other = small.result(case_named(small, "tiny-none-day-pgd"))
    assert (other.cached, other.correct) == (False, first.correct)
    clean = small.result(case_named(small, "tiny-none-day"))
    whole = open_gate(tiny.configure())
    assert whole.result(case_named(whole, "tiny-none-day")).measurement == clean.measurement


def test_half_precision_is_for_a_gpu_alone(tiny) -> None:
    gate = open_gate(tiny.configure(('cache = "cache"', 'cache = "cache"\nmixed_precision = true')))
    assert gate.measurements.terms.mixed == (gate.device.type == "cuda")
