"""Measured in parts, a case is what it is when it is measured at once; each part is measured once, and kept."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustgate.config import load
from robustgate.core.images import take
from robustgate.core.records import Case
from robustgate.core.seeds import derive
from robustgate.engine.artifacts import Foundry
from robustgate.engine.data import Library, as_tensor
from robustgate.engine.figures import FIGURES
from robustgate.engine.measure import measure_natural
from robustgate.engine.measured import Measured
from robustgate.engine.measurements import OUTCOMES, Drawn, Measurements, drawing_order
from robustgate.engine.plan import make_plan
from robustgate.engine.progress import Listener, Reached, nobody
from robustgate.engine.store import SEAL, Store
from robustgate.engine.subjects import OnnxSubject

TOTAL = 130
LOOKS = (50, 100, TOTAL)
MORE = """
[compressions.int8]
steps = [{ method = "static_quantization", calibration_images = 20 }]
[attacks.ddn]
method = "ddn"
eps = 0.2
steps = 10
[attacks.worst]
method = "worst_case"
attacks = ["fgsm", "pgd"]
"""
CHANGES = (
    ('cache = "cache"', 'cache = "cache"\ngradient_free_queries = 30'),
    ('["contrast"], severities = [1, 5]', '["gaussian_noise", "contrast"], severities = [3]'),
)
CLEAN, NOISY, PGD = "tiny-none-day", "tiny-none-day-gaussian_noise_s3", "tiny-none-day-pgd"
NEAREST, INT8, WORST = "tiny-fp25-day-ddn", "tiny-int8-day-pgd", "tiny-none-day-worst"


@pytest.fixture
def project(tiny) -> Path:
    """The tiny project, whose images by day are noise near the edge of its decision: little moves many of them."""
    random = np.random.default_rng(8)
    levels = 127.5 + random.uniform(-6, 6, (TOTAL, 1, 1, 1)) + random.normal(0, 20, (TOTAL, 8, 8, 3))
    images = levels.clip(0, 255).astype(np.uint8)
    labels = (images.mean(axis=(1, 2, 3)) > 127.5).astype(np.int64)
    labels[random.permutation(TOTAL)[:12]] ^= 1  # these it has wrong
    np.savez(tiny.folder / "day.npz", images=images, labels=labels, classes=np.array(["dark", "bright"]))
    return tiny.configure(*CHANGES, extra=MORE)


def opened(path: Path, progress: Listener = nobody) -> Measurements:
    """What a run in the project's folder has measured, and measures."""
    plan = make_plan(load(path))
    configuration = plan.configuration
    store = Store(configuration.gate.cache)
    library = Library(configuration.domains, store, configuration.matchings.values())
    foundry = Foundry(configuration, plan.chains, store, library, torch.device("cpu"))
    return Measurements(plan, foundry, progress)


def forget(measurements: Measurements) -> None:
    """Delete all that was measured, and leave what was built."""
    shutil.rmtree(measurements.foundry.store.folder / "measurements")


def case_named(measurements: Measurements, name: str) -> Case:
    return next(case for case in measurements.plan.cases if case.name == name)


def snapshot(measured: Measured) -> dict[str, Any]:
    """All that is known of some samples: details, arrays and examples, to the byte."""
    arrays = measured.outcome.arrays
    # Where in a file its example is depends on the parts.
    found = {name: array.tobytes() for name, array in arrays.items() if name != "examples"}
    found["details"] = json.dumps(measured.outcome.details, sort_keys=True)
    if "norms" in arrays:
        has_example = measured.has_example
        found["has example"] = has_example.tobytes()
        found["points"] = measured.points(np.flatnonzero(has_example)).numpy().tobytes()
    return found


@pytest.fixture
def measured_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str | None, int, int]]]:
    """What is measured from now on: each part's case, figure, first sample and end."""
    found = []
    measure = Measurements._measure

    def measure_and_note(self: Measurements, case: Case, figure: Any, drawn: Drawn, folder: Path) -> Any:
        found.append((case.name, figure, drawn.first, drawn.first + len(drawn.numbers)))
        return measure(self, case, figure, drawn, folder)

    monkeypatch.setattr(Measurements, "_measure", measure_and_note)
    return found


def cut(*ends: int) -> list[tuple[int, int]]:
    return list(zip((0, *ends[:-1]), ends, strict=True))


