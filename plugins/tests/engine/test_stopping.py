"""How far a case is measured, through a real gate: domains whose outcomes are planted sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustgate.config import load
from robustgate.core.errors import RobustgateError
from robustgate.core.records import Case, CaseResult, Finding
from robustgate.engine import measurements
from robustgate.engine.gate import Gate
from robustgate.engine.measurements import drawing_order
from robustgate.engine.plan import make_plan
from robustgate.statistics.proportion import clopper_pearson
from robustgate.statistics.sequential import betting_interval, looks

TODAY = date(2026, 6, 15)
N = 400
FP25, NONE = "tiny-fp25-day", "tiny-none-day"
CONFIGURATION = """
[gate]
cache = "{cache}"
[domains.day]
kind = "npz"
files = {{ train = "day.npz", calibration = "day.npz", test = "day.npz" }}
{targets}
[models.tiny]
build = "tiny_network:net"
normalize = "inside"
weights = {{ day = "tiny.safetensors" }}
[compressions.fp25]
steps = [{{ method = "filter_pruning", ratio = 0.25 }}]
[shifts]
pairs = [{pairs}]
[masking]
enabled = false
{policies}
"""
# What an image is: bright for both networks, or so near the threshold that only the reference calls it bright.
BRIGHT, BETWEEN = 200, 130


def planted(right: int, n: int = N, seed: int = 0) -> np.ndarray:
    """So many samples right, in some order of the draw."""
    return np.random.default_rng(seed).permutation(n) < right


class World:
    """A project of the tiny network whose domains hold planted outcomes, in the order in which samples are drawn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.targets: list[str] = []

    def plant(self, domain: str, variant: np.ndarray, reference: np.ndarray | None = None) -> None:
        """Make a domain on which the variant, and its reference, are right on these samples (n,)."""
        reference = variant if reference is None else reference
        levels = np.where(variant == reference, BRIGHT, BETWEEN).astype(np.uint8)
        labels = reference.astype(np.int64)  # the reference calls all of them bright
        order = drawing_order(0, len(variant))
        images, classes = np.empty((len(order), 8, 8, 3), np.uint8), np.empty(len(order), np.int64)
        images[order], classes[order] = levels[:, None, None, None], labels
        np.savez(self.folder / f"{domain}.npz", images=images, labels=classes, classes=np.array(["dark", "bright"]))
        if domain != "day":
            self.targets.append(domain)

    def gate(
        self, policies: str, policy: str | None = None, cache: str = "cache", only: Iterable[str] | None = None
    ) -> Gate:
        text = CONFIGURATION.format(
            cache=cache,
            targets="\n".join(
                f'[domains.{one}]\nkind = "npz"\nfiles = {{ test = "{one}.npz" }}' for one in self.targets
            ),
            pairs=", ".join(f'["day", "{one}"]' for one in self.targets),
            policies=policies,
        )
        path = self.folder / "robustgate.toml"
        path.write_text(text)
        names = None if only is None else set(only)
        plan = make_plan(load(path), policy)
        return Gate(plan, today=TODAY, is_selected=lambda case: names is None or case.name in names)


@pytest.fixture
def world(tiny) -> World:
    found = World(tiny.folder)
    found.plant("day", planted(360))
    return found


def policy(*settings: str, name: str = "edge", rules: Iterable[str] = ("min = 0.5",), where: str = "fp25") -> str:
    text = "\n".join((f"[policies.{name}]", *settings))
    for index, rule in enumerate(rules):
        text += f'\n[[policies.{name}.rules]]\nname = "rule {index}"\nwhere = {{ compression = "{where}" }}\n{rule}'
    return f"{text}\n"


def result(gate: Gate, name: str) -> CaseResult:
    return gate.result(case_named(gate, name))


def case_named(gate: Gate, name: str) -> Case:
    return next(case for case in gate.plan.cases if case.name == name)


def parts(gate: Gate, name: str) -> list[str]:
    """What the cache holds of a case, part by part."""
    identity = gate.measurements._identity(case_named(gate, name))
    names = gate.foundry.store.parts(measurements.KIND, identity)
    return sorted(names, key=lambda name: int(name.partition("-")[0]))


def row(found: CaseResult) -> CaseResult:
    """What a row says of a case, whoever measured it and when."""
    return replace(found, seconds=0.0, cached=False)


# The first look at which all is decided.


