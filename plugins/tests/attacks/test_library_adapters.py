"""Attacks of torchattacks and Foolbox: closed forms, and libraries that misbehave."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from closed_forms import CPU, Ground, ground
from torch import Tensor, nn

from robustgate.attacks import _library
from robustgate.attacks.foolbox import Foolbox
from robustgate.attacks.pgd import Pgd
from robustgate.attacks.torchattacks import Torchattacks
from robustgate.core.errors import MeasurementError
from robustgate.engine.subjects import TorchSubject

torchattacks = pytest.importorskip("torchattacks")
foolbox = pytest.importorskip("foolbox")

LINF = 0.01


@pytest.fixture
def linear() -> Ground:
    return ground("linear")


def torchattack(attack: str, eps: float = LINF, **keys) -> Torchattacks:
    return Torchattacks(attack=attack, eps=eps, **keys)


def foolattack(attack: str, eps: float = LINF, **keys) -> Foolbox:
    return Foolbox(attack=attack, eps=eps, **keys)


def test_the_names_of_our_modules_do_not_hide_the_libraries() -> None:
    for library, kind in ((torchattacks, Torchattacks), (foolbox, Foolbox)):
        assert kind.__module__ == f"robustgate.attacks.{library.__name__}"
        assert "robustgate" not in inspect.getfile(library)


@pytest.mark.parametrize(
    ("attack", "steps"),
    [
        (torchattack("FGSM"), 1),
        (torchattack("PGD", parameters={"random_start": False}), 10),
        (torchattack("BIM", parameters={"steps": 4}), 4),
        (torchattack("APGD", norm="linf", parameters={"steps": 20}), None),
        (foolattack("LinfPGD", parameters={"random_start": False, "steps": 5}), 5),
        (foolattack("FGSM"), 1),
    ],
    ids=lambda value: value.attack if hasattr(value, "attack") else None,
)
def test_linf_fells_exactly_those_within_reach(linear: Ground, attack, steps: int | None) -> None:
    nearest = linear.nearest("linf")
    attack = dataclasses.replace(attack, eps=float(nearest.median()) * 1.001)
    expected = (nearest > attack.eps).numpy()
    assert 0 < expected.sum() < len(expected)
    outcome = linear.outcome(attack)
    np.testing.assert_array_equal(outcome.correct, expected)
    np.testing.assert_array_equal(outcome.correct, linear.outcome(Pgd(eps=attack.eps)).correct)
    if steps is not None:
        # Each library's own calls are counted evenly for its samples; the artifact is asked once more.
        assert set(outcome.gradients) == {steps}


def test_l2_fells_exactly_those_within_reach(linear: Ground) -> None:
    nearest = linear.nearest("l2")
    eps = float(nearest.median()) * 1.001
    for attack in (torchattack("PGDL2", eps, parameters={"random_start": False}), foolattack("FGM", eps)):
        assert attack.norm == "l2"
        np.testing.assert_array_equal(linear.outcome(attack).correct, (nearest > eps).numpy())


@pytest.mark.parametrize(("kind", "slack"), [("linear", 1.05), ("sphere", 1.3)])
@pytest.mark.parametrize(
    "attack",
    [
        foolattack("L2DeepFoolAttack", minimizes=True),
        foolattack("DDNAttack", minimizes=True),
        foolattack("LinfDeepFoolAttack", minimizes=True),
        torchattack("DeepFool", minimizes=True),
    ],
    ids=lambda value: f"{value.library}-{value.attack}",
)
def test_the_norms_of_a_minimum_norm_attack_are_nearly_the_nearest(kind: str, attack, slack: float) -> None:
    # DeepFool goes straight to where the network would be linear: on a sphere, past the nearest point.
    there = ground(kind)
    outcome = there.outcome(attack)
    ratio = outcome.norms / there.nearest(attack.norm).numpy()
    assert ratio.min() > 1 - 1e-3
    assert np.median(ratio) < slack
    assert outcome.details["curve"]["accuracy"][0] == 1


def test_what_their_cw_does_not_find_is_not_counted(linear: Ground) -> None:
    # It takes zero for the other class's logit where that is negative, and then has no gradient to follow.
    outcome = linear.outcome(torchattack("CW", minimizes=True, parameters={"steps": 200, "c": 0.1}))
    ratio = outcome.norms / linear.nearest("l2").numpy()
    assert np.median(ratio[linear.samples.labels == 1]) < 1.05
    assert np.isinf(ratio[linear.samples.labels == 0]).mean() > 0.9


class Balanced(nn.Module):
    """A linear network's decision as two logits of which both move."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        score = self.inner(images)[:, 1:]
        return torch.cat([-score, score], dim=1)


