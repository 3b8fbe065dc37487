"""The published fronts from the published errors, and what an assessment says of a run: left out, warned, recommended."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS, SEVERITIES
from robustgate.core.errors import ConfigurationError, ResultsError
from robustgate.core.records import (
    Case,
    CaseResult,
    Finding,
    PolicyRecord,
    Results,
    RunRecord,
    Shift,
    Variant,
    VariantRecord,
)
from robustgate.engine.assessment import Assessment, Front, assess
from robustgate.engine.candidates import Candidate, Field, from_results
from robustgate.engine.error_table import COLUMNS, from_table
from robustgate.engine.overall import overall

TABLE = "compression_on_cifar10c.csv"
STUDY = ("accuracy", "mce_rounded", "compression_ratio")
CLEAN = Shift(kind="clean", name="clean")
FGSM = Shift(kind="adversarial", name="fgsm", attack="fgsm", norm="linf", eps=0.01, detail="linf, eps 0.01")
PGD = replace(FGSM, name="pgd", attack="pgd")
CELLS = [
    Shift(kind="corruption", name=f"{name}_s{severity}", corruption=name, severity=severity)
    for name in BENCHMARK_CORRUPTIONS
    for severity in SEVERITIES
]


def members(found: Assessment, model: str | None) -> set[str]:
    (front,) = [one for one in found.fronts if one.model == model]
    return set(front.members)


def test_the_published_front_of_all_architectures(real_data: Path) -> None:
    found = assess(from_table(real_data / TABLE))
    assert tuple(goal.name for goal in found.objectives) == STUDY
    assert members(found, None) == {
        "resnet50-PQAT",
        "resnet50-PQAT+Int8",
        "resnet50-PCQAT+Int8",
        "vgg19-P+C+Int8",
        "vgg19-PCQAT+Int8",
    }
    figures = {one.name: one.figures for one in found.candidates if one.name in members(found, None)}
    assert {
        name: (f"{100 * one['accuracy']:.2f}", f"{100 * one['mce_rounded']:.1f}", f"{one['compression_ratio']:.2f}")
        for name, one in figures.items()
    } == {
        "resnet50-PQAT": ("93.46", "76.7", "3.12"),
        "resnet50-PQAT+Int8": ("93.45", "76.7", "5.73"),
        "resnet50-PCQAT+Int8": ("92.67", "76.7", "8.13"),
        "vgg19-P+C+Int8": ("75.06", "95.0", "8.99"),
        "vgg19-PCQAT+Int8": ("74.19", "98.4", "9.43"),
    }


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("resnet50", "PQAT, PQAT+Int8, PCQAT+Int8"),
        ("vgg19", "Pruning, Pruning+Int8, P+C, P+C+Int8, QAT, CQAT+Int8, PQAT+Int8, PCQAT+Int8"),
        ("mobilenet_v2", "Clustering, P+C, P+C+Int8, CQAT+Int8, PQAT+Int8, PCQAT+Int8"),
    ],
)
def test_the_published_front_of_an_architecture(real_data: Path, model: str, expected: str) -> None:
    found = assess(from_table(real_data / TABLE), within=("architecture",))
    assert members(found, model) == {f"{model}-{name}" for name in expected.split(", ")}
    assert len(found.fronts) == 3
    assert found.warnings == ()


def test_unrounded_a_sixth_variant_is_on_the_front(real_data: Path) -> None:
    """By 0.03 points of mCE: 76.51 against 76.54, which the study's rounding makes one number."""
    field = from_table(real_data / TABLE)
    rounded, unrounded = assess(field), assess(field, ("accuracy", "mce", "compression_ratio"))
    assert members(unrounded, None) - members(rounded, None) == {"resnet50-Pruning"}
    assert members(unrounded, "resnet50") - members(rounded, "resnet50") == {"resnet50-Pruning"}
    assert all(members(unrounded, model) == members(rounded, model) for model in ("vgg19", "mobilenet_v2"))
    figures = {one.name: one.figures for one in field.candidates}
    assert [round(100 * figures[f"resnet50-{name}"]["mce"], 2) for name in ("Pruning", "PQAT+Int8")] == [76.51, 76.54]


