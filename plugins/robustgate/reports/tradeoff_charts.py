"""Variants by two objectives: the chart, with their names where they have room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10

from robustgate.core.assessments import Candidate
from robustgate.core.records import CONTROL, is_control
from robustgate.reports import drawing, figures
from robustgate.reports.assessments import shown, title
from robustgate.reports.marks import LONGEST, SHAPES, Label, Mark, Scale, place_labels

SIZE, PLACE = (5.6, 3.3), (0.11, 0.14, 0.87, 0.83)
# Of the sizes, the first that is known.
SIZES = ("deflated_size", "size")
LATENCY = "latency"
# So few variants are all called by their names in a chart; of more, those on the front and the references.
NAMED = 6
# The share of the figures' range that is free on each side, and the least range: half a percent point, a tenth.
MARGIN, LEAST, LEAST_FACTOR = 0.14, 0.005, 1.1
# By which factor the least and the most cost lie apart where an axis is labelled in other numbers.
NEAR, FAR = 30.0, 1000.0
STANDINGS = {
    "knee": "on the front, its knee",
    "front": "on the front",
    "beaten": "beaten",
    "left-out": "not compared",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A variant: its number in the charts and the table, how it stands, and the policies under which to take it."""

    number: int
    name: str
    one: Candidate
    shape: str
    standing: str
    policies: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Its mark's class: how it stands, and whether it is compressed."""
        filled = {"knee": "front"}.get(self.standing, self.standing)
        return filled if self.one.is_compressed else f"{filled} uncompressed"

    @property
    def outline(self) -> str:
        """Its mark, as a path."""
        return SHAPES[self.shape]

    @property
    def told(self) -> str:
        """How it stands, in words."""
        take = f"; take it under {', '.join(self.policies)}" if self.policies else ""
        return STANDINGS[self.standing] + take

    @property
    def order(self) -> int:
        """How much it matters in a chart: the higher lies above, and is named first."""
        on_front = self.standing in ("front", "knee")
        return 4 * bool(self.policies) + 2 * on_front + (self.standing == "knee" or not self.one.is_compressed)

    @property
    def role(self) -> str:
        """What is to be known of it at once, in a chart."""
        roles = {
            "reference": not self.one.is_compressed and not is_control(self.one.compression),
            "control": is_control(self.one.compression) and self.one.compression != CONTROL,
            "recommended": bool(self.policies),
            "knee": self.standing == "knee",
        }
        return ", ".join(name for name, holds in roles.items() if holds)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The variants by two objectives, `across` and `up`, in the order in which they lie above one another.

    The objective up is better the higher it is.
    """

    across: str
    up: str
    entries: tuple[Entry, ...]

    view_box = drawing.view_box(SIZE)

    @property
    def title(self) -> str:
        """What is drawn: ``Robust accuracy against size``."""
        name = title(self.up)
        return f"{name[0].upper()}{name[1:]} against {title(self.across)}"

    @property
    def towards(self) -> str:
        """Where it is better."""
        return "better towards the upper left" if is_cost(self.across) else "better towards the upper right"

    @property
    def text(self) -> str:
        """The chart in words."""
        return f"{self.title}. " + "; ".join(map(self._told, self.entries))

    @property
    def scale(self) -> Scale:
        """Where in the chart what figures lie."""
        spots = [self._spot(entry) for entry in self.entries]
        across, up = ([spot[axis] for spot in spots] for axis in (0, 1))
        left, right = _limits(across, log10(LEAST_FACTOR) if is_cost(self.across) else LEAST)
        bottom, top = _limits(up, LEAST)
        return Scale(size=SIZE, place=PLACE, low=(left, bottom), high=(right, top))

    @property
    def marks(self) -> list[Mark]:
        """A mark for each variant, in the order of `entries`."""
        found = []
        for entry in self.entries:
            x, y = self.scale.spot(*self._spot(entry))
            kind, ring = entry.kind, bool(entry.policies)
            found.append(Mark(x=x, y=y, shape=entry.shape, kind=kind, title=self._told(entry), ring=ring))
        return found

    @property
    def labels(self) -> list[Label]:
        """Names where they are asked for and have room, numbers else; what lies above is served first."""
        wishes = [(index, self._texts(entry)) for index, entry in reversed(list(enumerate(self.entries)))]
        corners = [self.scale.spot(*corner) for corner in self.staircase]
        lines = [
            (min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1]))
            for one, other in pairwise(corners)
        ]
        return place_labels(self.marks, wishes, _frame(), lines)

    @property
    def svg(self) -> str:
        """The axes, and the line along those that no other beats in these two. No text from outside is in it."""
        scale = self.scale
        with drawing.style():
            figure, axes = drawing.sheet(SIZE, PLACE)
            axes.set(xlim=(scale.low[0], scale.high[0]), ylim=(scale.low[1], scale.high[1]))
            axes.set_xlabel(_axis(self.across), color=drawing.colour("soft"))
            axes.set_ylabel(_axis(self.up), color=drawing.colour("soft"))
            for name, set_ticks, axis in ((self.across, axes.set_xticks, 0), (self.up, axes.set_yticks, 1)):
                ticks = dict(_ticks(name, scale.low[axis], scale.high[axis]))
                set_ticks(list(ticks), list(ticks.values()))
            line = self.staircase
            axes.plot(
                [x for x, _ in line], [y for _, y in line], color=drawing.colour("soft"), linewidth=1,
                linestyle=(0, (3, 2)), clip_on=False, gid="staircase",
            )  # fmt: skip
            return drawing.svg(figure)

    @property
    def staircase(self) -> list[tuple[float, float]]:
        """The corners of the line below and behind which somebody is beaten in these two, as they are drawn."""
        scale = self.scale
        cost = is_cost(self.across)
        edge = scale.high[0] if cost else scale.low[0]
        # From the best in the objective across to the worst, each that is better in the other than all before.
        corners, best = [], scale.low[1]
        spots = [self._spot(entry) for entry in self.entries]
        for x, y in sorted(spots, key=lambda spot: (spot[0] if cost else -spot[0], -spot[1])):
            if y > best:
                corners += [(x, best), (x, y)]
                best = y
        return [*corners, (edge, best)]

    def _spot(self, entry: Entry) -> tuple[float, float]:
        """Return where a variant lies on the axes; a cost is there by its logarithm."""
        across, up = (entry.one.figures[name] for name in (self.across, self.up))
        if across is None or up is None:
            raise ValueError(f"{entry.one.name} has no {self.across} or no {self.up}")
        return (log10(across) if is_cost(self.across) else across), up

    def _told(self, entry: Entry) -> str:
        values = ", ".join(f"{title(name)} {shown(name, entry.one.figures[name])}" for name in (self.up, self.across))
        return f"{entry.name}: {values}; {entry.told}"

    def _texts(self, entry: Entry) -> list[str]:
        """Return what a variant may be called, what is wished first; the last is its number."""
        number, name = str(entry.number), figures.clipped(entry.name, LONGEST)
        if len(self.entries) > NAMED and entry.order == 0:
            return [number]
        return [f"{name} ({entry.role})", name, number] if entry.role else [name, number]


def is_cost(objective: str) -> bool:
    """Say whether the less of an objective is the better; its axis is logarithmic."""
    return objective in (*SIZES, LATENCY)


def _axis(objective: str) -> str:
    return f"{title(objective)}, log scale" if is_cost(objective) else f"{title(objective)}, %"


def _limits(values: Sequence[float], least: float) -> tuple[float, float]:
    """Return an axis's ends: with room for names beside the outermost."""
    low, high = min(values), max(values)
    spare = max(high - low, least)
    middle = (low + high) / 2
    half = spare / 2 + MARGIN * spare
    return middle - half, middle + half


