"""Several objectives at once: which variants no other beats, and which one to take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robustgate.core.assessments import Assessment, Candidate, Front, LeftOut, Objective, Recommendation
from robustgate.core.errors import ConfigurationError, ResultsError, listing, nearest
from robustgate.engine.candidates import OBJECTIVES, Field
from robustgate.engine.rankings import rankings
from robustgate.statistics.fronts import hypervolume, knee, non_dominated

Within = Literal["architecture", "across"]
EVERYWHERE: tuple[Within, ...] = ("architecture", "across")


def assess(field: Field, names: Sequence[str] = (), within: Sequence[Within] = EVERYWHERE) -> Assessment:
    """Assess variants by the objectives of these names, or by the usual ones.

    `within` an architecture means: among the variants of one model and source domain; `across`: among all of one source
    domain, asked for beside the former only where they are of several models. Variants of different source domains,
    whose test sets differ, are never compared. Raises ConfigurationError for names that are no objectives, and
    ResultsError where no variant has them all.
    """
    objectives = _chosen(names or field.usual)
    lacking = {one.name: tuple(_lacks(one, objectives)) for one in field.candidates}
    whole = [one for one in field.candidates if not lacking[one.name]]
    if not whole or not objectives:
        asked = ", ".join(one.name for one in objectives) or "an objective"
        raise ResultsError(f"no variant has {asked}: {_told(field, objectives)}")
    groups = list(_groups(whole, within))
    found, notes = rankings(field, objectives)
    return Assessment(
        objectives=objectives,
        candidates=field.candidates,
        fronts=tuple(_front(group, objectives, model, source) for model, source, group in groups),
        left_out=tuple(LeftOut(name=name, lacks=lacks) for name, lacks in lacking.items() if lacks),
        warnings=tuple(_mixed([group for _, _, group in groups], objectives)),
        recommendations=tuple(
            _recommended(field, policy, group, objectives, model, source)
            for policy in field.policies
            for model, source, group in groups
        ),
        rankings=found,
        notes=notes,
    )


def _chosen(names: Sequence[str]) -> tuple[Objective, ...]:
    problems = [f"no objective {name!r}{nearest(name, OBJECTIVES)}" for name in names if name not in OBJECTIVES]
    if problems:
        raise ConfigurationError([*problems, f"known: {listing(OBJECTIVES)}"])
    return tuple(OBJECTIVES[name] for name in dict.fromkeys(names))


def _lacks(one: Candidate, objectives: Sequence[Objective]) -> Iterator[str]:
    return (objective.name for objective in objectives if one.figures[objective.name] is None)


def _told(field: Field, objectives: Sequence[Objective]) -> str:
    """Return how many variants have each objective."""
    counts = [sum(one.figures[goal.name] is not None for one in field.candidates) for goal in objectives]
    had = [f"{goal.name}: {count}" for goal, count in zip(objectives, counts, strict=True)]
    return f"of {len(field.candidates)}, {', '.join(had) or 'none has any'}"


def _groups(
    candidates: Sequence[Candidate], within: Sequence[Within]
) -> Iterator[tuple[str | None, str, list[Candidate]]]:
    """Yield model (None for all), source and variants of each group that is to be compared."""
    if "architecture" in within:
        for model, source in dict.fromkeys((one.model, one.source) for one in candidates):
            yield model, source, [one for one in candidates if (one.model, one.source) == (model, source)]
    if "across" in within:
        for source in dict.fromkeys(one.source for one in candidates):
            group = [one for one in candidates if one.source == source]
            if len(_models(group)) > 1 or "architecture" not in within:
                yield None, source, group


def _models(candidates: Sequence[Candidate]) -> list[str]:
    return list(dict.fromkeys(one.model for one in candidates))


def _points(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    return np.array([[one.figures[goal.name] for goal in objectives] for one in candidates], dtype=np.float64)


def _best(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> list[Candidate]:
    on_front = non_dominated(_points(candidates, objectives), [goal.maximised for goal in objectives])
    return [one for one, is_on in zip(candidates, on_front, strict=True) if is_on]


def _knee(front: Sequence[Candidate], objectives: Sequence[Objective]) -> Candidate:
    return front[knee(_points(front, objectives), [goal.maximised for goal in objectives])]


def _front(group: Sequence[Candidate], objectives: Sequence[Objective], model: str | None, source: str) -> Front:
    members, points = _best(group, objectives), _points(group, objectives)
    maximised = np.array([goal.maximised for goal in objectives])
    low, high = points.min(axis=0), points.max(axis=0)
    worst, best = np.where(maximised, low, high), np.where(maximised, high, low)
    sides = low < high
    beaten = None
    if sides.any():
        volume = hypervolume(points[:, sides], maximised[sides].tolist(), worst[sides])
        beaten = volume / float((high - low)[sides].prod())
    return Front(
        model=model,
        source=source,
        members=tuple(one.name for one in members),
        dominated=tuple(one.name for one in group if one not in members),
        knee=_knee(members, objectives).name,
        hypervolume=beaten,
        worst={goal.name: float(value) for goal, value in zip(objectives, worst, strict=True)},
        best={goal.name: float(value) for goal, value in zip(objectives, best, strict=True)},
    )


def _mixed(groups: Sequence[Sequence[Candidate]], objectives: Sequence[Objective]) -> Iterator[str]:
    """Yield a warning for each relative objective by which variants of several models are compared."""
    mixed = list(dict.fromkeys(model for group in groups if len(_models(group)) > 1 for model in _models(group)))
    for goal in objectives:
        if mixed and goal.absolute:
            yield (
                f"{goal.name} is against each model's own reference, and the front of {listing(mixed)} together mixes "
                f"them; {goal.absolute} means the same of all of them"
            )


def _recommended(
    field: Field,
    policy: str,
    group: Sequence[Candidate],
    objectives: Sequence[Objective],
    model: str | None,
    source: str,
) -> Recommendation:
    """Return the knee of the front of those that a policy lets pass."""
    green = [one for one in group if one.is_compressed and policy in one.green]
    chosen = None
    if not field.complete:
        reason = "the run is not complete, so that no variant is green for certain"
    elif not green:
        reason = "no compressed variant with all objectives is green"
    else:
        front = _best(green, objectives)
        chosen = _knee(front, objectives)
        reason = _reason(len(green), len(front)) + (
            "" if chosen in _best(group, objectives) else "; what beats it is not green, or not compressed"
        )
    return Recommendation(
        policy=policy, model=model, source=source, name=chosen.name if chosen else None, reason=reason
    )


def _reason(green: int, on_front: int) -> str:
    if green == 1:
        return "it is the only compressed variant that is green"
    if on_front == 1:
        return f"of {green} green compressed variants it is the only one that no other beats"
    return f"of {green} green compressed variants no other beats {on_front}, and it is the knee of their front"
