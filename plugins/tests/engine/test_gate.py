"""The whole engine on a network whose every figure has a closed form."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from robustgate.config import load
from robustgate.core.errors import MeasurementError, ModelError
from robustgate.core.records import Case, CaseResult
from robustgate.engine.gate import Gate, steady
from robustgate.engine.measure import Outcome
from robustgate.engine.measurements import OUTCOMES
from robustgate.engine.plan import make_plan

TODAY = date(2026, 1, 1)
# Without its weakest filter (0.1 of 3.1) the network sees an image as darker: the threshold moves up.
PRUNED_THRESHOLD = 127.5 * 3.1 / 3.0


def open_gate(path: Path) -> Gate:
    return Gate(make_plan(load(path)), today=TODAY)


def case_named(gate: Gate, name: str) -> Case:
    return next(case for case in gate.plan.cases if case.name == name)


def result(gate: Gate, name: str) -> CaseResult:
    return gate.result(case_named(gate, name))


def test_clean_accuracy_and_paired_drop_are_the_closed_form(tiny) -> None:
    gate = open_gate(tiny.configure())
    assert result(gate, "tiny-none-day").correct == len(tiny.day)
    pruned = result(gate, "tiny-fp25-day")
    assert pruned.correct == tiny.correct(tiny.day, PRUNED_THRESHOLD) < len(tiny.day)
    assert pruned.drop == pytest.approx((len(tiny.day) - pruned.correct) / len(tiny.day))
    assert [loss.name for loss in pruned.most_lost] == ["bright"]


def test_a_pair_is_measured_on_the_whole_target(tiny) -> None:
    found = result(open_gate(tiny.configure()), "tiny-fp25-day_to_night")
    assert (found.n, found.correct) == (len(tiny.night), tiny.correct(tiny.night, PRUNED_THRESHOLD))


@pytest.mark.parametrize(("attack", "eps"), [("fgsm", 0.05), ("pgd", 0.02)])
@pytest.mark.parametrize(("compression", "threshold"), [("none", 127.5), ("fp25", PRUNED_THRESHOLD)])
def test_robust_accuracy_is_the_closed_form(tiny, attack: str, eps: float, compression: str, threshold: float) -> None:
    # Linear in the mean brightness: an adversary in linf moves it by eps exactly.
    found = result(open_gate(tiny.configure()), f"tiny-{compression}-day-{attack}")
    assert found.correct == tiny.correct(tiny.day, threshold, shift=255 * eps)
    assert found.details["largest_norm"] == pytest.approx(eps, abs=1e-6)
    assert found.details["attacked"] - found.details["fallen"] == found.correct


def test_a_kept_measurement_is_used_and_a_damaged_one_is_made_again(tiny) -> None:
    path = tiny.configure()
    first = result(open_gate(path), "tiny-none-day")
    assert not first.cached
    again = result(open_gate(path), "tiny-none-day")
    assert again.cached
    kept = path.parent / "cache" / "measurements" / str(first.measurement) / f"0-{first.n}" / OUTCOMES
    whole = kept.read_bytes()
    Outcome(labels=np.zeros(3, dtype=np.int64), predictions=np.ones(3, dtype=np.int64), details={}).save(kept)
    mended = result(open_gate(path), "tiny-none-day")
    assert (mended.cached, mended.correct) == (False, first.correct)
    assert kept.read_bytes() == whole


def test_changed_code_behind_the_network_is_measured_anew(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.configure()
    result(open_gate(path), "tiny-none-day")
    import tiny_network

    # Neither the weights nor the factory's file change: only what the network answers.
    monkeypatch.setattr(tiny_network.Net, "forward", lambda self, x: -self.head(self.conv(x).mean((2, 3))))
    turned = result(open_gate(path), "tiny-none-day")
    assert (turned.cached, turned.correct) == (False, 0)


def test_changed_weights_are_measured_anew(tiny) -> None:
    path = tiny.configure()
    result(open_gate(path), "tiny-none-day")
    tiny.write_weights(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert result(open_gate(path), "tiny-none-day").correct == tiny.correct(tiny.day, PRUNED_THRESHOLD)


def test_nan_logits_are_an_error_that_names_the_case(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny_network

    monkeypatch.setattr(tiny_network.Net, "forward", lambda self, x: self.head(self.conv(x).mean((2, 3))) * torch.nan)
    with pytest.raises(MeasurementError, match="tiny-none-day: NaN or infinite logits for 128 of 128 images"):
        result(open_gate(tiny.configure()), "tiny-none-day")


def test_logits_of_another_class_count_are_an_error(tiny) -> None:
    labels = np.load(tiny.folder / "day.npz")
    np.savez(
        tiny.folder / "day.npz",
        images=labels["images"],
        labels=labels["labels"],
        classes=np.array(["dark", "bright", "dusk"]),
    )
    with pytest.raises(
        MeasurementError, match=r"expected logits of shape \(128, 3\), one column a class, got \(128, 2\)"
    ):
        result(open_gate(tiny.configure()), "tiny-none-day")


def test_weights_that_do_not_fit_name_file_and_key(tiny) -> None:

    tiny.write_weights(torch.ones(5))
    with pytest.raises(
        ModelError,
        match=r"tiny\.safetensors does not fit the network: 'conv\.weight' expected \(4, 3, 1, 1\), got \(5,",
    ):
        result(open_gate(tiny.configure()), "tiny-none-day")
    assert not list((tiny.folder / "cache" / "artifacts").glob("*/"))


def test_a_detached_network_is_an_error_under_a_white_box_attack(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny_network

    forward = tiny_network.Net.forward
    monkeypatch.setattr(tiny_network.Net, "forward", lambda self, x: forward(self, x).detach())
    with pytest.raises(MeasurementError, match="tiny-none-day-pgd: a white-box attack needs gradients, and none flow"):
        result(open_gate(tiny.configure()), "tiny-none-day-pgd")


def test_global_state_is_as_it_was(tiny) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    result(open_gate(tiny.configure()), "tiny-fp25-day-pgd")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    with pytest.raises(ZeroDivisionError), steady(1):
        _ = 1 / 0
    assert torch.get_num_threads() == threads


def test_a_measurement_can_be_traced_to_samples(tiny) -> None:
    found = result(open_gate(tiny.configure()), "tiny-fp25-day")
    folder = tiny.folder / "cache" / "measurements" / str(found.measurement) / f"0-{found.n}"
    outcome = Outcome.load(folder / OUTCOMES, {})
    assert int(outcome.correct.sum()) == found.correct
    assert json.loads((folder / "seal.json").read_text())["identity"]["kind"] == "clean"


def test_the_order_of_cases_changes_nothing(tiny) -> None:
    path = tiny.configure()
    forwards = {case.name: open_gate(path).result(case).measurement for case in make_plan(load(path)).cases}
    contents = {file: file.read_bytes() for file in (tiny.folder / "cache" / "measurements").glob(f"*/*/{OUTCOMES}")}
    assert len(contents) == len(forwards)
    other = tiny.configure(('cache = "cache"', 'cache = "other"'))
    gate = open_gate(other)
    for case in reversed(gate.plan.cases):
        assert gate.result(case).measurement == forwards[case.name]
    for file, content in contents.items():
        assert (tiny.folder / "other" / file.relative_to(tiny.folder / "cache")).read_bytes() == content
