"""What a test set can show of a policy's limits, before anything is measured."""

from __future__ import annotations

import pytest

from robustgate.engine.resolution import resolutions
from robustgate.statistics.power import samples_needed, smallest_drop

RULES = (
    """[[policies.edge.rules]]
name = "floor"
min = 0.4
""",
    """[[policies.edge.rules]]
name = "no worse by 3 points"
where = { compression = "fp*" }
max_drop = 0.03
[[policies.edge.rules]]
name = "nearly always right"
min = 0.97
""",
)


@pytest.fixture
def judging(planned):
    (found,) = planned(RULES).policies
    return found


def named(judging, n: int, disagreement: float = 0.06):
    sizes = dict.fromkeys(judging.case_rules, n)
    return {one.rule: one for one in resolutions(judging, sizes, disagreement)}


def test_281_images_cannot_resolve_3_points_and_2000_can(judging) -> None:
    few, many = named(judging, 281), named(judging, 2000)
    told = "281 images cannot resolve 3.0 points: the smallest is 5.0 points"
    assert few["no worse by 3 points"].warning == told
    assert many["no worse by 3 points"].warning == ""
    assert many["no worse by 3 points"].needed == samples_needed(0.03, 0.06, 0.99) <= 2000
    assert few["no worse by 3 points"].smallest == smallest_drop(281, 0.06, 0.99)


def test_a_floor_that_perfection_does_not_clear_is_warned_of(judging) -> None:
    assert "is only 3.0 points above it" in named(judging, 100)["nearly always right"].warning
    assert named(judging, 2000)["nearly always right"].warning == ""


def test_the_fewest_images_of_a_rules_cases_count_and_unknown_cases_do_not(judging) -> None:
    names = list(judging.case_rules)
    sizes = {name: 1000 + index for index, name in enumerate(names[1:])}
    found = {one.rule: one for one in resolutions(judging, sizes, 0.06)}
    assert found["nearly always right"].n == 1000
    assert not list(resolutions(judging, {}, 0.06))


def test_in_scope_population_the_findings_share_the_error(planned) -> None:
    (judging,) = planned(RULES, ("[policies.edge]", '[policies.edge]\nscope = "population"')).policies
    found = named(judging, 2000)["no worse by 3 points"]
    limits = sum(
        (rule.min is not None) + (rule.max_drop is not None) for r in judging.case_rules.values() for rule in r
    )
    assert found.confidence == pytest.approx(1 - 0.01 / limits)
    assert found.smallest > smallest_drop(2000, 0.06, 0.99)