def certain_at(right: np.ndarray, *floors: float) -> int:
    """When what is right, and what still may be, lies on one side of all floors."""
    n = len(right)
    for look in looks(n):
        least, most = right[:look].sum() / n, (right[:look].sum() + n - look) / n
        if all(least >= floor or most < floor for floor in floors):
            return look
    return n


def confident_at(right: np.ndarray, floor: float, confidence: float, scope: str = "test_set") -> int:
    for look in looks(len(right)):
        if scope == "test_set" and look == len(right):
            break
        total = len(right) if scope == "test_set" else None
        found = betting_interval(right[:look], confidence, least=0, most=1, total=total)
        if found.low >= floor or found.high < floor:
            return look
    return len(right)


@pytest.mark.parametrize(("floor", "verdict"), [(0.5, "pass"), (0.7, "pass"), (0.95, "fail"), (0.9, "pass")])
def test_certain_stops_where_the_rest_cannot_turn_the_verdict(world: World, floor: float, verdict: str) -> None:
    right = planted(360)
    gate = world.gate(policy('early_stop = "certain"', rules=[f"min = {floor}"]))
    found = result(gate, FP25)
    expected = certain_at(right, floor)
    assert (found.n, found.n_total, found.correct) == (expected, N, int(right[:expected].sum()))
    assert (found.verdict, [one.verdict for one in found.findings]) == (verdict, [verdict])
    # 360 are right: a floor of 200 is reached at the earliest look after it, one of 360 with the last sample alone.
    assert expected == {0.5: 250, 0.7: 350}.get(floor, expected)
    assert (expected == N) is (floor == 0.9)


@pytest.mark.parametrize("scope", ["test_set", "population"])
@pytest.mark.parametrize("floor", [0.5, 0.7, 0.8, 0.97])
def test_confident_stops_where_the_sequence_is_decided(world: World, scope: str, floor: float) -> None:
    right = planted(360)
    settings = ('early_stop = "confident"', f'scope = "{scope}"')
    gate = world.gate(policy(*settings, rules=[f"min = {floor}", "max_drop = 0.5"]))
    found = result(gate, FP25)
    # Two findings share the error, and a drop of nothing is seen at once.
    expected = confident_at(right, floor, 1 - 0.01 / 2, scope)
    assert (found.n, found.verdict) == (expected, "pass" if floor < 0.9 else "fail")
    assert expected < N
    one, drop = found.findings
    interval = betting_interval(right[:expected], 0.995, least=0, most=1, total=N if scope == "test_set" else None)
    assert (one.low, one.high) == (interval.low, interval.high)
    assert drop.verdict == "pass"
    alone = result(world.gate(policy(*settings, 'familywise = "none"', rules=[f"min = {floor}"])), FP25)
    assert alone.n == confident_at(right, floor, 0.99, scope) <= expected


def test_the_slowest_rule_and_the_strictest_policy_decide_when(world: World) -> None:
    right = planted(360)
    lenient, strict = (
        policy('early_stop = "certain"', name=name, rules=[f"min = {floor}"])
        for name, floor in (("edge", 0.5), ("cloud", 0.8))
    )
    for chosen, floors in (("edge", [0.5]), ("cloud", [0.8]), ("edge,cloud", [0.5, 0.8]), ("cloud,edge", [0.8, 0.5])):
        found = result(world.gate(lenient + strict, chosen), FP25)
        assert found.n == certain_at(right, *floors), chosen
        assert [one.policy for one in found.findings] == chosen.split(",")
    both = result(world.gate(policy('early_stop = "certain"', rules=["min = 0.5", "min = 0.8"])), FP25)
    assert both.n == certain_at(right, 0.8) > certain_at(right, 0.5)


def test_a_drop_stops_it_where_the_rest_cannot_turn_it(world: World) -> None:
    # Nothing is ever lost: of 400 samples, what is left can bring no drop above 30 points once 280 are seen.
    world.plant("night", planted(200))
    gate = world.gate(policy('early_stop = "certain"', rules=["max_drop = 0.3"]))
    found = result(gate, f"{FP25[:9]}-day_to_night")
    assert (found.n, found.findings[0].low, found.findings[0].high) == (300, -0.25, 0.25)
    # The reference is measured as far as the drop needs it.
    assert parts(gate, "tiny-none-day_to_night") == ["0-50", "50-100", "100-150", "150-200", "200-250", "250-300"]
    assert parts(gate, "tiny-fp25-day_to_night") == parts(gate, "tiny-none-day_to_night")
    assert parts(gate, NONE) == []


# What is measured in full, come what may.