# What a case is made of: itself, or the attacks and figures that it is the worst of, and a reference's examples.
MADE_OF: dict[str, list[tuple[str, str | None]]] = {
    CLEAN: [(CLEAN, None)],
    NOISY: [(NOISY, None)],
    PGD: [(PGD, None)],
    INT8: [(PGD, None), *((INT8, figure) for figure in FIGURES)],
    WORST: [("tiny-none-day-fgsm", None), (PGD, None)],
}


@pytest.mark.parametrize("name", MADE_OF)
def test_in_parts_a_case_is_what_it_is_at_once(project: Path, measured_parts: list, name: str) -> None:
    measurements = opened(project)
    case = case_named(measurements, name)
    figures = (None, *FIGURES) if name == INT8 else (None,)
    looked = {count: snapshot(measurements.of(case, upto=count)) for count in LOOKS}
    in_parts = {figure: snapshot(measurements.of(case, figure)) for figure in figures}
    assert in_parts[None] == looked[TOTAL]
    # Each part of each once, and nothing else.
    assert len(measured_parts) == len(set(measured_parts))
    assert set(measured_parts) == {(*one, *ends) for one in MADE_OF[name] for ends in cut(*LOOKS)}
    forget(measurements)
    measured_parts.clear()
    once = opened(project)
    assert {figure: snapshot(once.of(case, figure)) for figure in figures} == in_parts
    assert set(measured_parts) == {(*one, 0, TOTAL) for one in MADE_OF[name]}
    # What is kept in one part serves its first samples, in this run and the next.
    measured_parts.clear()
    again = opened(project)
    for measurements in (once, again):
        for count in reversed(LOOKS):
            assert snapshot(measurements.of(case, upto=count)) == looked[count]
    assert measured_parts == []
    assert again.of(case).cached
    assert not once.of(case).cached


