"""Accuracy over the budget: what attacks that look for the smallest perturbation say of every budget at once."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robustgate.core.records import REFERENCE, CaseResult, Results
from robustgate.reports import figures

# The hues of report.css, and the dashes that tell apart lines of one hue.
HUES = 6
DASHES = ("", "5 2", "1.5 1.5")
# Inches; matplotlib's SVG has 72 units in each. Where in it the axes lie, as left, bottom, width and height.
SIZE, AXES = (5.2, 2.9), (0.11, 0.16, 0.86, 0.74)
# Colours that stand in the SVG for those of report.css, which are others in the dark. Black would be left out.
INK, RULE, BUDGET = "#00000a", "#00000b", "#00000c"


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
    """A compression's curve; `series` is its colour, as report.css names it, `index` its case among the results'."""

    label: str
    series: str
    dash: str
    index: int
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
        """What an SVG of `view_box` holds. No text from outside is in it, no id, no colour of its own."""
        return draw(self.lines, self.eps)

    @property
    def view_box(self) -> str:
        """The SVG's coordinates."""
        return "0 0 " + " ".join(f"{72 * inches:g}" for inches in SIZE)


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
    others = list(dict.fromkeys(case.compression for case in results.cases if case.compression != REFERENCE))
    found: dict[tuple[str, str, str], list[Line]] = {}
    shifts = {}
    for index, case in enumerate(results.cases):
        curve = curve_of(case)
        if curve is not None:
            key = case.model, case.source, case.shift.name
            shifts[key] = case.shift
            place = None if case.compression == REFERENCE else others.index(case.compression)
            found.setdefault(key, []).append(_line(case, index, curve, place))
    return [
        Chart(
            model=model,
            source=source,
            attack=shifts[key].attack or attack,
            norm=shifts[key].norm or "",
            eps=shifts[key].eps,
            lines=tuple(lines),
        )
        for key, lines in found.items()
        for model, source, attack in [key]
    ]


def draw(lines: Sequence[Line], eps: float | None) -> str:
    """Draw curves by matplotlib, without its document around them, in the colours of report.css."""
    import matplotlib
    from matplotlib.figure import Figure

    stream = io.StringIO()
    largest = max([*(line.curve.eps[-1] for line in lines), 1.05 * (eps or 0.0)]) or 1.0
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own style is none of the report's
        settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "robustgate", "path.simplify": False}
        matplotlib.rcParams.update(settings | {"font.sans-serif": ["DejaVu Sans"]})
        figure = Figure(figsize=SIZE)
        axes: Any = figure.add_axes(AXES)
        _furnish(figure, axes, largest)
        if eps is not None:
            axes.axvline(eps, color=BUDGET, linewidth=1.2, linestyle=(0, (1, 2)), clip_on=False, gid="budget")
            axes.text(eps, 102, f"eps {eps:g}", color=BUDGET, ha="left" if eps < largest / 2 else "right")
        # The reference last: it lies above the others.
        for line in sorted(lines, key=lambda line: line.series == "series-0"):
            budgets, accuracy = [*line.curve.eps, largest], [*line.curve.accuracy, line.curve.accuracy[-1]]
            held = [100 * value for value in accuracy]
            style = (0, tuple(map(float, line.dash.split()))) if line.dash else "-"
            width = 2.4 if line.series == "series-0" else 1.5
            axes.plot(
                budgets, held, color=_stands_for(line.series), linestyle=style, linewidth=width, clip_on=False,
                gid=line.series,
            )  # fmt: skip
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _bare(stream.getvalue())


def _line(case: CaseResult, index: int, curve: Curve, place: int | None) -> Line:
    """Return a case's line; `place` is its compression's among all but the reference."""
    series = "series-0" if place is None else f"series-{1 + place % HUES}"
    dash = "" if place is None else DASHES[place // HUES % len(DASHES)]
    return Line(label=case.compression, series=series, dash=dash, index=index, curve=curve, value=case.value)


def _furnish(figure: Any, axes: Any, largest: float) -> None:
    # Nothing is clipped and no tick is drawn: both would need ids, and a page may hold many charts.
    axes.set(xlim=(0, largest), ylim=(0, 100))
    axes.set_xlabel("size of the perturbation", color=INK)
    axes.set_ylabel("accuracy, %", color=INK)
    axes.tick_params(bottom=False, left=False, labelcolor=INK)
    axes.grid(axis="y", color=RULE, linewidth=0.8, clip_on=False)
    axes.spines[:].set_visible(False)
    for patch in (figure.patch, axes.patch):
        patch.set_visible(False)


def _stands_for(series: str) -> str:
    return f"#0001{int(series.removeprefix('series-')):02x}"


def _bare(svg: str) -> str:
    """Return what is drawn in matplotlib's SVG: series and budget by class, colours by name, no other id."""
    drawn = svg[svg.index('<g id="figure_1">') : svg.rindex("</svg>")]
    drawn = re.sub(r'<g id="(series-\d+|budget)">', r'<g class="\1">', drawn)
    drawn = re.sub(r' id="[^"]*"', "", drawn)
    names = {INK: "soft", RULE: "line", BUDGET: "ink"}
    names |= {_stands_for(f"series-{number}"): f"series-{number}" for number in range(HUES + 1)}
    for colour, name in names.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", " ", drawn).strip()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