def test_a_policy_that_stops_nothing_and_a_case_under_no_rule(world: World) -> None:
    world.plant("night", planted(300))
    stops = policy('early_stop = "certain"')
    goes_on = policy(name="cloud", rules=["min = 0.5"]).replace("compression", "name").replace("fp25", FP25)
    gate = world.gate(stops + goes_on, "edge,cloud")
    whole = {case.name: gate.stopping.is_whole(case) for case in gate.plan.cases}
    assert whole == {
        NONE: True,  # under no rule
        "tiny-none-day_to_night": True,
        FP25: True,  # the cloud's policy needs it
        "tiny-fp25-day_to_night": False,
    }
    for case in gate.plan.cases:
        assert (gate.result(case).n == N) is whole[case.name]
    assert parts(gate, FP25) == ["0-400"]
    assert parts(gate, "tiny-fp25-day_to_night") == ["0-50", "50-100", "100-150", "150-200", "200-250", "250-300"]
    alone = world.gate(stops + goes_on, "edge", cache="other")
    assert result(alone, FP25).n < N


def test_a_case_that_a_rule_over_shifts_needs(world: World) -> None:
    for target in ("night", "dusk"):
        world.plant(target, planted(300))
    over = '\n[[policies.edge.rules]]\nname = "bears domains"\nwhere = { compression = "fp25" }\nrule = "worst_domain"\nmin = 0.1\n'
    gate = world.gate(policy('early_stop = "certain"', rules=["min = 0.5"], where="*") + over)
    whole = {case.name for case in gate.plan.cases if gate.stopping.is_whole(case)}
    assert whole == {f"tiny-{one}-day_to_{target}" for one in ("none", "fp25") for target in ("night", "dusk")}
    assert all((result(gate, case.name).n == N) == (case.name in whole) for case in gate.plan.cases)


# The same verdicts as in full.


@pytest.mark.parametrize("scope", ["test_set", "population"])
def test_certain_gives_the_verdicts_of_a_full_measurement(world: World, scope: str) -> None:
    # How many the variant has right, and on how many, drawn at random, its reference differs.
    drawn = ((0, 300), (120, 0), (195, 40), (199, 40), (200, 40), (201, 40), (205, 40), (280, 200), (400, 300))
    for index, (right, differ) in enumerate(drawn):
        variant = planted(right, seed=index)
        world.plant(f"d{right}", variant, variant ^ planted(differ, seed=100 + index))
    for rule in ("min = 0.5", "max_drop = 0.3"):
        full = world.gate(policy(f'scope = "{scope}"', rules=[rule]), cache="full")
        early = world.gate(policy(f'scope = "{scope}"', 'early_stop = "certain"', rules=[rule]))
        verdicts, used = set(), []
        for right, _ in drawn:
            whole, part = (result(gate, f"tiny-fp25-day_to_d{right}") for gate in (full, early))
            assert (part.verdict, whole.n) == (whole.verdict, N), (rule, right)
            verdicts.add(whole.verdict)
            used.append(part.n)
        assert verdicts >= {"pass", "fail"}
        assert ("undecided" in verdicts) <= (scope == "population")
        assert min(used) < N
        assert rule != "min = 0.5" or (("undecided" in verdicts) is (scope == "population") and max(used) == N)


# What was kept.


