"""What `robustgate plan --power` shows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from math import isfinite

from rich.console import Console
from rich.table import Table

from robustgate.core.records import Case
from robustgate.engine.plan import Plan
from robustgate.engine.resolution import Resolution, resolutions
from robustgate.statistics.power import POWER


def show_power(plan: Plan, disagreement: float, console: Console) -> None:
    """Print for each rule on cases what the test set can show of new data, and warn of what it cannot.

    Raises RobustgateError where a domain cannot be read.
    """
    sizes = sample_counts(plan)
    for judging in plan.policies:
        found = list(resolutions(judging, sizes, disagreement))
        table = Table(
            title=f"policy {judging.policy.name}: what {_images(found)} tell of new data", title_justify="left"
        )
        for heading in ("rule", "limit", "images", "resolve", "needed"):
            table.add_column(heading, justify="left" if heading == "rule" else "right")
        for one in found:
            table.add_row(
                one.rule,
                f"{one.limit_kind} {100 * one.limit:.1f}",
                f"{one.n:,}",
                _points(one.smallest) if isfinite(one.smallest) else "none",
                f"{one.needed:,} for {_points(one.difference)}",
            )
        console.print(table)
        for line in _notes(judging.policy.scope == "test_set", found, disagreement):
            console.print(line, style="dim")
        for one in found:
            if one.warning:
                console.print(f"warning: rule {one.rule!r}: {one.warning}", style="yellow", highlight=False)


def sample_counts(plan: Plan) -> dict[str, int]:
    """Return how many samples each case has that rules may judge, by its name. Raises RobustgateError."""
    from robustgate.engine.gate import Gate  # imports torch, which a plan alone does not need

    measurements = Gate(plan, today=datetime.now(UTC).date(), device="cpu").measurements
    found: dict[str, int] = {}
    counted: dict[tuple[str, str | None, str | None, int | None], int] = {}
    for case in plan.cases:
        if case.shift.kind in ("masking", "stability"):
            continue
        place = _data(case)
        if place not in counted:
            counted[place] = measurements.total(case)
        found[case.name] = counted[place]
    return found


def _data(case: Case) -> tuple[str, str | None, str | None, int | None]:
    """Return what tells the samples of a case from those of others."""
    return case.variant.source, case.shift.target, case.shift.corruption, case.shift.severity


def _images(found: list[Resolution]) -> str:
    counts = sorted({one.n for one in found})
    return f"{' to '.join(f'{count:,}' for count in dict.fromkeys((counts[0], counts[-1])))} images" if counts else "no"


def _notes(on_test_set: bool, found: list[Resolution], disagreement: float) -> Iterator[str]:
    if found:
        yield (
            f"resolved: the limit lies outside the interval at {100 * found[0].confidence:.6g} % confidence, "
            f"{100 * POWER:.0f} times in a hundred; drops: where variant and reference disagree on "
            f"{100 * disagreement:g} % of the images (--disagreement)"
        )
    if on_test_set:
        yield 'scope = "test_set": measured in full its verdicts are facts about these images; this is about new ones'


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"