def test_jsma_takes_the_next_class_whatever_their_number(linear: Ground) -> None:
    # The library's own target is (label + 1) modulo 10: no class at all for one of these two.
    weight = linear.subject.module.weight.detach()
    labels = torch.tensor(linear.samples.labels)
    gain = (torch.where(labels[:, None] == 0, weight, -weight) * (1 - linear.images.flatten(1))).clamp_min(0)
    margin = linear.nearest("linf") * weight.abs().sum()
    best = gain.sort(dim=1, descending=True).values.cumsum(dim=1)
    fewest = (best <= margin[:, None]).sum(dim=1) + 1
    outcome = dataclasses.replace(linear, subject=TorchSubject(Balanced(linear.subject.module), CPU)).outcome(
        torchattack("JSMA", 0.25)
    )
    fallen = torch.tensor(~outcome.correct)
    assert set(linear.samples.labels[~outcome.correct]) == {0, 1}
    assert (outcome.norms[~outcome.correct] * len(weight) >= fewest[fallen].numpy() - 1e-3).all()
    assert outcome.norms[~outcome.correct].max() <= 0.25


def test_the_black_images_of_a_failed_search_fell_nothing_at_eps(linear: Ground) -> None:
    attack = foolattack(
        "L2CarliniWagnerAttack", 0.02, minimizes=True, parameters={"steps": 2, "binary_search_steps": 1}
    )
    nearest = linear.nearest("l2").numpy()
    outcome = linear.outcome(attack)
    assert np.isfinite(outcome.norms).any(), "no black image fools: the test shows nothing"
    assert outcome.norms[np.isfinite(outcome.norms) & outcome.correct].min() > 100 * attack.eps
    assert outcome.correct[nearest > attack.eps].all()


class Watched(torchattacks.PGD):
    """Notes how it was made."""

    made: dict[str, object]

    def __init__(self, model, eps=8 / 255, alpha=2 / 255, steps=10, random_start=True) -> None:
        super().__init__(model, eps, alpha, steps, random_start)
        type(self).made = {"eps": eps, "alpha": alpha, "steps": steps}


@pytest.mark.parametrize(
    ("parameters", "alpha"),
    [({}, 0.001), ({"steps": 40}, 0.00025), ({"steps": 40, "alpha": 0.002}, 0.002)],
)
def test_the_step_keeps_to_eps_unless_it_is_named(linear: Ground, monkeypatch, parameters, alpha: float) -> None:
    monkeypatch.setattr(torchattacks, "PGD", Watched)
    linear.outcome(torchattack("PGD", 0.004, parameters=parameters))
    assert Watched.made == pytest.approx({"eps": 0.004, "alpha": alpha, "steps": parameters.get("steps", 10)})


@pytest.mark.parametrize(
    "attack",
    [
        torchattack("PGD", 0.1, parameters={"steps": 4, "alpha": 0.01}),
        foolattack("LinfPGD", 0.1, parameters={"steps": 4, "rel_stepsize": 0.1}),
        foolattack("LinfPGD", 0.1, parameters={"steps": 4, "abs_stepsize": 0.01}),
    ],
)
def test_steps_that_cannot_reach_eps_are_refused(linear: Ground, attack) -> None:
    with pytest.raises(MeasurementError, match=r"4 steps of 0\.1 eps cannot reach eps"):
        linear.outcome(attack)


