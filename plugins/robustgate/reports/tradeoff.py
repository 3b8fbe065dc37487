"""The trade-off picture: what the variants of a source domain hold against what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from robustgate.core.assessments import Assessment, Candidate, Front
from robustgate.reports.assessments import label, shown, title
from robustgate.reports.marks import SHAPES
from robustgate.reports.tradeoff_charts import LATENCY, SIZES, Chart, Entry, is_cost

ROBUSTNESS = ("mean_corruption_accuracy", "robust_accuracy", "mean_domain_accuracy")
MOST_CHARTS = 4
KINDS = {
    "front": "on the front",
    "beaten": "beaten",
    "left-out": "not compared",
    "front uncompressed": "reference or control on the front",
    "beaten uncompressed": "reference or control, beaten",
    "left-out uncompressed": "reference or control, not compared",
}


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
    return all(value is not None and (value > 0 or not is_cost(name)) for name, value in known)


def _standing(one: Candidate, front: Front) -> str:
    if one.name == front.knee:
        return "knee"
    if one.name in front.members:
        return "front"
    return "beaten" if one.name in front.dominated else "left-out"
