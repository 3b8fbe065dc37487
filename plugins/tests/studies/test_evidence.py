"""What images say of a claim: intervals against SciPy's paired test, and verdicts that planted results must get."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from claims import CLAIMS, CLEAN, CORRUPTED, JPEG, TINY, Claim, difference, excess
from evidence import Contrast, Network, together, weigh
from measuring import Results, Task
from report import write_report
from scipy import stats

from robustgate.engine.packed import pack
from robustgate.reports.marks import FONT, Label

ONE, OTHER = (Network("toy", "net", "day", name) for name in ("one", "other"))
N = 800


def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results.json", {}, {"processor": "x86_64"})


def put(kept: Results, network: Network, seed: int, shares: dict[str, float], part: str = "whole") -> None:
    """Plant a network that is right on a share of the images, drawn by its seed."""
    rng = np.random.default_rng([seed, len(network.compression)])
    shifts = {name: rng.random(N) < share for name, share in shares.items()}
    kept.add(
        network.task(seed, part),
        {
            "parameters": 1000,
            "bytes": 4000,
            "built_s": 1.0,
            "seconds": 2.0,
            "sharpness": 0.1,
            "shifts": {name: {"n": N, "right": pack(right)} for name, right in shifts.items()},
        },
    )


def planted(tmp_path: Path, *pairs: tuple[float, float]) -> Results:
    """Return results of two networks, with their accuracies for each seed."""
    kept = results(tmp_path)
    for seed, (one, other) in enumerate(pairs):
        put(kept, ONE, seed, {"clean": one})
        put(kept, OTHER, seed, {"clean": other})
    return kept


CONTRAST = difference("one less other", ONE, OTHER, CLEAN)


def test_the_interval_is_that_of_the_paired_t_test(tmp_path: Path) -> None:
    kept = planted(tmp_path, (0.8, 0.7), (0.75, 0.72))
    found = weigh(CONTRAST, kept, [0, 1])
    assert found is not None
    rights = [[kept.right(one.task(seed, "whole"), "clean") for seed in (0, 1)] for one in (ONE, OTHER)]
    ours, theirs = (np.mean(of, axis=0) for of in rights)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.99)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.effect == pytest.approx(ours.mean() - theirs.mean(), abs=1e-12)
    assert found.by_seed == pytest.approx([a.mean() - b.mean() for a, b in zip(*rights, strict=True)], abs=1e-12)
    assert found.n == N
    # With four contrasts in a claim each interval is as sure as 1 - 0.01 / 4.
    wider = weigh(CONTRAST, kept, [0, 1], comparisons=4)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.9975)
    assert (wider.low, wider.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_where_no_image_differs_the_interval_is_that_of_a_share_of_which_none_was_seen(tmp_path: Path) -> None:
    found = weigh(difference("the same", ONE, ONE, CLEAN), planted(tmp_path, (0.8, 0.8)), [0])
    exact = stats.binomtest(0, N).proportion_ci(0.99, "exact")
    assert found.effect == 0
    assert (-found.low, found.high) == pytest.approx((exact.high, exact.high))
    assert found.verdict == "undecided"


@pytest.mark.parametrize(
    ("pairs", "limit", "below", "verdict"),
    [
        (((0.9, 0.6), (0.9, 0.6)), 0.0, False, "supported"),
        (((0.9, 0.6), (0.9, 0.6)), 0.0, True, "contradicted"),
        (((0.6, 0.9), (0.6, 0.9)), 0.0, True, "supported"),
        (((0.9, 0.6), (0.9, 0.6)), 0.5, False, "contradicted"),
        (((0.9, 0.6), (0.9, 0.6)), 0.3, False, "undecided"),
        (((0.7, 0.7), (0.7, 0.7)), 0.0, False, "undecided"),
        # The mean over both seeds is far above zero, but one of the trainings went the other way.
        (((0.95, 0.2), (0.5, 0.7)), 0.0, False, "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval_and_every_seed(tmp_path, pairs, limit, below, verdict) -> None:
    contrast = difference("one less other", ONE, OTHER, CLEAN, limit=limit, below=below)
    assert weigh(contrast, planted(tmp_path, *pairs), range(2)).verdict == verdict


def test_seeds_that_are_not_measured_in_full_do_not_count(tmp_path: Path) -> None:
    kept = planted(tmp_path, (0.9, 0.6), (0.9, 0.6))
    put(kept, ONE, 2, {"clean": 0.1})
    assert len(weigh(CONTRAST, kept, range(3)).by_seed) == 2
    assert weigh(CONTRAST, results(tmp_path), range(3)) is None


def test_as_many_images_are_asked_for_as_would_decide(tmp_path: Path) -> None:
    found = weigh(CONTRAST, planted(tmp_path, (0.70, 0.69)), [0])
    assert found.verdict == "undecided"
    needed = found.images_to_decide
    half = (found.high - found.low) / 2 * np.sqrt(N / needed)
    assert half <= abs(found.effect) <= half * 1.01
    assert weigh(CONTRAST, planted(tmp_path, (0.9, 0.6)), [0]).images_to_decide is None


def test_the_excess_over_the_clean_loss_is_a_sum_of_four_accuracies(tmp_path: Path) -> None:
    kept = results(tmp_path)
    put(kept, ONE, 0, {"clean": 0.8, "a": 0.5, "b": 0.3})
    put(kept, OTHER, 0, {"clean": 0.9, "a": 0.7, "b": 0.6})
    mean = {
        name: {shift: kept.right(one.task(0, "whole"), shift).mean() for shift in ("clean", "a", "b")}
        for name, one in (("one", ONE), ("other", OTHER))
    }
    lost = {name: (of["a"] + of["b"]) / 2 - of["clean"] for name, of in mean.items()}
    found = weigh(excess("excess", ONE, OTHER, ("a", "b")), kept, [0])
    assert found.effect == pytest.approx(lost["one"] - lost["other"], abs=1e-12)
    assert found.verdict == "supported"


def test_one_contrast_refutes_what_all_must_hold_and_proves_what_one_must(tmp_path: Path) -> None:
    kept = planted(tmp_path, (0.9, 0.6))
    above, below = weigh(CONTRAST, kept, [0]), weigh(Contrast("c", CONTRAST.terms, below=True), kept, [0])
    unsure = weigh(Contrast("u", CONTRAST.terms, limit=above.effect), kept, [0])
    assert [one.verdict for one in (above, below, unsure)] == ["supported", "contradicted", "undecided"]
    for found, all_must, one_must in (
        ([above, above], "supported", "supported"),
        ([below, below], "contradicted", "contradicted"),
        ([above, below], "contradicted", "supported"),
        ([above, unsure], "undecided", "supported"),
        ([below, unsure], "contradicted", "undecided"),
        ([unsure], "undecided", "undecided"),
    ):
        assert together(found) == all_must
        assert together(found, one_suffices=True) == one_must


def test_what_must_be_smaller_and_is_not_is_contradicted(tmp_path: Path) -> None:
    contrast = dataclasses.replace(CONTRAST, smaller=True)
    kept = planted(tmp_path, (0.9, 0.6))
    assert weigh(contrast, kept, [0]).verdict == "contradicted"  # both have 4,000 bytes
    kept.facts(ONE.task(0, "whole"))["bytes"] = 3999
    assert weigh(contrast, kept, [0]).verdict == "supported"


def test_every_contrast_compares_equally_many_accuracies() -> None:
    # A contrast of accuracies that does not sum to zero would measure an accuracy, not a difference.
    for claim in CLAIMS:
        assert claim.all_of or claim.any_of
        for contrast in claim.contrasts:
            assert sum(term.weight for term in contrast.terms) == 0, (claim.number, contrast.name)


def test_results_are_read_back_and_the_report_of_them_is_the_same_again(tmp_path: Path) -> None:
    kept = results(tmp_path)
    claim: Claim = CLAIMS[4]
    shares = {"clean": 0.9, **dict.fromkeys((*CORRUPTED, *JPEG, *TINY), 0.7)}
    for contrast in claim.contrasts:
        for seed in range(2):
            for term in contrast.terms:
                name = term.network.compression
                put(
                    kept, term.network, seed, {shift: share - 0.1 * (name == "half") for shift, share in shares.items()}
                )
    again = Results.read(kept.file)
    assert again.tasks == kept.tasks
    texts = []
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        write_report(again, range(2), tmp_path / place)
        texts.append({file.name: file.read_bytes() for file in (tmp_path / place).iterdir()})
    assert texts[0] == texts[1]
    text = texts[0]["study.md"].decode()
    assert "| 1 | Compressed networks" in text
    assert "**not measured**" in text
    row = next(line for line in text.splitlines() if line.startswith("| AdaSAP less plain pruning, corruptions"))
    found = weigh(claim.all_of[0], kept, range(2), comparisons=2)
    assert f"{100 * found.effect:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]" in row
    assert row.endswith("| supported |")


def test_a_task_s_name_tells_it_apart() -> None:
    tasks = [
        task for claim in CLAIMS for contrast in claim.contrasts for seed in (0, 1) for task in contrast.tasks(seed)
    ]
    assert len({task.name for task in tasks}) == len(set(tasks))
    assert isinstance(tasks[0], Task)


def test_what_decides_a_claim_is_planned_for_several_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")  # which the study extends for its processes
    from study import planned

    tasks = set(planned(range(3), []))
    for claim in CLAIMS:
        for contrast in (*claim.all_of, *claim.any_of):
            seeds = [seed for seed in range(3) if tasks.issuperset(contrast.tasks(seed))]
            assert len(seeds) >= (3 if claim.number == 5 else 2), (claim.number, contrast.name)


def test_each_network_of_the_drawn_tradeoff_is_named_and_no_name_covers_a_dot_or_another(tmp_path: Path) -> None:
    kept, model = results(tmp_path), Network("cifar10", "resnet20", "cifar10", "none")
    # Neighbours, as the study has them: the four on the left and the three on the right would lie over one another.
    drawn = {
        "sparse_clustered_int8": (132, 0.685), "clustered_int8": (159, 0.694), "sparse_int8": (169, 0.695),
        "clustered": (199, 0.69), "half_adasap": (506, 0.564), "half_phases": (504, 0.558), "half_uniform": (502, 0.556),
    }  # fmt: skip
    for name, (size, share) in drawn.items():
        network = dataclasses.replace(model, compression=name)
        put(kept, network, 0, dict.fromkeys((*CLEAN, *CORRUPTED), share))
        kept.facts(network.task(0, "whole"))["bytes"] = 1000 * size
    write_report(kept, [0], tmp_path)
    elements = list(ElementTree.parse(tmp_path / "study-tradeoff.svg").iter())  # noqa: S314 -- what was drawn here
    marks = [one for one in elements if one.tag.endswith("use") and "#1570ef" in one.attrib["style"]]
    dots = [(float(one.attrib["x"]), float(one.attrib["y"])) for one in marks]
    boxes = {}
    for one in elements:
        if one.text in drawn and one.tag.endswith("text"):
            anchor = one.attrib["style"].rpartition("text-anchor: ")[2]
            # A text's line is given, not its middle.
            middle = float(one.attrib["y"]) - 0.35 * FONT
            boxes[one.text] = Label(x=float(one.attrib["x"]), y=middle, anchor=anchor, text=one.text).box
    assert len(dots) == len(boxes) == len(drawn)
    for left, top, right, bottom in boxes.values():
        assert not any(left < x < right and top < y < bottom for x, y in dots)
    for one, other in combinations(boxes.values(), 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