def test_relative_figures_across_architectures_are_warned_of(real_data: Path) -> None:
    field = from_table(real_data / TABLE)
    found = assess(field)
    assert [warning.partition(" is against")[0] for warning in found.warnings] == ["mce_rounded", "compression_ratio"]
    assert found.warnings[0].endswith(
        "the front of mobilenet_v2, resnet50, vgg19 together mixes them; mean_corruption_accuracy means the same of all "
        "of them"
    )
    absolute = assess(field, ("accuracy", "mean_corruption_accuracy", "deflated_size"))
    assert absolute.warnings == ()
    # In absolute figures no variant of VGG-19 is left on the front: MobileNetV2's are smaller, and better.
    assert {name.partition("-")[0] for name in members(absolute, None)} == {"resnet50", "mobilenet_v2"}


def test_a_ranking_over_the_architectures(real_data: Path) -> None:
    found = assess(from_table(real_data / TABLE))
    by_size = found.rankings[2]
    assert (by_size.objective, len(by_size.blocks), len(by_size.compressions)) == ("compression_ratio", 3, 16)
    ranks = dict(zip(by_size.compressions, by_size.ranking.mean_ranks, strict=True))
    assert (ranks["PCQAT+Int8"], ranks["P+C+Int8"], ranks["Original"]) == (1, 2, 16)
    assert found.notes == ()


def candidate(name: str, accuracy: float | None, ratio: float | None = 1.0, **changes: Any) -> Candidate:
    """A variant of the compression `name`, of which two figures are known."""
    model, source = changes.pop("model", "net"), changes.pop("source", "day")
    figures = {"accuracy": accuracy, "compression_ratio": ratio}
    given = {"name": f"{model}-{name}-{source}", "model": model, "source": source, "compression": name}
    return Candidate(**(given | {"is_compressed": name != "none", "figures": figures} | changes))


def field(*candidates: Candidate, **changes: Any) -> Field:
    return Field(candidates=candidates, usual=("accuracy", "compression_ratio"), **changes)


def test_a_front_its_knee_and_its_volume() -> None:
    (front,) = assess(
        field(
            candidate("none", 0.9, 1.0), candidate("int8", 0.88, 4.0), candidate("int4", 0.8, 5.0), candidate("p", 0.8)
        )
    ).fronts
    assert (front.members, front.dominated) == (("net-none-day", "net-int8-day", "net-int4-day"), ("net-p-day",))
    assert front.knee == "net-int8-day"
    assert (front.worst, front.best) == (
        {"accuracy": 0.8, "compression_ratio": 1.0},
        {"accuracy": 0.9, "compression_ratio": 5.0},
    )
    assert front.hypervolume == pytest.approx(0.8 * 0.75)  # the others touch the box's sides, and beat nothing in it


def test_an_objective_in_which_all_are_alike_is_no_side_of_the_box() -> None:
    (front,) = assess(field(candidate("a", 0.9), candidate("b", 0.8), candidate("c", 0.85))).fronts
    assert (front.members, front.hypervolume) == (("net-a-day",), 1.0)
    (single,) = assess(field(candidate("a", 0.9))).fronts
    assert (single.knee, single.hypervolume) == ("net-a-day", None)


def test_a_variant_without_a_figure_is_named_and_takes_no_part() -> None:
    found = assess(field(candidate("a", 0.9), candidate("b", 0.99, None), candidate("c", None, None)))
    assert [(one.name, one.lacks) for one in found.left_out] == [
        ("net-b-day", ("compression_ratio",)),
        ("net-c-day", ("accuracy", "compression_ratio")),
    ]
    assert [front.members for front in found.fronts] == [("net-a-day",)]


def test_source_domains_are_never_compared_and_models_are_where_there_are_several() -> None:
    shown = field(
        candidate("a", 0.9, 1.0),
        candidate("a", 0.8, 3.0, model="other"),
        candidate("a", 0.7, 1.0, source="night"),
    )

    def places(fronts: Iterable[Front]) -> list[str]:
        return [one.place for one in fronts]

    assert places(assess(shown).fronts) == ["net on day", "other on day", "net on night", "all models on day"]
    assert places(assess(shown, within=("across",)).fronts) == ["all models on day", "all models on night"]
    assert assess(shown).warnings[0].startswith("compression_ratio is against each model's own reference")
    assert assess(shown, ("accuracy",)).warnings == ()


def test_names_that_are_no_objectives_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        assess(field(candidate("a", 0.9)), ("acuracy", "mce", "weight"))
    assert caught.value.problems[:2] == ("no objective 'acuracy' (did you mean 'accuracy'?)", "no objective 'weight'")