def _frame() -> tuple[float, float, float, float]:
    """Return where names may stand: within the axes, and the margin at their right."""
    left, bottom, _, up = PLACE
    wide, tall = (72 * inches for inches in SIZE)
    return left * wide, (1 - bottom - up) * tall, wide, (1 - bottom) * tall


def _ticks(objective: str, low: float, high: float) -> Iterator[tuple[float, str]]:
    """Yield where an axis is labelled, and how."""
    from matplotlib.ticker import MaxNLocator

    if is_cost(objective):
        yield from ((log10(value), shown(objective, value)) for value in _round_numbers(10**low, 10**high))
        return
    for value in MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(100 * low, 100 * high):
        if 100 * low <= value <= min(100 * high, 100):
            yield float(value) / 100, f"{value:.6g}"


def _round_numbers(low: float, high: float) -> list[float]:
    """Return the round numbers of an axis of costs: steps of one size where they lie near, of one digit where far."""
    from matplotlib.ticker import MaxNLocator

    if high / low < NEAR:
        found = [float(value) for value in MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    else:
        digits = (1, 2, 5) if high / low < FAR else (1,)
        found = [digit * 10.0**power for power in range(floor(log10(low)), ceil(log10(high))) for digit in digits]
    return [value for value in found if low <= value <= high]
