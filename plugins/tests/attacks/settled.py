"""A check that a walk asks no more about samples that are settled."""

from __future__ import annotations

import torch
from closed_forms import Ground

from robustgate.core.budget import Budget
from robustgate.core.components import Answer, Attack
from robustgate.engine.draws import SampleDraws
from robustgate.engine.subjects import CountedTarget


def check_settled_are_dropped(attack: Attack, where: Ground, *, least: int = 4) -> None:
    """Fail where a walk asks about a sample that was settled, as a composite with a fixed budget settles it."""
    target = CountedTarget(where.subject, len(where.samples.classes), "case")
    labels, budget = torch.from_numpy(where.samples.labels), Budget(attack.norm, attack.eps)
    done = torch.zeros(len(labels), dtype=torch.bool)
    with torch.no_grad():
        walk = attack.run(where.images, labels, SampleDraws(range(len(labels))), target)
        answer = None
        while True:
            try:
                query = walk.send(answer) if answer is not None else next(walk)
            except StopIteration:
                break
            assert len(query.rows)
            assert len(set(query.rows.tolist())) == len(query.rows)
            assert not done[query.rows].any()
            logits = target.logits(query.points)
            adversarial = logits.argmax(dim=1) != labels[query.rows]
            done[query.rows] |= adversarial & budget.contains(budget.size(query.points - where.images[query.rows]))
            gradient = torch.empty(0)
            if query.loss is not None:
                _, gradient = target.gradient(query.points, query.loss)
                gradient[done[query.rows]] = 0  # as the engine leaves it
            answer = Answer(logits, gradient, adversarial, done[query.rows].clone())
    assert least <= int(done.sum()) <= len(done) - least
