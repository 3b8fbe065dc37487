"""An assessment as it is read: which variant to take, the fronts, how compressions rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from robustgate.core.assessments import Assessment, Candidate, Front, ObjectiveRanking
from robustgate.reports import figures
from robustgate.reports.critical_difference import Diagram

# How a figure of each objective is printed.
SHOWN: Mapping[str, Callable[[float], str]] = {
    **dict.fromkeys(
        ("accuracy", "mean_corruption_accuracy", "mean_domain_accuracy", "robust_accuracy"),
        lambda value: f"{100 * value:.2f} %",
    ),
    "mce": lambda value: f"{100 * value:.2f}",
    "mce_rounded": lambda value: f"{100 * value:.1f}",
    "compression_ratio": lambda value: f"{value:.2f}x",
    "latency": lambda value: f"{value:.4g} ms",
    **dict.fromkeys(("size", "deflated_size", "memory"), figures.size),
}


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to take under a policy, None for no variant, and why."""

    policy: str
    place: str
    take: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class FrontRow:
    """A front in a row of a table: its members and those that they beat, as they are called beside one another."""

    place: str
    members: tuple[str, ...]
    knee: str
    beaten: tuple[str, ...]
    hypervolume: str


@dataclass(frozen=True, kw_only=True)
class RankChart:
    """How compressions rank by one objective: as a picture, in a sentence, and each with its rank, the best first."""

    objective: str
    blocks: tuple[str, ...]
    diagram: Diagram
    sentence: str

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Each compression with its mean rank."""
        return [(self.diagram.names[one], f"{self.diagram.mean_ranks[one]:.2f}") for one in self.diagram.order]

    @property
    def text(self) -> str:
        """The picture in words."""
        ranks = "; ".join(f"{name} {rank}" for name, rank in self.rows)
        return f"Mean ranks by {title(self.objective)}. {ranks}. {self.sentence}"

    @property
    def alike(self) -> list[str]:
        """The sets of compressions that do not differ, each in words."""
        return [", ".join(self.diagram.names[one] for one in group) for group in self.diagram.groups]


def title(objective: str) -> str:
    """Return an objective as it is called in a sentence: ``mean corruption accuracy``."""
    return objective.replace("_", " ").replace("mce", "mCE")


def shown(objective: str, value: float | None) -> str:
    """Return the figure of an objective as it is printed."""
    return figures.NOTHING if value is None else SHOWN[objective](value)


def label(model: str | None, one: Candidate) -> str:
    """Return how a variant is called beside others of its model, or, without one, of all."""
    return one.compression if model else f"{one.model} {one.compression}"


def hypervolume(front: Front) -> str:
    """Return how much a front beats, nothing where that is not defined."""
    return "" if front.hypervolume is None else figures.percent(front.hypervolume)


def advice(found: Assessment) -> list[Advice]:
    """Return what to take under each policy."""
    by_name = {one.name: one for one in found.candidates}
    return [
        Advice(
            policy=one.policy,
            place=one.place,
            take=label(one.model, by_name[one.name]) if one.name else None,
            reason=f"{one.reason[0].upper()}{one.reason[1:]}.",
        )
        for one in found.recommendations
    ]


def fronts(found: Assessment) -> list[FrontRow]:
    """Return the fronts, in the order of the assessment."""
    by_name = {one.name: one for one in found.candidates}
    return [
        FrontRow(
            place=front.place,
            members=tuple(label(front.model, by_name[name]) for name in front.members),
            knee=label(front.model, by_name[front.knee]),
            beaten=tuple(label(front.model, by_name[name]) for name in front.dominated),
            hypervolume=hypervolume(front) or figures.NOTHING,
        )
        for front in found.fronts
    ]


def left_out(found: Assessment) -> Iterator[tuple[str, list[str]]]:
    """Yield what variants lack, and the names of those that lack it."""
    for lacks in dict.fromkeys(one.lacks for one in found.left_out):
        yield ", ".join(map(title, lacks)), [one.name for one in found.left_out if one.lacks == lacks]


def rank_charts(found: Assessment) -> list[RankChart]:
    """Return a chart for each objective by which compressions could be ranked."""
    return [
        RankChart(objective=one.objective, blocks=one.blocks, diagram=diagram(one), sentence=friedman(one))
        for one in found.rankings
    ]


def diagram(one: ObjectiveRanking) -> Diagram:
    """Return the critical-difference diagram of a ranking."""
    return Diagram(
        title=f"{one.objective}: Friedman p = {one.ranking.p_value:.2g}, {len(one.blocks)} blocks",
        names=one.compressions,
        mean_ranks=one.ranking.mean_ranks,
        critical_difference=one.ranking.critical_difference,
        groups=one.ranking.groups,
    )


def friedman(one: ObjectiveRanking) -> str:
    """Say how sure it is that compressions differ, and how far apart their ranks must lie to tell them apart."""
    ranks = one.ranking
    return (
        f"Friedman's chi-squared over {len(one.blocks)} models and source domains {ranks.statistic:.2f}, "
        f"p = {ranks.p_value:.2g} (approximate); ranks {ranks.critical_difference:.2f} apart differ (Nemenyi, 5 %)"
    )
