"""Accuracy over the budget: what attacks that look for the smallest perturbation say of every budget at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from robustgate.core.records import CaseResult, Results
from robustgate.reports import drawing, figures, lines
from robustgate.reports.drawing import Look
from robustgate.reports.lines import Legend

# Inches, and where in them the axes lie, as left, bottom, width and height.
SIZE, AXES = (5.2, 2.9), (0.11, 0.16, 0.86, 0.74)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy, a fraction, at budgets that rise; the last is the largest norm that was found."""

    eps: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def half(self) -> float | None:
        """The smallest budget at which half of what was right without attack has fallen: the median norm."""
        pairs = zip(self.eps, self.accuracy, strict=True)
        return next((budget for budget, held in pairs if held <= self.accuracy[0] / 2), None)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A compression's curve; `index` is its case among the results'. `partial` says that it is of a part of it."""

    label: str
    look: Look
    index: int
    partial: bool
    curve: Curve
    value: float | None

    @property
    def half(self) -> str:
        """The median norm as it is printed."""
        return figures.NOTHING if self.curve.half is None else f"{self.curve.half:.3g}"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The curves of every compression of a model and source under one attack; `eps` is the budget that is judged."""

    model: str
    source: str
    attack: str
    norm: str
    eps: float | None
    lines: tuple[Line, ...]
    legend: Legend

    @property
    def is_partial(self) -> bool:
        """Whether a curve is of a part of the samples."""
        return any(line.partial for line in self.lines)

    @property
    def text(self) -> str:
        """The chart in words."""
        return "Accuracy over the budget. " + "; ".join(
            f"{line.label}: {figures.percent(line.curve.accuracy[0])} without attack"
            + ("" if self.eps is None or line.value is None else f", {figures.percent(line.value)} at {self.eps:g}")
            + ("" if line.curve.half is None else f", half fallen at {line.half}")
            for line in self.lines
        )

    @property
    def svg(self) -> str:
        """What an SVG of `view_box` holds."""
        return draw(self.lines, self.eps)

    @property
    def view_box(self) -> str:
        """The SVG's coordinates."""
        return drawing.view_box(SIZE)


def curve_of(case: CaseResult) -> Curve | None:
    """Return the curve among a case's details, None where there is none, or something else is called so."""
    found = case.details.get("curve")
    axes = [found.get(name) for name in ("eps", "accuracy")] if isinstance(found, dict) else [None]
    if not all(isinstance(axis, list | tuple) and axis and all(map(_is_number, axis)) for axis in axes):
        return None
    eps, accuracy = (tuple(map(float, axis)) for axis in axes if axis is not None)
    if len(eps) != len(accuracy) or list(eps) != sorted(eps):
        return None
    return Curve(eps=eps, accuracy=accuracy)


def charts(results: Results) -> list[Chart]:
    """Return a chart for each model, source and attack that has curves, in the order of the results."""
    looks = drawing.looks(results)
    found: dict[tuple[str, str, str], list[tuple[CaseResult, Line]]] = {}
    for index, case in enumerate(results.cases):
        curve = curve_of(case)
        if curve is not None:
            line = Line(
                label=case.compression, look=looks[case.compression], index=index, partial=case.n < case.n_total,
                curve=curve, value=case.value,
            )  # fmt: skip
            found.setdefault((case.model, case.source, case.shift.name), []).append((case, line))
    return [_chart(pairs, looks) for pairs in found.values()]


def _chart(pairs: Sequence[tuple[CaseResult, Line]], looks: dict[str, Look]) -> Chart:
    first, shift = pairs[0][0], pairs[0][0].shift
    levels = {line.label: line.curve.accuracy[0] if line.value is None else line.value for _, line in pairs}
    broken = {case.compression for case, _ in pairs if lines.breaks_a_rule(case)}
    own, legend = lines.told_apart(looks, levels, levels, broken)
    return Chart(
        model=first.model,
        source=first.source,
        attack=shift.attack or shift.name,
        norm=shift.norm or "",
        eps=shift.eps if shift.eps is not None and isfinite(shift.eps) else None,
        lines=tuple(replace(line, look=own[line.label]) for _, line in pairs),
        legend=legend,
    )


def draw(shown: Sequence[Line], eps: float | None) -> str:
    """Draw curves over budgets up to the largest norm that was found, and a dotted line at `eps`."""
    largest = max([*(line.curve.eps[-1] for line in shown), 1.05 * (eps or 0.0)]) or 1.0
    with drawing.style():
        sheet, axes = budget_axes(largest, "size of the perturbation")
        if eps is not None:
            ink = drawing.colour("ink")
            axes.axvline(eps, color=ink, linewidth=1.2, linestyle=(0, (1, 2)), clip_on=False, gid="budget")
            axes.text(eps, 102, f"eps {eps:g}", color=ink, ha="left" if eps < largest / 2 else "right")
        for line in shown:
            budgets, accuracy = [*line.curve.eps, largest], [*line.curve.accuracy, line.curve.accuracy[-1]]
            axes.plot(budgets, [100 * held for held in accuracy], **line.look.style)
        return drawing.svg(sheet)


def budget_axes(largest: float, label: str) -> tuple[Any, Any]:
    """Return a figure and its axes, of accuracy in percent over budgets up to `largest`."""
    sheet, axes = drawing.sheet(SIZE, AXES)
    axes.set(xlim=(0, largest), ylim=(0, 100), xlabel=label, ylabel="accuracy, %")
    return sheet, axes


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
