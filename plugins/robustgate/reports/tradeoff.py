"""The trade-off picture: what the variants of a source domain hold against what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10

from robustgate.core.assessments import Assessment, Candidate, Front
from robustgate.core.records import CONTROL
from robustgate.reports import drawing
from robustgate.reports.assessments import label, shown, title
from robustgate.reports.marks import SHAPES, Label, Mark, Scale, place_labels, short

SIZE, PLACE = (5.6, 3.3), (0.11, 0.14, 0.87, 0.83)
ROBUSTNESS = ("mean_corruption_accuracy", "robust_accuracy", "mean_domain_accuracy")
# Of the sizes, the first that is known.
SIZES = ("deflated_size", "size")
LATENCY = "latency"
MOST_CHARTS = 4
# So few variants are all called by their names in a chart; of more, those on the front and the references.
NAMED = 6
# The share of the figures' range that is free on each side, and the least range: half a percent point, a tenth.
MARGIN, LEAST, LEAST_FACTOR = 0.14, 0.005, 1.1
# By which factor the least and the most cost lie apart where an axis is labelled in other numbers.
NEAR, FAR = 30.0, 1000.0
KINDS = {
    "front": "on the front",
    "beaten": "beaten",
    "left-out": "not compared",
    "front uncompressed": "reference or control on the front",
    "beaten uncompressed": "reference or control, beaten",
    "left-out uncompressed": "reference or control, not compared",
}
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
            "reference": not self.one.is_compressed and not drawing.is_control(self.one.compression),
            "control": drawing.is_control(self.one.compression) and self.one.compression != CONTROL,
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
        return "better towards the upper left" if _is_cost(self.across) else "better towards the upper right"

    @property
    def text(self) -> str:
        """The chart in words."""
        return f"{self.title}. " + "; ".join(map(self._told, self.entries))

    @property
    def scale(self) -> Scale:
        """Where in the chart what figures lie."""
        spots = [self._spot(entry) for entry in self.entries]
        across, up = ([spot[axis] for spot in spots] for axis in (0, 1))
        left, right = _limits(across, log10(LEAST_FACTOR) if _is_cost(self.across) else LEAST)
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
        cost = _is_cost(self.across)
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
        return (log10(across) if _is_cost(self.across) else across), up

    def _told(self, entry: Entry) -> str:
        values = ", ".join(f"{title(name)} {shown(name, entry.one.figures[name])}" for name in (self.up, self.across))
        return f"{entry.name}: {values}; {entry.told}"

    def _texts(self, entry: Entry) -> list[str]:
        """Return what a variant may be called, what is wished first; the last is its number."""
        number, name = str(entry.number), short(entry.name)
        if len(self.entries) > NAMED and entry.order == 0:
            return [number]
        return [f"{name} ({entry.role})", name, number] if entry.role else [name, number]


@dataclass(frozen=True, kw_only=True)
class Trade:
    """The charts of a source domain, and the table beside them; `front` is the one that is marked."""

    source: str
    front: Front
    charts: tuple[Chart, ...]
    objectives: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def heads(self) -> list[str]:
        """The columns behind the names."""
        return list(map(title, self.objectives))

    @property
    def models(self) -> list[tuple[str, str]]:
        """Each model with its mark, where there are several."""
        found = {entry.one.model: entry.outline for entry in self.entries}
        return list(found.items()) if len(found) > 1 else []

    def cells(self, entry: Entry) -> list[str]:
        """Return a variant's figures under the heads."""
        return [shown(name, entry.one.figures[name]) for name in self.objectives]


def legend(made: Sequence[Trade]) -> list[tuple[str, str]]:
    """Return the kinds of marks in the charts, each with its words."""
    entries = [entry for trade in made for chart in trade.charts for entry in chart.entries]
    kinds = {entry.kind for entry in entries}
    told = [(kind, words) for kind, words in KINDS.items() if kind in kinds]
    return told + ([("recommended", "recommended")] if any(entry.policies for entry in entries) else [])


def trades(found: Assessment | None) -> list[Trade]:
    """Return the picture of each source domain of which two variants can be drawn."""
    if found is None:
        return []
    made = [_trade(found, front) for front in _outermost(found.fronts).values()]
    return [trade for trade in made if trade.charts]


def _outermost(fronts: Sequence[Front]) -> Mapping[str, Front]:
    """Return a front for each source domain: that across its models where there is one."""
    found: dict[str, Front] = {}
    for front in fronts:
        if front.model is None or front.source not in found:
            found[front.source] = front
    return found


def _trade(found: Assessment, front: Front) -> Trade:
    own = [one for one in found.candidates if one.source == front.source]
    charts = list(_axes(own))
    objectives = tuple(dict.fromkeys(name for pair in charts for name in reversed(pair)))
    objectives = tuple(sorted(objectives, key=("accuracy", *ROBUSTNESS, *SIZES, LATENCY).index))
    drawn = [one for one in own if any(one.figures[name] is not None for name in objectives)]
    models = list(dict.fromkeys(one.model for one in drawn))
    take: dict[str, list[str]] = {}
    for advice in found.recommendations:
        if advice.name is not None and (advice.model, advice.source) == (front.model, front.source):
            take.setdefault(advice.name, []).append(advice.policy)
    entries = tuple(
        Entry(
            number=number,
            name=label(None if len(models) > 1 else one.model, one),
            one=one,
            shape=list(SHAPES)[models.index(one.model) % len(SHAPES)],
            standing=_standing(one, front),
            policies=tuple(take.get(one.name, ())),
        )
        for number, one in enumerate(drawn, 1)
    )
    return Trade(
        source=front.source,
        front=front,
        charts=tuple(
            Chart(
                across=across,
                up=up,
                entries=tuple(
                    sorted((entry for entry in entries if _has(entry.one, across, up)), key=lambda entry: entry.order)
                ),
            )
            for across, up in charts
        ),
        objectives=objectives,
        entries=entries,
    )


def _axes(own: Sequence[Candidate]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of objectives to draw: robustness against accuracy, then against what it costs."""

    def both(across: str, up: str) -> bool:
        return sum(_has(one, across, up) for one in own) > 1

    held = [name for name in ROBUSTNESS if both("accuracy", name)]
    main = held[0] if held else "accuracy"
    costs = [next((name for name in SIZES if both(name, main)), None), LATENCY if both(LATENCY, main) else None]
    known = [name for name in costs if name is not None]
    yield from (("accuracy", name) for name in held[: MOST_CHARTS - len(known)])
    yield from ((name, main) for name in known)


def _has(one: Candidate, *objectives: str) -> bool:
    """Say whether a variant can be drawn by these; a cost of nothing has no logarithm."""
    known = [(name, one.figures[name]) for name in objectives]
    return all(value is not None and (value > 0 or not _is_cost(name)) for name, value in known)


def _standing(one: Candidate, front: Front) -> str:
    if one.name == front.knee:
        return "knee"
    if one.name in front.members:
        return "front"
    return "beaten" if one.name in front.dominated else "left-out"


def _is_cost(objective: str) -> bool:
    return objective in (*SIZES, LATENCY)


def _axis(objective: str) -> str:
    return f"{title(objective)}, log scale" if _is_cost(objective) else f"{title(objective)}, %"


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

    if _is_cost(objective):
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
