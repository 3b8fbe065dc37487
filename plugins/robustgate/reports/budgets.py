"""Accuracy over eps, from an attack that was named at several budgets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose, isfinite

from robustgate.core.records import CaseResult, Results, Shift
from robustgate.reports import curves, drawing, lines
from robustgate.reports.curves import curve_of
from robustgate.reports.lines import Legend, Line, Spot
from robustgate.reports.view import figure

NUMBER = re.compile(r"\d+(?:\.\d+)?")
# An eps that is written with two digits may be this far from what it stands for.
ROUNDING = 0.05
DOT = 5.0

# The cases of a model and source, by shift and compression.
Cases = dict[Shift, dict[str, CaseResult]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """The lines of a model and source under attacks that differ in nothing but `eps`; without attack it is 0."""

    title: str
    eps: tuple[float, ...]
    lines: tuple[Line, ...]
    legend: Legend

    @property
    def heads(self) -> list[str]:
        """The budgets as a table's heads."""
        return [f"at eps {budget:.3g}" if budget else "without attack" for budget in self.eps]

    @property
    def is_partial(self) -> bool:
        """Whether a point was measured on a part of the samples."""
        return any(spot.partial for line in self.lines for spot in line.spots)

    @property
    def text(self) -> str:
        """The chart in words."""
        last = f"{self.eps[-1]:.3g}"
        return f"Accuracy from eps {self.eps[0]:.3g} to {last}. {lines.in_words(self.lines, f'at eps {last}')}"

    @property
    def svg(self) -> str:
        """What an SVG of `view_box` holds."""
        with drawing.style():
            sheet, axes = curves.budget_axes(self.eps[-1], "eps")
            lines.draw(axes, self.lines, size=DOT)
            return drawing.svg(sheet)

    @property
    def view_box(self) -> str:
        """The SVG's coordinates."""
        return drawing.view_box(curves.SIZE)


def families(results: Results) -> list[Family]:
    """Return a chart for each model, source and attack that was named at several budgets."""
    looks = drawing.looks(results)
    found: dict[tuple[str, str], Cases] = {}
    for case in results.cases:
        if case.shift.kind in ("clean", "adversarial") and curve_of(case) is None:
            shifts = found.setdefault((case.model, case.source), {})
            shifts.setdefault(case.shift, {})[case.compression] = case
    return [
        _family(f"{model} trained on {source}", family, cases, looks)
        for (model, source), cases in found.items()
        for family in joined(cases)
    ]


def _family(title: str, family: list[Shift], cases: Cases, looks: Mapping[str, drawing.Look]) -> Family:
    over = [shift for shift in cases if shift.kind == "clean"] + family
    made = [
        Line(compression=name, look=looks[name], spots=tuple(_spot(shift, cases[shift].get(name)) for shift in over))
        for name in dict.fromkeys(name for shift in family for name in cases[shift])
    ]
    attacked = [case for shift in family for case in cases[shift].values()]
    broken = {case.compression for case in attacked if lines.breaks_a_rule(case)}
    (drawn,), legend = lines.stand_out(looks, [made], broken)
    return Family(
        title=f"{title} under {', '.join(shift.name for shift in family)}",
        eps=tuple(shift.eps or 0.0 for shift in over),
        lines=drawn,
        legend=legend,
    )


def joined(shifts: Iterable[Shift]) -> list[list[Shift]]:
    """Return the attacks that are one at several budgets, by rising eps.

    The results name no method. So attacks are joined if norm and detail are the same but for eps, and the names but
    for one number, which is in proportion to eps: `pgd_1`, `pgd_2` and `pgd_4` at 1, 2 and 4 of 255. Where any of them
    is out of proportion the number stands for something else, and none of them are joined.
    """
    alike: dict[tuple[str, str | None, str], list[Shift]] = {}
    for shift in shifts:
        detail = shift.detail or ""
        budget = f"eps {shift.eps:g}" if shift.kind == "adversarial" and shift.eps and isfinite(shift.eps) else ""
        if budget and budget in detail:
            others = detail.replace(budget, "eps")
            alike.setdefault((NUMBER.sub("#", shift.name), shift.norm, others), []).append(shift)
    found = [sorted(family, key=lambda shift: shift.eps or 0.0) for family in alike.values()]
    return [family for family in found if len(family) > 1 and _is_one(family)]


def _is_one(family: Sequence[Shift]) -> bool:
    numbers = list(zip(*(map(float, NUMBER.findall(shift.name)) for shift in family), strict=True))
    varied = [column for column in numbers if len(set(column)) > 1]
    budgets = [shift.eps or 0.0 for shift in family]
    return (
        len(varied) == 1
        and len(set(budgets)) == len(budgets)
        and all(
            isclose(number * budgets[0], varied[0][0] * budget, rel_tol=ROUNDING)
            for number, budget in zip(varied[0], budgets, strict=True)
        )
    )


def _spot(shift: Shift, case: CaseResult | None) -> Spot:
    budget = shift.eps or 0.0
    if case is None:
        return Spot(x=budget)
    return Spot(x=budget, value=case.value, text=figure(case), partial=case.n < case.n_total)
