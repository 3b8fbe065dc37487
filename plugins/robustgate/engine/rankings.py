"""Compressions ranked over models and source domains, by one objective at a time."""

from __future__ import annotations

from collections.abc import Sequence

from robustgate.core.assessments import Objective, ObjectiveRanking
from robustgate.core.errors import listing
from robustgate.engine.candidates import Field
from robustgate.statistics.ranking import ranking


def rankings(field: Field, objectives: Sequence[Objective]) -> tuple[tuple[ObjectiveRanking, ...], tuple[str, ...]]:
    """Return the rankings of the compressions that all models and source domains have, and notes on what has none.

    A compression without the figure somewhere is left out of the ranking by that objective, and a note names it.
    """
    found, notes = [], []
    for goal in objectives:
        try:
            ranked = _ranked(field, goal)
        except ValueError as error:
            notes.append(f"no ranking by {goal.name}: {error}")
            continue
        found.append(ranked)
        missing = {one.compression for one in field.candidates} - set(ranked.compressions)
        if missing:
            notes.append(f"not ranked by {goal.name}: {listing(missing)}, which some model or source domain lacks")
    return tuple(found), tuple(notes)


def _ranked(field: Field, goal: Objective) -> ObjectiveRanking:
    """Rank by one objective. Raises ValueError where too little is there, or all is equal."""
    blocks = list(dict.fromkeys((one.model, one.source) for one in field.candidates))
    figures: dict[str, dict[tuple[str, str], float]] = {}
    for one in field.candidates:
        value = one.figures[goal.name]
        if value is not None:
            figures.setdefault(one.compression, {})[one.model, one.source] = value
    common = [name for name, held in figures.items() if len(held) == len(blocks)]
    if len(blocks) < 2 or len(common) < 3:
        raise ValueError(
            f"it takes two models or source domains and three compressions that all of them have, and there are "
            f"{len(blocks)} and {len(common)}"
        )
    return ObjectiveRanking(
        objective=goal.name,
        blocks=tuple(f"{model} on {source}" for model, source in blocks),
        compressions=tuple(common),
        ranking=ranking([[figures[name][block] for name in common] for block in blocks], maximised=goal.maximised),
    )
