"""A corruption that is not quite the published one says so in its case, and in every report."""

from dataclasses import replace
from datetime import date

from robustgate.config import load
from robustgate.corruptions.frost import Frost
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.reports.details import notes


def test_the_drawn_frost_is_told_and_contrast_needs_no_word(tiny) -> None:
    tiny.configure(('names = ["contrast"], severities = [1, 5]', 'names = ["contrast", "frost"], severities = [1]'))
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    gate = Gate(plan, today=date(2026, 1, 1))
    results = {
        case.shift.corruption: gate.result(case)
        for case in plan.cases
        if case.shift.kind == "corruption" and case.variant.compression == "none"
    }
    assert results["frost"].details == {"caution": Frost.caution}
    assert notes(results["frost"]) == (Frost.caution,)
    assert "drawn" in Frost.caution
    assert notes(results["contrast"]) == ()
    assert notes(replace(results["frost"], details={"caution": 3})) == ()
