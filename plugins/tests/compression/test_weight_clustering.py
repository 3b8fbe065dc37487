"""Weight clustering: few values, each the mean of its weights, each weight at the nearest one."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from robustgate.compression import weight_clustering
from robustgate.compression.weight_clustering import WeightClustering, clustered, lloyd, plus_plus
from robustgate.core.components import Architecture, Constraint, Network
from robustgate.core.errors import CompressionError


def normal(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def network_of(module: nn.Module, *constraints: Constraint) -> Network:
    architecture = Architecture(build="x:y", args={}, mean=(0,) * 3, std=(1,) * 3)
    return Network(module=module.eval(), architecture=architecture, constraints=constraints)


def apply(network: Network, *, seed: int = 0, **parameters) -> Network:
    return WeightClustering(**parameters).apply(network, SimpleNamespace(seed=seed))


def layers(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.ReLU(), nn.Flatten(), nn.Linear(180, 30))


def check_k_means(weights: np.ndarray, result: np.ndarray, count: int) -> None:
    """Fail unless `result` has `count` values, each the mean of its weights, and each weight has the nearest one."""
    centroids = np.unique(result)
    assert len(centroids) == count
    for value in centroids:
        assert value == pytest.approx(weights[result == value].mean(dtype=np.float64), rel=1e-6, abs=1e-9)
    distances = np.abs(weights[:, None].astype(np.float64) - centroids)
    own = np.abs(weights.astype(np.float64) - result)
    assert (own <= distances.min(axis=1) + 1e-7).all()


def inertia(weights: np.ndarray, result: np.ndarray) -> float:
    return float(((weights.astype(np.float64) - result) ** 2).sum())


@pytest.mark.parametrize(("total", "count"), [(500, 2), (5_000, 16), (60_000, 64), (250_000, 16)])
def test_values_are_means_and_weights_are_at_the_nearest(total: int, count: int) -> None:
    weights = normal(total)
    check_k_means(weights, clustered(weights, count, seed=3, keep_zeros=False), count)


@pytest.mark.parametrize("fault", ["a value moved", "a weight elsewhere", "a value too few"])
def test_the_check_above_sees_a_planted_fault(fault: str) -> None:
    weights = normal(5_000)
    result = clustered(weights, 16, seed=3, keep_zeros=False)
    values = np.unique(result)
    if fault == "a value moved":
        result[result == values[4]] += np.float32(1e-4)
    elif fault == "a weight elsewhere":
        result[np.argmax(weights)] = values[3]
    else:
        result[result == values[4]] = values[5]
    with pytest.raises(AssertionError):
        check_k_means(weights, result, 16)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("count", [4, 16, 50])
def test_no_worse_than_scikit_learn_from_the_same_start(count: int, offset: float) -> None:
    weights = normal(20_000, seed=count) + np.float32(offset)
    start = plus_plus(weights, count, seed=0)
    theirs = KMeans(count, init=start[:, None], n_init=1, max_iter=3_000, tol=0)
    theirs.fit(weights[:, None].astype(np.float64))
    ours = inertia(weights, clustered(weights, count, seed=0, keep_zeros=False))
    assert ours <= theirs.inertia_ * (1 + 1e-4)


def test_weights_of_few_values_are_left_exactly_as_they_are() -> None:
    weights = np.random.default_rng(0).choice(normal(16), 3_000)
    assert np.array_equal(clustered(weights, 16, seed=0, keep_zeros=False), weights)


def test_clear_groups_are_found() -> None:
    # Eight groups ten times wider apart than they are wide: k-means has one good answer, their means.
    groups = np.repeat(np.arange(8), 200)
    weights = (groups + 0.1 * np.random.default_rng(0).uniform(-0.5, 0.5, 1_600)).astype(np.float32)
    for seed in range(20):
        result = clustered(weights, 8, seed=seed, keep_zeros=False)
        for group in range(8):
            assert np.unique(result[groups == group]) == pytest.approx(weights[groups == group].mean(), rel=1e-6)


def test_a_weight_half_way_goes_down_in_every_iteration() -> None:
    assert lloyd(np.float32([0, 2, 3]), np.array([1.0, 3.0])).tolist() == [1.0, 3.0]


def test_neighbouring_float32_numbers_stay_apart() -> None:
    # Between the first two lies no other float32 number, and half way is rounded up: to the second. That they are
    # many, and the last two are one each, makes the last two the pair that is cheapest to join.
    steps = np.float32([1, 2, 2**22, 2**22 + 4])
    weights = np.repeat(1 + np.finfo(np.float32).eps * steps, [1000, 1000, 1, 1])
    result = clustered(weights, 3, seed=0, keep_zeros=False)
    assert np.array_equal(result[:2000], weights[:2000])
    assert len(np.unique(result[2000:])) == 1


def test_an_empty_cluster_takes_the_furthest_weight() -> None:
    # No weight is nearest to 8.0: 6 is nearer to 5.5, and 10 to 8.1.
    weights = np.float32([0, 0, 0, 4, 6, 10, 10, 10, 30])
    result = lloyd(weights, np.array([1.0, 5.0, 5.5, 8.0, 8.1]))
    assert len(result) == 5
    check_k_means(weights, result.astype(np.float32)[np.abs(weights[:, None] - result).argmin(axis=1)], 5)
    starved = lloyd(weights, np.array([-100.0, -99.0, -98.0, 5.0]))
    assert len(starved) == 4
    check_k_means(weights, starved.astype(np.float32)[np.abs(weights[:, None] - starved).argmin(axis=1)], 4)


def test_a_network_has_few_values_a_layer_and_nothing_else_changed() -> None:
    module = layers()
    before = copy.deepcopy(module.state_dict())
    result = apply(network_of(module))
    after = result.module.state_dict()
    for name in ("0.weight", "4.weight"):
        check_k_means(before[name].numpy().ravel(), after[name].numpy().ravel(), 16)
        assert after[name].dtype is torch.float32
    others = before.keys() - {"0.weight", "4.weight"}
    assert len(others) == 7
    assert all(torch.equal(after[name], before[name]) for name in others)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert result.constraints == (Constraint(kind="clusters", parameters=("0.weight", "4.weight")),)


def sparse() -> tuple[Network, torch.Tensor, torch.Tensor]:
    """Return a network of one half zeros under a constraint in its linear layer, and its two weights."""
    module = layers(seed=5)
    with torch.no_grad():
        for layer in (module[0], module[4]):
            layer.weight[layer.weight.abs() < layer.weight.abs().median()] = 0.0
    network = network_of(module, Constraint(kind="zeros", parameters=("4.weight",)))
    return network, module[0].weight.detach().clone(), module[4].weight.detach().clone()


@pytest.mark.parametrize("count", [2, 3, 16])
def test_zeros_under_a_constraint_stay_and_are_one_of_the_values(count: int) -> None:
    network, free, kept = sparse()
    result = apply(network, clusters=count)
    weight = result.module[4].weight.detach()
    assert torch.equal(weight == 0, kept == 0)
    alive = kept != 0
    check_k_means(kept[alive].numpy(), weight[alive].numpy(), count - 1)
    # The convolution's zeros are under none: they are weights as all others.
    check_k_means(free.numpy().ravel(), result.module[0].weight.detach().numpy().ravel(), count)
    assert result.constraints == (
        Constraint(kind="zeros", parameters=("4.weight",)),
        Constraint(kind="clusters", parameters=("0.weight", "4.weight")),
    )


def test_sparsity_is_kept_only_where_it_is_asked_for() -> None:
    assert WeightClustering().keeps == {"zeros"}
    assert WeightClustering(preserve_sparsity=False).keeps == frozenset()
    network, _, kept = sparse()
    weight = apply(network, clusters=16, preserve_sparsity=False).module[4].weight.detach()
    check_k_means(kept.numpy().ravel(), weight.numpy().ravel(), 16)


def test_all_zeros_stay_all_zeros() -> None:
    assert not clustered(np.zeros(5, dtype=np.float32), 2, seed=0, keep_zeros=True).any()


def test_the_seed_decides() -> None:
    network = network_of(layers())
    first, again, other = (apply(network, seed=seed).module.state_dict() for seed in (2**62, 2**62, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["4.weight"], other["4.weight"])


def test_neither_global_random_stream_moves() -> None:
    # The legacy streams are what is asked about: a library that drew from them would disturb others.
    network = network_of(layers())
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    apply(network)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_a_start_from_a_part_of_the_weights_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = normal(40_000)
    whole = inertia(weights, clustered(weights, 16, seed=0, keep_zeros=False))
    monkeypatch.setattr(weight_clustering, "SAMPLE", 2_000)
    part = clustered(weights, 16, seed=0, keep_zeros=False)
    check_k_means(weights, part, 16)
    assert inertia(weights, part) < 1.1 * whole


def test_sixteen_values_of_normal_weights_are_near_the_best_quantizer() -> None:
    # Max (1960, Quantizing for minimum distortion): the best 16 levels leave a mean squared error of 0.009497.
    weights = normal(200_000)
    error = min(inertia(weights, clustered(weights, 16, seed=seed, keep_zeros=False)) for seed in range(3)) / 200_000
    assert 0.0092 < error < 0.0105


def test_what_cannot_be_clustered_is_said() -> None:
    with pytest.raises(CompressionError, match="weight_clustering: expected convolutions or linear layers"):
        apply(network_of(nn.Sequential(nn.BatchNorm2d(3))))
    with pytest.raises(ValueError, match="clusters must be at least 2, got 1"):
        WeightClustering(clusters=1)