def test_without_any_figure_there_is_nothing_to_assess() -> None:
    with pytest.raises(ResultsError, match=r"^no variant has an objective: of 1, none has any$"):
        assess(replace(field(candidate("a", None, None)), usual=()))


def test_objectives_that_no_variant_has_together_are_refused_with_counts() -> None:
    shown = field(candidate("a", 0.9, None), candidate("b", None, 2.0), candidate("c", 0.9, None))
    with pytest.raises(
        ResultsError, match=r"^no variant has accuracy, compression_ratio: of 3, accuracy: 2, compressio"
    ):
        assess(shown)


GREEN = {"green": ("edge",)}


def recommended(*candidates: Candidate, complete: bool = True) -> tuple[str | None, str]:
    (found,) = assess(field(*candidates, policies=("edge",), complete=complete)).recommendations
    assert (found.policy, found.model, found.source) == ("edge", "net", "day")
    return found.name, found.reason


def test_the_knee_of_the_green_is_recommended() -> None:
    shown = [
        candidate("none", 0.95, 1.0, **GREEN),
        candidate("light", 0.93, 1.5, **GREEN),
        candidate("int8", 0.92, 4.0, **GREEN),
        candidate("slow", 0.91, 3.0, **GREEN),
        candidate("int4", 0.85, 6.0, **GREEN),
        candidate("int2", 0.30, 9.0),
    ]
    assert recommended(*shown) == (
        "net-int8-day",
        "of 4 green compressed variants no other beats 3, and it is the knee of their front",
    )
    assert recommended(*shown[:2], *shown[5:]) == (
        "net-light-day",
        "it is the only compressed variant that is green",
    )
    assert recommended(*shown[2:4]) == (
        "net-int8-day",
        "of 2 green compressed variants it is the only one that no other beats",
    )


def test_a_red_variant_is_never_recommended_and_one_that_beats_the_choice_is_told() -> None:
    name, reason = recommended(candidate("red", 0.95, 5.0), candidate("int8", 0.9, 4.0, **GREEN))
    assert name == "net-int8-day"
    assert reason.endswith("; what beats it is not green, or not compressed")


def test_without_a_green_compressed_variant_nothing_is_recommended() -> None:
    nothing = (None, "no compressed variant with all objectives is green")
    assert recommended(candidate("none", 0.95, 1.0, **GREEN), candidate("int8", 0.9, 4.0)) == nothing
    assert recommended(candidate("none", 0.95), candidate("int8", 0.9, 4.0, green=("cloud",))) == nothing
    assert recommended(candidate("none", 0.95), candidate("int8", 0.9, None, **GREEN)) == nothing


def test_of_an_incomplete_run_nothing_is_recommended() -> None:
    name, reason = recommended(candidate("int8", 0.9, 4.0, **GREEN), complete=False)
    assert (name, reason) == (None, "the run is not complete, so that no variant is green for certain")


def test_what_cannot_be_ranked_is_told() -> None:
    single = assess(field(candidate("a", 0.9), candidate("b", 0.8), candidate("c", 0.7)))
    assert single.rankings == ()
    assert single.notes[0] == (
        "no ranking by accuracy: it takes two models or source domains and three compressions that all of them have, "
        "and there are 1 and 3"
    )
    several = [
        candidate(name, value, source=source)
        for source in ("day", "night", "dusk")
        for name, value in (("a", 0.9), ("b", 0.8), ("c", 0.7), ("d", None if source == "dusk" else 0.6))
    ]
    found = assess(field(*several))
    assert [one.compressions for one in found.rankings] == [("a", "b", "c")]
    assert found.rankings[0].ranking.mean_ranks == (1.0, 2.0, 3.0)
    assert found.notes == (
        "not ranked by accuracy: d, which some model or source domain lacks",
        "no ranking by compression_ratio: the treatments are equal in every block: there is nothing to rank",
    )


def row(
    compression: str, shift: Shift, value: float | None, reference: float | None = None, **changes: Any
) -> CaseResult:
    variant = Variant(model="net", source="day", compression=compression)
    blank = CaseResult.of(Case(variant=variant, shift=shift), verdict="pass")
    return replace(blank, **({"value": value, "reference_value": reference, "n": 100, "n_total": 100} | changes))


