"""What an assessment of variants by several objectives says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a variant is judged by. `absolute` names the objective that means the same of every architecture.

    It is None where the objective itself does; where it is not, figures are against each model's own reference.
    """

    name: str
    maximised: bool
    absolute: str | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A variant: its figure for each objective, None where it has none, and the policies under which it is green.

    A reference and a control are not compressed: they may stand on a front, and are never recommended.
    """

    name: str
    model: str
    source: str
    compression: str
    is_compressed: bool
    figures: dict[str, float | None]
    green: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What the blocks say of K treatments.

    `mean_ranks` (K) are over the blocks, 1 for the best, ties shared. `statistic` and `p_value` are Friedman's.
    Treatments whose mean ranks lie `critical_difference` apart or more differ; `groups` are the largest sets, as
    indices from the best rank to the worst, of which no two do.
    """

    mean_ranks: tuple[float, ...]
    statistic: float
    p_value: float
    critical_difference: float
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ObjectiveRanking:
    """Compressions ranked by one objective over blocks, each a model and source domain."""

    objective: str
    blocks: tuple[str, ...]
    compressions: tuple[str, ...]
    ranking: Ranking


@dataclass(frozen=True, kw_only=True)
class Front:
    """The variants of a model and source domain, or of all models of one, that no other of them beats.

    `hypervolume` is the share that the front beats of the box from the worst figures of all these variants, which
    `worst` holds, to the best; objectives in which they are all alike are no side of it, and it is None without a side.
    Shares of different groups of variants do not compare.
    """

    model: str | None
    source: str
    members: tuple[str, ...]
    dominated: tuple[str, ...]
    knee: str
    hypervolume: float | None
    worst: dict[str, float]
    best: dict[str, float]

    @property
    def place(self) -> str:
        """Whose front it is: ``resnet18 on amazon``."""
        return _among(self.model, self.source)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A variant that cannot be compared, and the objectives that it lacks."""

    name: str
    lacks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The variant to take under a policy, and why; without a name, why there is none."""

    policy: str
    model: str | None
    source: str
    name: str | None
    reason: str

    @property
    def place(self) -> str:
        """Among which variants: ``resnet18 on amazon``."""
        return _among(self.model, self.source)


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What several objectives say together. `notes` tell what could not be ranked, and why."""

    objectives: tuple[Objective, ...]
    candidates: tuple[Candidate, ...]
    fronts: tuple[Front, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    recommendations: tuple[Recommendation, ...]
    rankings: tuple[ObjectiveRanking, ...]
    notes: tuple[str, ...]


def _among(model: str | None, source: str) -> str:
    return f"{model or 'all models'} on {source}"