def test_a_killed_run_goes_on_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    text = policy('early_stop = "certain"')
    undisturbed = result(world.gate(text, cache="other"), FP25)
    assert undisturbed.n == 250
    measure, calls = measurements.measure_natural, []

    def killed(*given: Any) -> Any:
        calls.append(given[-1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*given)

    monkeypatch.setattr(measurements, "measure_natural", killed)
    gate = world.gate(text)
    with pytest.raises(KeyboardInterrupt):
        result(gate, FP25)
    # The variant's first 50, its reference's, and the next 50 that nobody finished.
    assert (parts(gate, FP25), parts(gate, NONE)) == (["0-50"], ["0-50"])
    calls[:] = [None] * 3  # no more
    again = world.gate(text)
    found = result(again, FP25)
    assert len(calls) - 3 == 2 * 4
    assert row(found) == row(undisturbed)
    assert parts(again, FP25) == ["0-50", "50-100", "100-150", "150-200", "200-250"]


@pytest.mark.parametrize("early_stop", ["certain", "confident"])
def test_a_longer_measurement_that_was_kept_changes_nothing(world: World, early_stop: str) -> None:
    text = policy(f'early_stop = "{early_stop}"', rules=["min = 0.5", "max_drop = 0.3"])
    fresh = result(world.gate(text, cache="other"), FP25)
    assert fresh.n < N
    full = world.gate(policy())
    assert result(full, FP25).n == N
    after = world.gate(text)
    assert row(result(after, FP25)) == row(fresh)
    assert parts(after, FP25) == ["0-400"]
    # And what stopped early is no hindrance to a full measurement.
    later = world.gate(policy(), cache="other")
    assert row(result(later, FP25)) == row(result(full, FP25))


# One error for all findings.


def edge_of(limit: float, low: float, high: float) -> int:
    """How many of N are right where an exact interval at `low` clears the limit, and one at `high` does not."""
    found = [
        right for right in range(N) if clopper_pearson(right, N, high).low < limit <= clopper_pearson(right, N, low).low
    ]
    return found[0]


@pytest.fixture
def family(world: World) -> World:
    """Three findings: one clear, one that is decided once that one is, and one that is once both are."""
    world.plant("day", planted(360))
    world.plant("second", planted(edge_of(0.5, 1 - 0.01 / 2, 1 - 0.01 / 3), seed=1))
    world.plant("third", planted(edge_of(0.5, 1 - 0.01, 1 - 0.01 / 2), seed=2))
    return world


CASES = (FP25, "tiny-fp25-day_to_second", "tiny-fp25-day_to_third")


@pytest.mark.parametrize("early_stop", ["false", '"certain"'])
def test_the_undecided_are_decided_once_others_are_in_any_order(family: World, early_stop: str) -> None:
    text = policy('scope = "population"', f"early_stop = {early_stop}")
    found: list[list[Finding]] = []
    for order in permutations(CASES):
        gate = family.gate(text)
        by_name = {name: result(gate, name).findings[0] for name in order}
        found.append([by_name[name] for name in CASES])
    assert all(one == found[0] for one in found)
    assert [one.verdict for one in found[0]] == ["pass"] * 3
    # Each at the level of its own step: the clear one at that of the first.
    if early_stop == "false":
        rights = [planted(360).sum(), *(planted(n).sum() for n in (_right(family, "second"), _right(family, "third")))]
        for finding, right, error in zip(found[0], rights, (0.01 / 3, 0.01, 0.01), strict=True):
            assert finding.low == clopper_pearson(int(right), N, 1 - error).low


def _right(world: World, domain: str) -> int:
    return int(np.load(world.folder / f"{domain}.npz")["labels"].sum())


def test_without_holm_each_stands_alone(family: World) -> None:
    gate = family.gate(policy('scope = "population"', 'familywise = "none"'))
    for name in CASES:
        finding = result(gate, name).findings[0]
        right = _right(family, name.rpartition("_")[2]) if "_to_" in name else 360
        assert (finding.verdict, finding.low) == ("pass", clopper_pearson(right, N, 0.99).low)


@pytest.mark.parametrize(
    ("only", "verdicts"),
    [
        (CASES[1:2], ["undecided"]),
        (CASES[2:], ["undecided"]),
        (CASES[1:], ["undecided", "undecided"]),
        ((CASES[0], CASES[1]), ["pass", "pass"]),
        ((CASES[0], CASES[2]), ["pass", "undecided"]),
    ],
)
def test_a_selection_that_leaves_the_others_out_decides_no_more_than_it_measures(
    family: World, only: tuple[str, ...], verdicts: list[str]
) -> None:
    gate = family.gate(policy('scope = "population"'), only=only)
    assert [result(gate, name).verdict for name in only] == verdicts
    left_out = set(CASES) - set(only)
    assert all(parts(gate, name) == [] for name in left_out)


def test_a_case_that_cannot_be_measured_decides_nothing_and_breaks_nothing(family: World) -> None:
    text = policy('scope = "population"')
    (family.folder / "second.npz").write_bytes(b"no archive")
    gate = family.gate(text)
    with pytest.raises(RobustgateError):
        result(gate, CASES[1])
    assert result(gate, CASES[0]).verdict == "pass"
    assert result(gate, CASES[2]).verdict == "undecided", "only one of the other two is decided"


def test_policies_do_not_share_their_error(family: World) -> None:
    edge = policy('scope = "population"')
    cloud = policy('scope = "population"', name="cloud", rules=["min = 0.5"] * 1).replace(
        '"fp25"', '"fp25", name = "*third"'
    )
    found = result(family.gate(edge + cloud, "cloud"), CASES[2])
    assert found.verdict == "pass"
    gate = family.gate(edge + cloud, "edge,cloud", only=CASES[2:])
    verdicts = {one.policy: one.verdict for one in result(gate, CASES[2]).findings}
    assert verdicts == {"edge": "undecided", "cloud": "pass"}
    assert result(gate, CASES[2]).verdict == "undecided"


# Who must prove what, and what is excused.

SETTINGS = {
    "undecided": (),
    "fail": ('prove = "good"',),
    "pass": ('prove = "bad"',),
}


@pytest.mark.parametrize("early_stop", ["certain", "confident"])
def test_what_is_never_decided_is_measured_to_the_end_whoever_must_prove_it(world: World, early_stop: str) -> None:
    world.plant("night", planted(200))
    name = "tiny-fp25-day_to_night"
    for verdict, settings in SETTINGS.items():
        gate = world.gate(policy('scope = "population"', f'early_stop = "{early_stop}"', *settings))
        found = result(gate, name)
        assert (found.n, found.verdict) == (N, verdict)
        assert ("not proven" in found.findings[0].message) is (verdict != "undecided")


@pytest.mark.parametrize("settings", SETTINGS.values())
@pytest.mark.parametrize(("floor", "verdict"), [(0.5, "pass"), (0.97, "fail")])
def test_the_burden_of_proof_stops_nothing_earlier(
    world: World, settings: tuple[str, ...], floor: float, verdict: str
) -> None:
    text = policy('early_stop = "certain"', *settings, rules=[f"min = {floor}"])
    found = result(world.gate(text), FP25)
    assert (found.n, found.verdict) == (certain_at(planted(360), floor), verdict)


@pytest.mark.parametrize("on_undecided", ["fail", "pass"])
def test_what_an_undecided_finding_does_to_a_test_stops_nothing_earlier(world: World, on_undecided: Any) -> None:
    world.plant("night", planted(200))
    gate = world.gate(policy('scope = "population"', 'early_stop = "certain"', f'on_undecided = "{on_undecided}"'))
    found = result(gate, "tiny-fp25-day_to_night")
    assert (found.n, found.verdict) == (N, "undecided")
    assert gate.plan.policy("edge").is_red(found.verdict) is (on_undecided == "fail")


def test_a_waiver_stops_nothing_earlier(world: World) -> None:
    waiver = '[[policies.edge.waivers]]\nwhere = { compression = "fp25" }\nuntil = 2999-01-01\nreason = "ticket 1"\n'
    text = policy('early_stop = "certain"', rules=["min = 0.95"])
    plain, waived = (result(world.gate(one), FP25) for one in (text, text + waiver))
    assert (plain.verdict, waived.verdict) == ("fail", "waived")
    assert plain.n == waived.n == certain_at(planted(360), 0.95)


def test_other_variants_and_cases_are_asked_about_the_same_samples(world: World) -> None:
    # The reference alone is right on these 100: the planted pairs come out as they were drawn.
    variant, reference = planted(250), planted(350)
    world.plant("night", variant, reference)
    gate = world.gate(policy('early_stop = "certain"', rules=["max_drop = 0.05"]))
    found = result(gate, "tiny-fp25-day_to_night")
    lost = (reference & ~variant)[: found.n]
    assert found.drop == pytest.approx(lost.sum() / found.n)
    # Some 87 of the first 350 are lost, and at most the other 50 can be gained back: above 20, which 5 points are.
    assert (found.n, found.verdict) == (350, "fail")
    assert found.findings[0].low == pytest.approx((lost.sum() - 50) / N)


def test_looks_are_the_only_places_where_it_stops(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = world.gate(policy('early_stop = "certain"'))
    asked: list[int] = []
    measure: Callable[..., Any] = gate.stopping._seen

    def noted(case: Case, upto: int) -> Any:
        asked.append(upto)
        return measure(case, upto)

    monkeypatch.setattr(gate.stopping, "_seen", noted)
    assert result(gate, FP25).n == 250
    assert list(dict.fromkeys(asked)) == [50, 100, 150, 200, 250]


# Baselines.


def test_a_case_that_has_no_baseline_yet_is_measured_in_full(world: World) -> None:
    edge = policy('early_stop = "confident"', rules=("min = 0.5", 'max_drop = 0.05\nmax_drop_from = "baseline"'))
    found = result(world.gate(edge), FP25)
    assert (found.n, found.verdict) == (N, "incomplete")
    assert result(world.gate(policy('early_stop = "confident"')), FP25).n < N