def finding(verdict: str, policy: str = "edge", subject: str = "net-int8-day") -> Finding:
    given: dict[str, Any] = {"limit_kind": "min", "limit": 0.5, "value": 0.9, "low": 0.9, "high": 0.9, "message": ""}
    return Finding(policy=policy, rule="r", subject=subject, metric="accuracy", verdict=verdict, **given)  # type: ignore[arg-type]


def run(*rows: CaseResult, findings: tuple[Finding, ...] = (), on_undecided: Any = "fail", **changes: Any) -> Results:
    policies = tuple(
        PolicyRecord(
            name=name,
            confidence=0.99,
            scope="test_set",
            early_stop=False,
            familywise="holm",
            prove=None,
            on_undecided=on_undecided,
            interval="clopper_pearson",
            findings={},
            verdict="pass",
        )
        for name in ("edge", "cloud")
    )
    record = RunRecord(
        id="1",
        started="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        seed=0,
        device="cpu",
        processor="x86_64",
        policy="edge, cloud",
        confidence=0.99,
        policies=policies,
        versions={},
        config="robustgate.toml",
        config_sha256="c3" * 32,
        planned=len(rows),
        selected=len(rows),
        measured=len(rows),
        complete=True,
        verdict="pass",
    )
    variants = tuple(
        dict.fromkeys(Variant(model=one.model, source=one.source, compression=one.compression) for one in rows)
    )
    given = {"run": record, "variants": (), "cases": rows, "findings": findings, "overall": overall(variants, rows)}
    return Results(**(given | changes))


def test_the_figures_of_a_run() -> None:
    values = {"none": 0.5, "int8": 0.4}
    rows = [
        row(name, shift, value, None if name == "none" else 0.5) for name, value in values.items() for shift in CELLS
    ]
    rows += [row("none", CLEAN, 0.9), row("int8", CLEAN, 0.88, 0.9)]
    rows += [row("int8", FGSM, 0.3, 0.4), row("int8", PGD, 0.1, 0.2), row("none", FGSM, 0.4), row("none", PGD, 0.2)]
    record = VariantRecord(
        name="net-int8-day",
        model="net",
        source="day",
        compression="int8",
        format="onnx",
        artifact_sha256="a1" * 32,
        parameters=None,
        nonzero_parameters=None,
        size_bytes=1000,
        deflated_bytes=800,
        compression_ratio=3.9,
        latency_ms=0.5,
        memory_bytes=2**20,
        seconds_to_build=1.0,
    )
    none, int8 = from_results(run(*rows, variants=(record,))).candidates
    assert int8.figures == {
        "accuracy": 0.88,
        "mean_corruption_accuracy": 0.4,
        "mean_domain_accuracy": None,
        "robust_accuracy": 0.1,
        "mce": 1.2,
        "mce_rounded": 1.2,
        "compression_ratio": 3.9,
        "size": 1000,
        "deflated_size": 800,
        "latency": 0.5,
        "memory": 2**20,
    }
    assert (none.figures["mce"], none.figures["robust_accuracy"], none.figures["size"]) == (1.0, 0.2, None)
    assert (none.is_compressed, int8.is_compressed) == (False, True)


def test_a_rounded_error_is_that_of_each_corruption() -> None:
    # Fourteen corruptions at 100.4 %, one at 101.6 %: on average 100.48, rounded 100 and 102, on average 100.1.
    rows = []
    for shift in CELLS:
        error = 0.508 if shift.corruption == "fog" else 0.502
        rows += [row("none", shift, 0.5), row("int8", shift, 1 - error, 0.5)]
    figures = from_results(run(*rows)).candidates[1].figures
    assert (figures["mce"], figures["mce_rounded"]) == (pytest.approx(1.0048), 1.001)
    partial = from_results(run(*rows[:-10])).candidates[1].figures  # without the last corruption
    assert (partial["mce"], partial["mce_rounded"]) == (None, None)


def test_a_robust_accuracy_needs_every_attack_in_full() -> None:
    for changes in ({"value": None}, {"n": 60}):
        rows = [row("int8", FGSM, 0.3, 0.4), replace(row("int8", PGD, 0.1, 0.2), **changes)]
        assert from_results(run(*rows)).candidates[0].figures["robust_accuracy"] is None
    assert from_results(run(row("int8", CLEAN, 0.9, 0.9))).candidates[0].figures["robust_accuracy"] is None


def test_a_control_is_not_compressed() -> None:
    found = from_results(run(row("control_fp60", CLEAN, 0.9), row("fp60", CLEAN, 0.9)))
    assert [one.is_compressed for one in found.candidates] == [False, True]


