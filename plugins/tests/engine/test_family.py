"""How many findings share a policy's error, counted by hand, and what each may take of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from robustgate.engine import family
from robustgate.engine.judging import Judging
from robustgate.engine.plan import Plan

Planned = Callable[..., Plan]

# Five variants (none, control, fp60, fp60_ptsq, fp25) under six shifts, all of them above the floor: 30.
FLOOR = 'name = "floor"\nmin = 0.4\n'
RULES = """
[[policies.edge.rules]]
name = "holds"  # on clean images, of all variants but the reference: 4
where = { kind = "clean" }
max_drop = 0.1
[[policies.edge.rules]]
name = "both"  # a floor and a drop of one case: 2
where = { attack = "pgd", compression = "fp25" }
min = 0.1
max_drop = 0.3
[[policies.edge.rules]]
name = "compression alone"  # of what was fine-tuned, fp60 and fp60_ptsq, under two severities of fog: 4
where = { kind = "corruption" }
max_drop = 0.1
max_drop_from = "control"
[[policies.edge.rules]]
name = "as before"  # one case: 1
where = { name = "resnet18-fp25-amazon" }
max_drop = 0.0
max_drop_from = "baseline"
[[policies.edge.rules]]
name = "keeps"  # two bounds of each of 5 variants: 10 where they are inferred
rule = "retention"
min = 0.7
floor = 0.5
[[policies.edge.rules]]
name = "bears domains"  # one bound: 1
where = { compression = "fp25" }
rule = "worst_domain"
min = 0.2
[[policies.edge.rules]]
name = "fits"  # a size is exact
rule = "size"
max = "3 MB"
[[policies.edge.rules]]
name = "fast"  # a timing's error is its own
where = { compression = "fp25" }
rule = "latency"
max_ratio = 1.0
[[policies.edge.rules]]
name = "steady"  # judged by what was counted
where = { compression = "fp25" }
rule = "stability"
max = 0.1
"""
MASKING = ("[masking]\nenabled = false", "[masking]\nenabled = true")
ON_CASES = 30 + 4 + 2 + 4 + 1
ON_VARIANTS = 10 + 1


@pytest.fixture
def judging(planned: Planned) -> Callable[..., Judging]:
    def one(*lines: str, rules: str = RULES, masking: bool = False) -> Judging:
        own = "\n".join(("[policies.edge]", *lines, "[[policies.edge.rules]]"))
        changes = (("[policies.edge]\n[[policies.edge.rules]]", own), *([MASKING] if masking else []))
        (found,) = planned(*changes, extra=rules).policies
        return found

    return one


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), 0),
        (('early_stop = "certain"',), 0),
        (('early_stop = "confident"',), ON_CASES),
        (('scope = "population"',), ON_CASES + ON_VARIANTS),
        (('scope = "population"', 'early_stop = "certain"'), ON_CASES + ON_VARIANTS),
        (('scope = "population"', 'early_stop = "confident"'), ON_CASES + ON_VARIANTS),
    ],
)
def test_the_findings_that_rest_on_a_part_are_counted(judging, lines: tuple[str, ...], expected: int) -> None:
    found = judging(*lines)
    assert family.size(found) == expected
    assert family.confidence(found) == pytest.approx(1 - 0.01 / max(1, expected), abs=1e-15)
    none = judging(*lines, 'familywise = "none"')
    assert family.confidence(none) == 0.99


def test_checks_for_masking_are_not_counted_and_a_floor_that_names_them_is(judging) -> None:
    population = 'scope = "population"'
    assert family.size(judging(population, masking=True)) == ON_CASES + ON_VARIANTS
    named = RULES + '[[policies.edge.rules]]\nname = "stands"\nwhere = { kind = "masking", norm = "l2" }\nmin = 0.1\n'
    found = judging(population, rules=named, masking=True)
    checked = [name for name in found.case_rules if name.endswith("-l2")]
    assert len(checked) == 5
    assert family.size(found) == ON_CASES + ON_VARIANTS + len(checked)
    # They are a few samples of the test set, whatever else is measured in full.
    assert family.size(judging(rules=named, masking=True)) == len(checked)


def test_a_drop_is_counted_only_where_there_is_something_to_compare_with(planned: Planned) -> None:
    both = ("min = 0.4", "min = 0.4\nmax_drop = 0.1")
    (found,) = planned(both, ("[policies.edge]\n", '[policies.edge]\nscope = "population"\n')).policies
    references = [name for name in found.case_rules if "-none-" in name]
    assert family.size(found) == 2 * len(found.case_rules) - len(references)


def test_a_family_of_one_and_an_empty_one_leave_the_confidence_as_it_is(planned: Planned) -> None:
    one = ("min = 0.4", 'min = 0.4\nwhere = { name = "resnet18-fp25-amazon" }')
    (found,) = planned(one, ("[policies.edge]\n", '[policies.edge]\nscope = "population"\n')).policies
    assert (family.size(found), family.confidence(found)) == (1, 0.99)
    (found,) = planned(one).policies
    assert (family.size(found), family.confidence(found)) == (0, 0.99)
    assert family.left_over(found, lambda level: pytest.fail("there is nothing that could err")) == 0.99


def test_each_policy_is_a_family_of_its_own(planned: Planned) -> None:
    cloud = '\n[policies.cloud]\nscope = "population"\n[[policies.cloud.rules]]\nname = "one"\nmin = 0.5\n'
    cloud += 'where = { kind = "clean" }\n'
    edge, other = planned(extra=cloud, policy="edge,cloud").policies
    assert (family.size(edge), family.size(other)) == (0, 5)


@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_the_left_over_are_judged_as_holm_judges_them(judging, confidence: float) -> None:
    found = judging('scope = "population"', f"confidence = {confidence}", rules="")
    assert family.size(found) == 30
    random, more = np.random.default_rng(3), 0
    for _ in range(25):
        p = random.random(30) ** random.integers(1, 12)
        level = 1 - family.left_over(found, lambda error, p=p: int((p <= error).sum()))
        assert np.array_equal(p <= level, multipletests(p, 1 - confidence, method="holm")[0])
        more += level > 1 - family.confidence(found) + 1e-12
    assert more > 5


def test_without_a_family_nothing_is_handed_over(judging) -> None:
    found = judging('scope = "population"', 'familywise = "none"')
    assert family.left_over(found, lambda level: pytest.fail("each finding stands alone")) == 0.99
