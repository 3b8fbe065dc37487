"""Lines over measured points, one for each compression, and which of them stand out where there are many."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import nan
from typing import Any

from robustgate.core.records import REFERENCE, CaseResult, is_control
from robustgate.reports import drawing, figures
from robustgate.reports.drawing import Look

# So many compressions, besides the reference and its controls, can be told apart in one chart; of more, so many stand
# out, and the others are faint.
MOST, NAMED = 8, 6
FAINT = Look(series="faint", width=0.8, order=1)


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A point of a line: a fraction, or None where a line has a gap; `text` is what a table has there.

    `partial` says that it was measured on a part of the samples.
    """

    x: float
    value: float | None = None
    text: str = figures.NOTHING
    partial: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A compression's points, as x rises."""

    compression: str
    look: Look
    spots: tuple[Spot, ...]

    @property
    def is_faint(self) -> bool:
        """Whether it is one of many, and none of those that stand out."""
        return self.look == FAINT


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What stands out, by name; how many `others` there are, and how many of those break a rule."""

    names: tuple[tuple[str, Look], ...]
    others: int = 0
    broken: int = 0

    @property
    def remainder(self) -> str:
        """The others in words: ``12 others, 3 of them break a rule``."""
        told = f"{self.others} other{'' if self.others == 1 else 's'}"
        return told + (f", {self.broken} of them break{'s' if self.broken == 1 else ''} a rule" if self.broken else "")


def breaks_a_rule(case: CaseResult) -> bool:
    """Say whether a rule on a case is broken, under a waiver or not."""
    return any(finding.verdict in ("fail", "waived") for finding in case.findings)


def told_apart(
    looks: Mapping[str, Look], names: Iterable[str], levels: Mapping[str, float], broken: Collection[str]
) -> tuple[dict[str, Look], Legend]:
    """Return how each of `names` is drawn in charts that have them all, and the legend.

    Of too many, only the reference, its controls, the worst by its level and those that break a rule keep their look.
    """
    known = list(names)
    others = [name for name in known if name != REFERENCE and not is_control(name)]
    named = others
    if len(others) > MOST:
        # Those of which a point is missing have no level, and come after those that do.
        ranked = sorted(others, key=lambda name: (name not in levels, levels.get(name, 0.0)))
        worst = [name for name in ranked[:1] if name in levels]
        named = [*worst, *(name for name in ranked if name in broken and name not in worst)][:NAMED]
    faint = [name for name in others if name not in named]
    own = {name: FAINT if name in faint else looks[name] for name in known}
    legend = Legend(
        names=tuple((name, look) for name, look in own.items() if look != FAINT),
        others=len(faint),
        broken=sum(name in broken for name in faint),
    )
    return own, legend


def stand_out(
    looks: Mapping[str, Look], panels: Iterable[Sequence[Line]], broken: Collection[str]
) -> tuple[list[tuple[Line, ...]], Legend]:
    """Return the lines of charts that share one legend, each as it is drawn, and that legend."""
    known = [tuple(lines) for lines in panels]
    held: dict[str, list[float | None]] = {}
    for line in chain.from_iterable(known):
        held.setdefault(line.compression, []).extend(spot.value for spot in line.spots)
    full = {name: [value for value in values if value is not None] for name, values in held.items()}
    levels = {name: sum(values) / len(values) for name, values in full.items() if len(values) == len(held[name])}
    own, legend = told_apart(looks, held, levels, broken)
    return [tuple(replace(line, look=own[line.compression]) for line in lines) for lines in known], legend


def draw(axes: Any, lines: Iterable[Line], *, size: float) -> None:
    """Draw lines in percent, with a mark `size` points wide at each point, hollow where it is of a part."""
    for line in lines:
        held = [nan if spot.value is None else 100 * spot.value for spot in line.spots]
        axes.plot([spot.x for spot in line.spots], held, **line.look.style)
        wide = size * (0.7 if line.is_faint else 1.0)
        for hollow in (False, True):
            found = [(s.x, 100 * s.value) for s in line.spots if s.value is not None and s.partial == hollow]
            drawing.dots(axes, found, line.look, size=wide, hollow=hollow)


def in_words(lines: Iterable[Line], at: str) -> str:
    """Return what lines hold at their first and at their last point, `at` a severity or budget, faint ones together."""
    known = list(lines)
    told = [
        f"{line.compression}: {_held(line.spots[0])} at first, {_held(line.spots[-1])} {at}"
        for line in known
        if not line.is_faint
    ]
    ends = [line.spots[-1].value for line in known if line.is_faint]
    held = [value for value in ends if value is not None]
    if ends:
        between = f": {figures.tenths(min(held))} to {figures.percent(max(held))} {at}" if held else ""
        told.append(f"{len(ends)} others{between}")
    return "; ".join(told)


def _held(spot: Spot) -> str:
    return spot.text if spot.value is None else f"{spot.text} %"