def test_in_parts_a_nearest_point_is_as_near_but_for_rounding(project: Path) -> None:
    measurements = opened(project)
    case = case_named(measurements, NEAREST)
    for count in LOOKS:
        in_parts = measurements.of(case, upto=count)
    had = in_parts.has_example
    forget(measurements)
    once = opened(project).of(case)
    ours, theirs = in_parts.outcome, once.outcome
    for name in ("labels", "predictions", "gradients", "projected"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(once.has_example, had)
    # The edge itself is sought: whether a point lies beyond it may depend on the batch that it is asked about with, and
    # then one a thousandth farther is asked about as well.
    np.testing.assert_allclose(ours.norms, theirs.norms, rtol=2e-3)
    assert np.abs(ours.queries - theirs.queries).max() <= 1
    exact = ("attacked", "fallen", "fallen_by_norm", "gradients")
    assert [ours.details[key] for key in exact] == [theirs.details[key] for key in exact]


def test_what_is_drawn_is_what_the_whole_split_would_say_of_it(project: Path) -> None:
    measurements = opened(project)
    numbers = measurements.drawn(case_named(measurements, CLEAN))
    samples = measurements.library.samples("day", "test")
    for name in (CLEAN, NOISY):
        case = case_named(measurements, name)
        component = measurements.plan.configuration.corruptions.get(case.shift.corruption or "")
        corruption = (component, 3, measurements._seed(case)) if component else None
        subject = measurements.foundry.subject(case.variant)
        expected = measure_natural(subject, samples, name, lambda *_: None, corruption)
        for count in LOOKS:
            found = measurements.of(case, upto=count)
            np.testing.assert_array_equal(found.outcome.labels, samples.labels[numbers[:count]])
            np.testing.assert_array_equal(found.outcome.predictions, expected.predictions[numbers[:count]])
            ordered, places = measurements.in_split_order(case, found)
            np.testing.assert_array_equal(places, np.sort(numbers[:count]))
            np.testing.assert_array_equal(ordered.outcome.predictions, expected.predictions[places])
    clean, noisy = (measurements.of(case_named(measurements, name)).outcome.predictions for name in (CLEAN, NOISY))
    assert 5 < (clean != noisy).sum() < TOTAL // 2  # the noise does tell


def test_what_is_attacked_is_near_its_own_sample(project: Path) -> None:
    measurements = opened(project)
    case = case_named(measurements, PGD)
    images = as_tensor(measurements.library.samples("day", "test"), slice(None), torch.device("cpu"))[0].numpy()
    for count in LOOKS:
        found = measurements.of(case, upto=count)
        ordered, places = measurements.in_split_order(case, found)
        for one, numbers in ((found, measurements.drawn(case)[:count]), (ordered, places)):
            rows = np.flatnonzero(one.has_example)
            assert len(rows) > count // 4
            norms = np.abs(one.points(rows).numpy() - images[numbers[rows]]).max(axis=(1, 2, 3))
            np.testing.assert_allclose(norms, one.outcome.norms[rows], atol=1e-7)


# The details of some samples.


def test_the_details_are_those_of_the_samples_that_were_asked_for(project: Path) -> None:
    measurements = opened(project)
    case, nearest = case_named(measurements, PGD), case_named(measurements, NEAREST)
    told = []
    for one in (case, nearest):
        measurements.of(one)  # all of it is kept
        for count in LOOKS:
            outcome = measurements.of(one, upto=count).outcome
            right = outcome.norms > 0
            fell = right & (outcome.predictions != outcome.labels)
            details = outcome.details
            assert len(outcome.labels) == count
            assert (details["attacked"], details["fallen"]) == (right.sum(), fell.sum())
            assert (details["queries"], details["gradients"]) == (outcome.queries.sum(), outcome.gradients.sum())
            assert details["largest_norm"] == outcome.norms[fell].max()
            if one is nearest:
                assert details["fallen_by_norm"] == (fell & ~outcome.projected).sum()
                curve = [(outcome.norms > eps).mean() for eps in details["curve"]["eps"]]
                assert details["curve"]["accuracy"] == curve
            told.append(tuple(details[key] for key in ("attacked", "fallen", "queries")))
    assert len(set(told)) == len(told)


def test_the_details_of_a_twin_are_those_of_the_samples_that_were_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    differentiable = OnnxSubject.differentiable

    class Brighter(nn.Module):
        """A twin whose threshold lies two grey levels lower."""

        def __init__(self, twin: nn.Module) -> None:
            super().__init__()
            self.twin = twin

        def forward(self, images: Tensor) -> Tensor:
            return self.twin(images + 2 / 255)

    monkeypatch.setattr(OnnxSubject, "differentiable", lambda self: Brighter(differentiable(self)))
    measurements = opened(project)
    case = case_named(measurements, INT8)
    subject = measurements.foundry.subject(case.variant)
    samples = take(measurements.library.samples("day", "test"), measurements.drawn(case))
    images = as_tensor(samples, slice(None), torch.device("cpu"))[0]
    with torch.no_grad():
        theirs, twin = subject.logits(images), subject.differentiable()(images)
    agree = (theirs.argmax(dim=1) == twin.argmax(dim=1)).numpy()
    apart = (theirs - twin).abs().amax(dim=1).numpy()
    measurements.of(case)
    told = []
    for count in LOOKS:
        details = measurements.of(case, upto=count).outcome.details
        assert details["twin_agreement"] == agree[:count].mean()
        assert details["twin_largest_difference"] == pytest.approx(apart[:count].max(), abs=1e-5)
        parts = {figure: measurements.of(case, figure, count).outcome for figure in FIGURES}
        assert details["figures"] == {figure: part.correct.mean() for figure, part in parts.items()}
        assert details["fallen"] == details["attacked"] - np.all([part.correct for part in parts.values()], 0).sum()
        told.append(details["twin_agreement"])
    assert len(set(told)) > 1
    assert max(told) < 1


def test_the_details_of_a_union_are_those_of_the_samples_that_were_asked_for(project: Path) -> None:
    measurements = opened(project)
    measurements.of(case_named(measurements, WORST))
    for count in LOOKS:
        details = measurements.of(case_named(measurements, WORST), upto=count).outcome.details
        parts = {
            name: measurements.of(case_named(measurements, f"tiny-none-day-{name}"), upto=count).outcome
            for name in ("fgsm", "pgd")
        }
        assert details["alone"] == {name: part.correct.mean() for name, part in parts.items()}
        assert details["together"] == np.all([part.correct for part in parts.values()], 0).mean()
        assert details["queries"] == sum(part.queries.sum() for part in parts.values())


# The order in which samples are drawn.

SEARCH = """
[[policies.edge.rules]]
name = "steady"
rule = "stability"
max = 0.9
transformations = { brightness = 0.2 }
samples = 30
"""


@pytest.mark.parametrize("total", [1, 2, 40, 1000])
def test_the_order_is_a_permutation_of_seed_and_total_alone(total: int) -> None:
    order = drawing_order(3, total)
    np.testing.assert_array_equal(np.sort(order), np.arange(total))
    drawing_order.cache_clear()
    np.testing.assert_array_equal(drawing_order(3, total), order)
    generator = np.random.Generator(np.random.PCG64DXSM(derive(3, "drawing")))
    np.testing.assert_array_equal(generator.permutation(total), order)
    if total > 2:
        assert (drawing_order(4, total) != order).any()
        assert (order != np.arange(total)).mean() > 0.5


def test_all_variants_and_shifts_are_asked_about_the_same_samples(tiny) -> None:
    measurements = opened(tiny.configure(*CHANGES, ("enabled = false", "samples = 60"), extra=MORE + SEARCH))
    kinds = set()
    for case in measurements.plan.cases:
        total, kind = measurements.total(case), case.shift.kind
        kinds.add(kind)
        # What chooses its own samples is not drawn from again.
        own = kind in ("masking", "stability")
        expected = np.arange(total) if own else drawing_order(0, total)
        np.testing.assert_array_equal(measurements.drawn(case), expected)
        assert total == {"domain_shift": 40, "stability": 30}.get(kind, 144)
    assert kinds == {"clean", "domain_shift", "corruption", "adversarial", "masking", "stability"}
    other = opened(tiny.configure(*CHANGES, ("[gate]", "[gate]\nseed = 1"), extra=MORE))
    case = case_named(other, CLEAN)
    np.testing.assert_array_equal(other.drawn(case), drawing_order(1, 144))
    assert (other.drawn(case) != measurements.drawn(case)).any()


def test_what_chooses_its_own_samples_is_measured_at_once(tiny, measured_parts: list) -> None:
    measurements = opened(tiny.configure(extra=SEARCH))
    case = next(case for case in measurements.plan.cases if case.shift.kind == "stability")
    found = measurements.of(case)
    samples = measurements.samples(case)
    np.testing.assert_array_equal(found.outcome.labels, samples.labels)
    assert measurements.of(case) is found
    assert measured_parts == [(case.name, None, 0, 30)]
    ordered, places = measurements.in_split_order(case, found)
    assert snapshot(ordered) == snapshot(found)
    np.testing.assert_array_equal(places, np.arange(30))


def test_progress_counts_on_from_part_to_part(project: Path) -> None:
    told: list[Reached] = []
    measurements = opened(project, told.append)
    for name in (NOISY, PGD):
        told.clear()
        for count in LOOKS:
            correct = measurements.of(case_named(measurements, name), upto=count).outcome.correct
            last = told[-1]
            # What came out right is counted over all parts, and known when a part is done.
            assert (last.done, last.right, last.kept) == (count, int(correct.sum()), 0)
        assert {(one.case.name, one.total) for one in told} == {(name, TOTAL)}
        assert [one.done for one in told] == sorted(one.done for one in told)
        # Before, each says how many there are at least, and at most.
        final = int(correct.sum())
        for one in told:
            assert one.right is not None
            assert one.right <= final <= one.right + TOTAL - one.done


def test_progress_tells_what_was_kept(project: Path) -> None:
    first = opened(project)
    first.of(case_named(first, PGD), upto=LOOKS[0])
    told: list[Reached] = []
    again = opened(project, told.append)
    correct = again.of(case_named(again, PGD)).outcome.correct
    assert {one.kept for one in told} == {LOOKS[0]}
    assert (told[-1].done, told[-1].right) == (TOTAL, int(correct.sum()))


def test_one_of_several_figures_does_not_tell_what_comes_out_right(project: Path) -> None:
    told: list[Reached] = []
    measurements = opened(project, told.append)
    measurements.of(case_named(measurements, INT8))
    ours = [one for one in told if one.case.name == INT8]
    assert ours
    assert {one.right for one in ours} == {None}


# What is kept.


def parts_of(measurements: Measurements, name: str) -> dict[str, bytes]:
    """The outcomes that are kept of a case, by the name of their part."""
    folder = measurements.foundry.store.folder / "measurements" / measurements.key(case_named(measurements, name))
    return {file.parent.name: file.read_bytes() for file in folder.glob(f"*/{OUTCOMES}")}


@pytest.mark.parametrize("damaged", ["0-50", "50-100", "100-130"])
def test_a_damaged_part_is_measured_again_and_no_other(project: Path, measured_parts: list, damaged: str) -> None:
    first = opened(project)
    case = case_named(first, PGD)
    for count in LOOKS:
        whole = snapshot(first.of(case, upto=count))
    before = parts_of(first, PGD)
    assert before.keys() == {"0-50", "50-100", "100-130"}
    file = first.foundry.store.folder / "measurements" / first.key(case) / damaged / OUTCOMES
    file.write_bytes(before["0-50"] + b"more")
    measured_parts.clear()
    again = opened(project)
    assert snapshot(again.of(case)) == whole
    assert [f"{start}-{end}" for *_, start, end in measured_parts] == [damaged]
    assert parts_of(again, PGD) == before
    assert not again.of(case).cached
    assert opened(project).of(case).cached


def test_looks_at_other_places_share_what_is_kept(project: Path, measured_parts: list) -> None:
    first = opened(project)
    case = case_named(first, PGD)
    whole = snapshot(first.of(case))
    forget(first)
    for looks, made in (((50,), [(0, 50)]), ((50, TOTAL), [(50, TOTAL)]), ((70, 100), []), ((50, 100, TOTAL), [])):
        measured_parts.clear()
        measurements = opened(project)
        for count in looks:
            found = measurements.of(case, upto=count)
            assert len(found.outcome.labels) == count
        assert [(start, end) for *_, start, end in measured_parts] == made
    assert snapshot(found) == whole


def test_of_two_parts_that_begin_at_one_place_the_longer_is_used(
    project: Path, measured_parts: list, tmp_path: Path
) -> None:
    first = opened(project)
    case = case_named(first, PGD)
    whole = snapshot(first.of(case))
    folder = first.foundry.store.folder / "measurements" / first.key(case)
    # One worker measures all while another has asked for the first fifty.
    (folder / f"0-{TOTAL}").rename(tmp_path / "meanwhile")
    opened(project).of(case, upto=50)
    (tmp_path / "meanwhile").rename(folder / f"0-{TOTAL}")
    measured_parts.clear()
    assert snapshot(opened(project).of(case)) == whole
    assert measured_parts == []
    assert parts_of(first, PGD).keys() == {"0-50", f"0-{TOTAL}"}


def test_what_a_killed_worker_had_sealed_and_not_yet_put_in_its_place_is_made_again(project: Path) -> None:
    first = opened(project)
    case = case_named(first, CLEAN)
    whole = snapshot(first.of(case))
    folder = first.foundry.store.folder / "measurements" / first.key(case)
    (folder / f"0-{TOTAL}").rename(folder / f"0-{TOTAL}.building")
    again = opened(project)
    assert snapshot(again.of(case)) == whole
    assert not again.of(case).cached
    assert sorted(place.name for place in folder.iterdir()) == [f"0-{TOTAL}", f"0-{TOTAL}.lock"]


# Asks for parts as a worker does, each as soon as the other has begun as well, and logs what it measures itself.
WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_measurements as here
from robustgate.engine.measurements import Measurements

measure, (name, *looks) = Measurements._measure, sys.argv[2:]

def measure_and_log(self, case, figure, drawn, folder):
    with open("log", "a") as log:
        log.write(f"{case.name} {figure} {drawn.first}-{drawn.first + len(drawn.numbers)}\\n")
    time.sleep(0.1)
    return measure(self, case, figure, drawn, folder)

Measurements._measure = measure_and_log
measurements = here.opened(Path("robustgate.toml"))
case = here.case_named(measurements, name)
measurements.foundry.subject(case.variant)
Path(f"ready-{len(looks)}").touch()
while len(list(Path().glob("ready-*"))) < 2:
    time.sleep(0.01)
for count in map(int, looks):
    found = measurements.of(case, upto=count)
print(here.digest(found))
"""


def digest(measured: Measured) -> str:
    return hashlib.sha256(repr(sorted(snapshot(measured).items())).encode()).hexdigest()


def test_two_workers_that_ask_for_overlapping_parts_do_not_disturb_each_other(project: Path) -> None:
    alone = opened(project)
    expected = digest(alone.of(case_named(alone, WORST)))
    forget(alone)
    command = [sys.executable, "-c", WORKER, str(Path(__file__).parent), WORST]
    words = (["50", "100", "130"], ["50", "130"])
    both = [
        subprocess.Popen([*command, *looks], stdout=subprocess.PIPE, text=True, cwd=project.parent) for looks in words
    ]
    assert [one.communicate(timeout=120)[0].strip() for one in both] == [expected, expected]
    log = (project.parent / "log").read_text().splitlines()
    assert len(log) == len(set(log))  # whoever came first measured it; the other waited
    assert {line for line in log if line.endswith(" 0-50")} == {
        f"tiny-none-day-{one} None 0-50" for one in ("fgsm", "pgd")
    }
    kept = project.parent / "cache" / "measurements"
    assert all((place / SEAL).is_file() or place.suffix == ".lock" for place in kept.glob("*/*"))
    assert not list(kept.glob("*/*.building"))
    after = opened(project)
    assert digest(after.of(case_named(after, WORST))) == expected
