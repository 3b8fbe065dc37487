"""Accuracy over the severity of a corruption: small charts, one for each corruption and first one of their mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robustgate.core.records import CaseResult, Results
from robustgate.reports import drawing, figures, lines
from robustgate.reports.lines import Legend, Line, Spot
from robustgate.reports.view import figure

# So many groups are unfolded.
OPEN = 4
# Inches, and where in them the axes lie, as left, bottom, width and height.
SIZE, AXES = (2.2, 1.4), (0.15, 0.14, 0.8, 0.79)
DOT = 4.4

# The cases of a model and source, by compression, corruption and severity; clean is of no corruption, at severity 0.
Cases = Mapping[tuple[str, str, int], CaseResult]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A corruption's chart, or that of the mean over all that are shown, whose `corruption` is None."""

    corruption: str | None
    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """The chart in words."""
        of = "Mean accuracy over these corruptions" if self.corruption is None else f"Accuracy under {self.corruption}"
        first, last = (_severity(self.lines[0].spots[place].x) for place in (0, -1))
        return f"{of}, from {first} to {last}. {lines.in_words(self.lines, f'at {last}')}"

    def cells(self, line: Line, severities: tuple[int, ...]) -> list[str]:
        """Return a line's accuracies as a table has them, where it has severities that these charts do not all have."""
        found = {spot.x: spot.text for spot in line.spots}
        return [found.get(severity, figures.NOTHING) for severity in severities]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The charts of a model trained on a source domain, all over the same `severities`; clean is severity 0."""

    title: str
    severities: tuple[int, ...]
    panels: tuple[Panel, ...]
    legend: Legend

    @property
    def heads(self) -> list[str]:
        """The severities as a table's heads."""
        return [_severity(severity) for severity in self.severities]

    @property
    def has_mean(self) -> bool:
        """Whether the first chart is that of the mean."""
        return self.panels[0].corruption is None

    @property
    def is_partial(self) -> bool:
        """Whether a point was measured on a part of the samples."""
        return any(spot.partial for panel in self.panels for line in panel.lines for spot in line.spots)

    @property
    def view_box(self) -> str:
        """The coordinates of each SVG."""
        return drawing.view_box(SIZE)

    @property
    def drawn(self) -> list[tuple[Panel, str]]:
        """Each chart with what its SVG holds."""
        found = []
        with drawing.style():
            sheet, axes = drawing.sheet(SIZE, AXES)
            axes.set(xlim=(self.severities[0], self.severities[-1]), ylim=(0, 100))
            axes.set_xticks(self.severities, ["clean" if not at else str(at) for at in self.severities])
            axes.set_yticks((0, 50, 100))
            # Making axes takes longer than drawing them: all charts of a group are drawn on the same.
            for panel in self.panels:
                lines.draw(axes, panel.lines, size=DOT)
                found.append((panel, drawing.svg(sheet)))
                for artist in (*axes.lines, *axes.patches):
                    artist.remove()
        return found


def groups(results: Results) -> list[Group]:
    """Return the charts of each model and source that has a corruption at two severities or more."""
    looks = drawing.looks(results)
    found: dict[tuple[str, str], dict[tuple[str, str, int], CaseResult]] = {}
    for case in results.cases:
        if case.shift.kind in ("clean", "corruption"):
            key = case.compression, case.shift.corruption or "", case.shift.severity or 0
            found.setdefault((case.model, case.source), {})[key] = case
    made = [_group(f"{model} trained on {source}", cases, looks) for (model, source), cases in found.items()]
    return [group for group in made if group is not None]


def _group(title: str, cases: Cases, looks: Mapping[str, drawing.Look]) -> Group | None:
    planned: dict[str, set[int]] = {}
    for _, corruption, severity in cases:
        if corruption:
            planned.setdefault(corruption, set()).add(severity)
    shown = {corruption: severities for corruption, severities in planned.items() if len(severities) > 1}
    if not shown:
        return None
    plotted = [case for (_, corruption, _), case in cases.items() if corruption in shown]
    detail = next((case.shift.detail for case in plotted if case.shift.detail), "")
    clean = [0] if any(not severity for _, _, severity in cases) else []
    compressions = list(dict.fromkeys(case.compression for case in plotted))
    every = {corruption: [*clean, *sorted(severities)] for corruption, severities in shown.items()}
    panels: list[tuple[str | None, list[Line]]] = [
        (corruption, [_line(looks, name, [_spot(cases, name, corruption, at) for at in over]) for name in compressions])
        for corruption, over in every.items()
    ]
    common = sorted(set.intersection(*shown.values()))
    if len(shown) > 1 and common:
        over = [*clean, *common]
        means = [_line(looks, name, [_mean(cases, name, list(shown), at) for at in over]) for name in compressions]
        panels.insert(0, (None, means))
    broken = {case.compression for case in plotted if lines.breaks_a_rule(case)}
    drawn, legend = lines.stand_out(looks, [found for _, found in panels], broken)
    return Group(
        title=title + (f"; {detail}" if detail else ""),
        severities=tuple(sorted(set().union(*every.values()))),
        panels=tuple(
            Panel(corruption=corruption, lines=found) for (corruption, _), found in zip(panels, drawn, strict=True)
        ),
        legend=legend,
    )


def _line(looks: Mapping[str, drawing.Look], compression: str, spots: list[Spot]) -> Line:
    return Line(compression=compression, look=looks[compression], spots=tuple(spots))


def _spot(cases: Cases, compression: str, corruption: str, severity: int) -> Spot:
    case = cases.get((compression, corruption if severity else "", severity))
    if case is None:
        return Spot(x=severity)
    return Spot(x=severity, value=case.value, text=figure(case), partial=case.n < case.n_total)


def _mean(cases: Cases, compression: str, corruptions: list[str], severity: int) -> Spot:
    """Return the mean over corruptions at a severity, none over a part of them."""
    if not severity:
        return _spot(cases, compression, "", severity)
    spots = [_spot(cases, compression, corruption, severity) for corruption in corruptions]
    values = [spot.value for spot in spots if spot.value is not None]
    if len(values) < len(spots):
        missing = next(spot.text for spot in spots if spot.value is None)
        return Spot(x=severity, text=f"{missing} ({len(spots) - len(values)} of {len(spots)})")
    mean, partial = sum(values) / len(values), any(spot.partial for spot in spots)
    return Spot(x=severity, value=mean, text=("≈ " if partial else "") + figures.tenths(mean), partial=partial)


def _severity(severity: float) -> str:
    return f"severity {severity:g}" if severity else "clean"