@pytest.mark.parametrize(
    ("verdicts", "on_undecided", "is_green"),
    [
        (["pass"], "fail", True),
        (["pass", "waived"], "fail", True),
        (["pass", "undecided"], "fail", False),
        (["pass", "undecided"], "pass", True),
        (["pass", "fail"], "pass", False),
        (["incomplete"], "pass", False),
        ([], "pass", False),  # under no rule
    ],
)
@pytest.mark.parametrize("on_case", [True, False])
def test_green_is_what_a_policy_lets_pass(
    verdicts: list[str], on_undecided: str, is_green: bool, on_case: bool
) -> None:
    about = tuple(finding(verdict) for verdict in verdicts)
    others = (finding("fail", policy="cloud"), finding("fail", subject="net-int4-day"))
    case = row("int8", CLEAN, 0.9, 0.9, findings=about if on_case else ())
    results = run(case, findings=others if on_case else (*about, *others), on_undecided=on_undecided)
    assert from_results(results).candidates[0].green == (("edge",) if is_green else ())


@pytest.mark.parametrize("changes", [{"value": None, "verdict": "incomplete"}, {"verdict": "error"}])
def test_a_variant_with_an_unmeasured_case_is_green_under_no_policy(changes: dict[str, Any]) -> None:
    attacked = replace(row("int8", PGD, 0.1, 0.2), **changes)
    rows = [row("int8", CLEAN, 0.9, 0.9, findings=(finding("pass"),)), attacked]
    assert from_results(run(*rows)).candidates[0].green == ()


def table(path: Path, *rows: tuple[object, ...], columns: Iterable[str] = COLUMNS) -> Path:
    with path.open("w", newline="") as lines:
        csv.writer(lines).writerows([tuple(columns), *rows])
    return path


def test_a_table_over_a_part_of_the_benchmark_has_no_mce_and_one_without_reference_no_ratio(tmp_path: Path) -> None:
    path = table(
        tmp_path / "part.csv",
        ("net", "Original", 100, 0.1, "fog", 1, 0.2),
        ("net", "Original", 100, 0.1, "fog", 3, 0.4),
        ("net", "int8", 25, 0.2, "fog", 1, 0.3),
        ("other", "int8", 25, 0.2, "fog", 1, 0.3),
        ("other", "int8", 25, 0.2, "fog", 3, 0.7),
    )
    original, part, alone = (one.figures for one in from_table(path).candidates)
    assert (original["accuracy"], original["mean_corruption_accuracy"], original["mce"]) == (0.9, 0.7, None)
    assert (part["mean_corruption_accuracy"], part["compression_ratio"]) == (None, 4.0)
    assert (alone["mean_corruption_accuracy"], alone["compression_ratio"], alone["mce_rounded"]) == (0.5, None, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "expected a row for each corruption and severity, got none"),
        ([("net", "a", "x", 0.1, "fog", 1, 0.2)], "line 2: expected numbers, got invalid literal"),
        ([("net", "a", 0, 0.1, "fog", 1, 0.2)], r"line 2: expected at least 1 byte and errors in \[0, 1\], got 0"),
        (
            [("net", "a", 9, 0.1, "fog", 1, 20.0)],
            r"line 2: expected at least 1 byte and errors in \[0, 1\], got 9, 0.1, 20",
        ),
        ([("net", "a", 9, 0.1, "fog", 1, "nan")], r"line 2: expected at least 1 byte and errors in \[0, 1\]"),
        ([("net", "a", 9, 0.1)], "line 2: expected numbers"),
        ([("net", "a", 9, 0.1, "fog", 1, 0.2)] * 2, "line 3: net a has fog, severity 1, twice"),
        (
            [("net", "a", 9, 0.1, "fog", 1, 0.2), ("net", "a", 8, 0.1, "fog", 2, 0.2)],
            "line 3: net a has another zip_bytes or clean_error above",
        ),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_line(
    tmp_path: Path, rows: list[tuple[object, ...]], message: str
) -> None:
    with pytest.raises(ResultsError, match=message):
        from_table(table(tmp_path / "bad.csv", *rows))


def test_a_table_without_a_column_or_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"expected the columns architecture, .*, without error, severity"):
        from_table(table(tmp_path / "bad.csv", columns=COLUMNS[:5]))
    with pytest.raises(ResultsError, match="cannot read it"):
        from_table(tmp_path / "missing.csv")