class Vandal(torchattacks.attack.Attack):
    """Leaves train mode, gradients and moved random streams behind, and a point far outside that needs a gradient."""

    def __init__(self, model, eps=0.1, alpha=0.1, steps=1, random_start=True) -> None:
        super().__init__("Vandal", model)

    def __call__(self, images, labels):
        assert images.is_contiguous()
        self.model.train().to(torch.float64)
        images.requires_grad_()
        self.model(images).sum().backward()
        torch.manual_seed(0)
        np.random.seed(0)
        return images + torch.rand(1) + float(np.random.rand()) + 1


class Spoilt(nn.Module):
    """A linear network with what a library could spoil: a mode, a parameter that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Dropout(), nn.Linear(48, 2))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def test_what_a_library_leaves_behind_is_put_right(linear: Ground, monkeypatch) -> None:
    monkeypatch.setattr(torchattacks, "PGD", Vandal)
    subject = TorchSubject(Spoilt(), CPU)
    subject.module.requires_grad_(True)
    labels = subject.logits(linear.images).argmax(dim=1).numpy()
    samples = dataclasses.replace(linear.samples, labels=labels)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    outcome = Ground(subject, samples, linear.images).outcome(torchattack("PGD"))
    assert outcome.details["largest_norm"] <= LINF + 1e-6
    assert not any(module.training for module in subject.module.modules())
    assert all(one.grad is None and one.requires_grad for one in subject.module.parameters())
    assert subject.module.layers[3].weight.dtype == torch.float32
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)


def test_a_failing_library_is_a_measurement_error_with_its_name(linear: Ground) -> None:
    with pytest.raises(MeasurementError, match=r"foolbox's VirtualAdversarialAttack: TypeError.*steps"):
        linear.outcome(foolattack("VirtualAdversarialAttack"))
    with pytest.raises(MeasurementError, match=r"foolbox's LinfPGD: AssertionError: assert input.min"):
        list(foolattack("LinfPGD").run(linear.images - 1, torch.zeros(24).long(), Fixed(), Target(linear)))
    with pytest.raises(MeasurementError, match=r"torchattacks's APGDT: IndexError"):
        linear.outcome(torchattack("APGDT", norm="linf"))


class Fixed:
    """Draws that are all zero."""

    def uniform(self, *shape: int) -> Tensor:
        return torch.zeros(24, *shape)


@dataclasses.dataclass
class Target:
    """A ground as an attack sees it."""

    ground: Ground
    classes: int = 2

    def module(self, *, gradient: bool = True) -> nn.Module:
        return self.ground.subject.module


def test_an_error_of_the_variant_stays_its_own(linear: Ground) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = linear.subject.module(images)
            return logits / 0 if images.requires_grad else logits

    broken = Ground(TorchSubject(Broken(), CPU), linear.samples, linear.images)
    for attack in (torchattack("PGD"), foolattack("LinfPGD")):
        with pytest.raises(MeasurementError, match=r"^case: NaN or infinite logits"):
            broken.outcome(attack)


@pytest.mark.parametrize(
    "attack",
    [torchattack("GN", 0.5, norm="linf", parameters={"std": 0.2}), foolattack("LinfAdditiveUniformNoiseAttack", 0.5)],
    ids=["torchattacks", "foolbox"],
)
def test_random_numbers_come_from_the_samples_draws(linear: Ground, attack) -> None:
    norms = [linear.outcome(attack, seed=seed).norms for seed in (1, 1, 2)]
    assert np.isfinite(norms[0]).any()
    np.testing.assert_array_equal(norms[0], norms[1])
    assert not np.array_equal(norms[0], norms[2])


class Bare(nn.Module):
    """A decision without parameters: brighter than one half."""

    def forward(self, images: Tensor) -> Tensor:
        score = 20 * (images.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-score, score], dim=1)


@pytest.mark.parametrize("make", [torchattack, foolattack])
def test_a_module_without_parameters_is_attacked(linear: Ground, make, capsys) -> None:
    subject = TorchSubject(Bare(), CPU)
    samples = dataclasses.replace(linear.samples, labels=subject.logits(linear.images).argmax(dim=1).numpy())
    margin = (linear.images.mean(dim=(1, 2, 3)) - 0.5).abs().numpy()
    eps = float(np.median(margin))
    outcome = Ground(subject, samples, linear.images).outcome(make("PGD", eps, parameters={"random_start": False}))
    np.testing.assert_array_equal(outcome.correct, margin > eps)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("make", "keys", "message"),
    [
        (torchattack, {"attack": "PDG"}, r"torchattacks has no attack 'PDG' \(did you mean 'PGD'\?\); known: APGD"),
        (torchattack, {"attack": "LGV"}, r"torchattacks has no attack 'LGV'"),
        (torchattack, {"attack": "PGD", "parameters": {"step": 4}}, r"'step' of PGD is unknown \(did you mean 'steps'"),
        (torchattack, {"attack": "PGD", "parameters": {"eps": 4}}, "'eps' of PGD is given by the table's own keys"),
        (torchattack, {"attack": "PGD", "norm": "l2"}, "norm must be one of linf for torchattacks's PGD, got 'l2'"),
        (torchattack, {"attack": "APGD"}, "norm must be one of linf, l2 for torchattacks's APGD$"),
        (torchattack, {"attack": "PGD", "eps": 8}, "divide by 255"),
        (torchattack, {"attack": ""}, r'write method = "torchattacks:PGD"'),
        (foolattack, {"attack": "LinfPDG"}, r"foolbox has no attack 'LinfPDG' \(did you mean 'LinfPGD'\?\)"),
        (foolattack, {"attack": "SpatialAttack"}, "knows no budget"),
        (foolattack, {"attack": "L1PGD", "norm": "l2"}, "would be an l1 norm"),
        (foolattack, {"attack": "FGSM", "minimizes": True}, "does not minimize"),
        (foolattack, {"attack": "LinfPGD", "parameters": {"stepsize": 1}}, r"'stepsize' of LinfPGD is unknown"),
        (foolattack, {"attack": "InversionAttack"}, "norm must be one of linf, l2, l0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(make, keys, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**keys)


@pytest.mark.parametrize("kind", [Torchattacks, Foolbox])
def test_every_attack_of_the_library_is_read_as_it_is(kind) -> None:
    """The source that is read says what the imported classes say."""
    exports = kind(attack="PGD", eps=0.1)._source()
    place = torchattacks if kind is Torchattacks else foolbox.attacks
    names = _library.attack_names(exports)
    assert len(names) > 30
    for name in names:
        signature = [one for one in inspect.signature(getattr(place, name)).parameters if one not in ("args", "kwargs")]
        assert _library.parameter_names(_library.lineage(exports, name)) == signature, name
    distances = {f"foolbox.attacks.{name}": getattr(getattr(place, name), "distance", None) for name in names}
    for name, distance in distances.items():
        norm = type(distance).__name__.lower() if kind is Foolbox else ""
        if norm == "lpdistance" and f"l{distance.p:g}" in ("linf", "l2", "l0"):
            assert Foolbox(attack=name.rpartition(".")[2], eps=0.1).norm == f"l{distance.p:g}"


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setattr(_library, "find_spec", lambda name: None)
    assert torchattack("PGD").missing_extra == "torchattacks"
    assert foolattack("PGD").missing_extra == "foolbox"


def test_planning_imports_neither_torch_nor_a_library() -> None:
    code = (
        "import sys; from robustgate.attacks.torchattacks import Torchattacks; "
        "from robustgate.attacks.foolbox import Foolbox; "
        "Torchattacks(attack='PGD', eps=0.1); Foolbox(attack='LinfPGD', eps=0.1); "
        "print(sorted({'torch', 'torchattacks', 'foolbox', 'eagerpy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
