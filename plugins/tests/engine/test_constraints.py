"""Zeros stay zero and clusters stay clusters, whatever trains the network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from robustgate.core.components import Architecture, Constraint, Network
from robustgate.core.errors import CompressionError
from robustgate.engine.constraints import check_kept, held

ARCHITECTURE = Architecture(build="torch.nn:Linear", args={}, mean=(0.0,) * 3, std=(1.0,) * 3)
ZEROS = Constraint(kind="zeros", parameters=("weight",))
CLUSTERS = Constraint(kind="clusters", parameters=("weight",))


def network(weight: list[list[float]], *constraints: Constraint) -> Network:
    module = nn.Linear(len(weight[0]), len(weight))
    with torch.no_grad():
        module.weight.copy_(torch.tensor(weight))
        module.bias.zero_()
    return Network(module=module, architecture=ARCHITECTURE, constraints=constraints)


def descend(module: nn.Module, gradient: torch.Tensor, steps: int = 1, **settings: float) -> None:
    """Descend on sum(gradient * weight): the weights' gradient is `gradient`, always."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, **settings)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.eye(module.in_features)).T.mul(gradient).sum().backward()
        optimizer.step()


GRADIENT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def test_zeros_do_not_move_and_the_others_move_as_ever() -> None:
    bound = network([[0.0, 1.0, 0.0], [2.0, 0.0, 3.0]], ZEROS)
    free = copy.deepcopy(bound.module)
    with held(bound):
        descend(bound.module, GRADIENT, 5, momentum=0.9, weight_decay=0.1)
    descend(free, GRADIENT, 5, momentum=0.9, weight_decay=0.1)
    mask = torch.tensor([[False, True, False], [True, False, True]])
    assert torch.equal(bound.module.weight != 0, mask)
    torch.testing.assert_close(bound.module.weight[mask], free.weight[mask])


def test_without_the_constraint_the_zeros_would_move() -> None:
    bound = network([[0.0, 1.0, 0.0], [2.0, 0.0, 3.0]])
    with held(bound):
        descend(bound.module, GRADIENT)
    assert not (bound.module.weight == 0).any()


def test_a_cluster_moves_by_the_mean_of_its_members_gradients() -> None:
    bound = network([[0.5, 0.5, -1.0], [-1.0, 0.5, -1.0]], CLUSTERS)
    with held(bound):
        descend(bound.module, GRADIENT)
    high, low = 0.5 - 0.1 * (1 + 2 + 5) / 3, -1.0 - 0.1 * (3 + 4 + 6) / 3
    expected = torch.tensor([[high, high, low], [low, high, low]])
    torch.testing.assert_close(bound.module.weight.detach(), expected)


def test_the_zero_of_a_cluster_stays_zero_where_it_is_bound() -> None:
    weight = [[0.0, 0.5, 0.0], [0.5, 0.0, -1.0]]
    for constraints, zeros in (((ZEROS, CLUSTERS), 3), ((CLUSTERS,), 0)):
        bound = network(weight, *constraints)
        with held(bound):
            descend(bound.module, GRADIENT, 3, momentum=0.9, weight_decay=0.01)
        assert int((bound.module.weight == 0).sum()) == zeros
        assert len(bound.module.weight.unique()) == 3


def test_the_module_is_plain_again_and_its_names_are_the_same() -> None:
    bound = network([[0.0, 1.0], [2.0, 2.0]], ZEROS, CLUSTERS)
    before = set(bound.module.state_dict())
    with held(bound):
        assert set(bound.module.state_dict()) != before
    assert set(bound.module.state_dict()) == before
    assert type(bound.module) is nn.Linear


def test_an_error_in_training_leaves_the_module_plain_too() -> None:
    bound = network([[0.0, 1.0], [2.0, 2.0]], ZEROS)
    with pytest.raises(RuntimeError, match="killed"), held(bound):
        raise RuntimeError("killed")
    assert type(bound.module) is nn.Linear


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ([[0.0, 1.0]], [[0.1, 1.0]], "'weight' was zero in places where it no longer is"),
        ([[1.0, 1.0]], [[1.0, 1.1]], "'weight' had 1 different values, and now has 2"),
    ],
)
def test_a_step_that_breaks_a_constraint_is_found_out(before: list, after: list, complaint: str) -> None:
    constraint = ZEROS if "zero" in complaint else CLUSTERS
    with pytest.raises(CompressionError, match=f"low_rank: {complaint}"):
        check_kept(network(before, constraint), network(after, constraint), "low_rank")


def test_a_step_that_forgets_a_constraint_is_found_out() -> None:
    with pytest.raises(CompressionError, match="was to keep the zeros of 'weight', and passes none on"):
        check_kept(network([[0.0, 1.0]], ZEROS), network([[0.0, 1.0]]), "low_rank")


def test_a_constraint_on_a_parameter_that_is_not_there_is_an_error() -> None:
    bound = network([[0.0, 1.0]], Constraint(kind="zeros", parameters=("conv.weight",)))
    complaint = r"names the parameter 'conv\.weight', which the network does not have"
    with pytest.raises(CompressionError, match=complaint), held(bound):
        pass
