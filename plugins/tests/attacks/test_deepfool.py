"""DeepFool's classes: how they are ranked, which it goes on with, and what that costs on a published network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from columns import watch_columns
from published import published
from settled import check_settled_are_dropped
from test_deepfool_ddn import Planes, Small, on, pictures

from robustgate.attacks.deepfool import Deepfool
from robustgate.core.components import Answer, Query, Walk

both_norms = pytest.mark.parametrize("norm", ["l2", "linf"])


class TestRanking:
    """A walk on one image, told by hand: class 0 is its own, the others' boundaries are 20, 2, 1 and 3 away in l2."""

    LOGITS = torch.tensor([[9.0, 7.0, 5.0, 3.0, 1.5]])
    SLOPES = (0.1, 2.0, 6.0, 2.5)

    def begun(self, **parameters: int) -> tuple[Walk, Query]:
        image = torch.full((1, 3, 4, 4), 0.5)

        class Target:
            classes = 5

        walk = Deepfool(eps=1, **parameters).run(image, torch.tensor([0]), None, Target())  # type: ignore[arg-type]
        return walk, next(walk)

    def answer(self, query: Query, logits: torch.Tensor, *, count: int) -> Answer:
        """Return an answer whose gradients each slope along a value of their own, by the class they are asked for."""
        gradient = torch.zeros(1, count, 3, 4, 4)
        if query.loss is not None:
            values = query.loss(self.LOGITS)
            assert values.shape == (1, count)
            for column, difference in enumerate(values[0].tolist()):
                aim = (self.LOGITS[0, 1:] - self.LOGITS[0, 0]).tolist().index(difference)
                gradient[0, column, 0, 0, aim] = self.SLOPES[aim]
        none = torch.tensor([False])
        return Answer(logits, gradient, none, none)

    def test_the_first_query_has_the_gradients_of_all_candidates(self) -> None:
        _, query = self.begun(candidates=4)
        assert query.loss is not None
        assert query.loss(self.LOGITS).tolist() == [[-2, -4, -6]]

    def test_the_nearest_boundaries_remain_not_the_largest_logits(self) -> None:
        walk, query = self.begun(rivals=2)
        look = walk.send(self.answer(query, self.LOGITS, count=4))
        assert look.loss is None
        moved = (look.points - 0.5)[0, 0, 0]
        assert moved[2] > 0
        assert not moved[[0, 1, 3]].any()
        later = walk.send(self.answer(look, self.LOGITS, count=0))
        assert later.loss is not None
        assert torch.equal(later.points, look.points)
        # Classes 3 and 2, whatever the logits have become.
        assert later.loss(torch.tensor([[10.0, 9, 4, 1, 11]])).tolist() == [[-9, -6]]

    def test_the_ranks_are_of_what_gradients_are_taken_of(self) -> None:
        # The twin's logits are LOGITS; the artifact's own rank the classes the other way round.
        walk, query = self.begun(candidates=3, rivals=2)
        artifact = torch.tensor([[9.0, 1.5, 3.0, 5.0, 7.0]])
        look = walk.send(self.answer(query, artifact, count=2))
        moved = (look.points - 0.5)[0, 0, 0]
        assert moved[1] > 0  # class 2: 6 below by the artifact, 3 away; class 1 is 75 away
        later = walk.send(self.answer(look, artifact, count=0))
        assert later.loss is not None
        assert later.loss(torch.tensor([[10.0, 9, 4, 1, 11]])).tolist() == [[-6, -1]]


@both_norms
@pytest.mark.parametrize(("rivals", "later"), [(1, 1), (3, 3), (6, 6), (99, 6)])
def test_later_gradients_are_of_the_rivals_only(
    norm: str, rivals: int, later: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = watch_columns(monkeypatch)
    where = on(Small(), pictures(low=0, high=256))
    result = where.outcome(Deepfool(eps=0.1, norm=norm, rivals=rivals, overshoot=0), size=4 * len(where.images))
    assert [count for _, count in columns] == [6] + [later] * (len(columns) - 1)
    assert len(columns) > 1
    # What is over a boundary is told by its logits.
    assert sum(images for images, _ in columns) == result.gradients.sum()
    assert columns[0][0] == len(where.images) > columns[-1][0]


def test_one_step_does_on_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = watch_columns(monkeypatch)
    where = on(Planes())
    result = where.outcome(Deepfool(eps=0.1), size=4 * len(where.images))
    assert columns == [(len(where.images), 5)]
    # A look beyond the boundary, both edges of the cell that it is in, at last the confirmation. Another class may come
    # first on the way, and the margin then has a kink.
    assert (result.queries >= 3).all()
    assert (result.queries <= 6).all()
    assert np.median(result.queries) == 4


@both_norms
def test_settled_samples_are_asked_about_no_more(norm: str) -> None:
    where = on(Planes())
    eps = float(where.subject.module.distances(where.images, norm).min(dim=1).values.median())
    check_settled_are_dropped(Deepfool(eps=eps * 1.03, norm=norm), where)


@both_norms
def test_three_rivals_do_on_a_published_network(real_data: Path, norm: str) -> None:
    where = published(real_data, 4)
    few, every = (where.outcome(Deepfool(eps=0.01, norm=norm, rivals=rivals)) for rivals in (3, 9))
    attacked = every.norms > 0
    assert attacked.sum() >= 32
    assert np.median(few.norms[attacked]) == pytest.approx(np.median(every.norms[attacked]), rel=0.005)
    assert few.norms[attacked].mean() == pytest.approx(every.norms[attacked].mean(), rel=0.005)
    # Looks and search: before there were ten halvings.
    assert few.queries[attacked].mean() < 9
