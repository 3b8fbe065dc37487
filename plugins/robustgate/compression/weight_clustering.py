"""Weight clustering (Han et al. 2016, Deep Compression, arXiv 1510.00149): a layer's weights share a few values."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from robustgate.compression._layers import constrained, weights_of
from robustgate.core.components import ConstraintKind, Network
from robustgate.core.seeds import derive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robustgate.core.components import Workshop

__all__ = ["WeightClustering"]

# Ten million normal weights settle after 800 iterations for 16 clusters, 2,200 for 256, in a second. The 300 that are
# usual where each iteration reads every weight would leave 0.2 % more error there.
ITERATIONS = 10_000
# The most values that the initialisation looks at: its cost grows with their number times that of the clusters.
SAMPLE = 100_000


@dataclass(frozen=True, kw_only=True)
class WeightClustering:
    """Replace each weight of a convolution or linear layer by the nearest of the layer's `clusters` shared values.

    The values of a layer are found by k-means on all its weights: k-means++ chooses the first ones (Arthur and
    Vassilvitskii 2007, in scikit-learn's greedy form; from 100,000 evenly spaced order statistics where a layer has
    more distinct weights), Lloyd's iterations move them until no weight changes sides. Deep Compression
    starts from evenly spaced values; k-means++ and 16 clusters are those of arXiv 2512.24971. A layer of at most
    `clusters` distinct weights is left as it is.

    With `preserve_sparsity` the zeros that an earlier step made stay zero, and zero is one of the values of such a
    layer; without it a chain that has made zeros is refused.
    """

    product: ClassVar[Literal["network", "file"]] = "network"
    makes: ClassVar[frozenset[ConstraintKind]] = frozenset({"clusters"})

    clusters: int = 16
    preserve_sparsity: bool = True

    def __post_init__(self) -> None:
        if self.clusters < 2:
            raise ValueError(f"clusters must be at least 2, got {self.clusters}")

    @property
    def keeps(self) -> frozenset[ConstraintKind]:
        """Zeros, where sparsity is preserved."""
        return frozenset({"zeros"}) if self.preserve_sparsity else frozenset()

    def apply(self, network: Network, workshop: Workshop) -> Network:
        """Return a copy of few distinct weights. Raises CompressionError where there is nothing to cluster."""
        import torch

        module = copy.deepcopy(network.module)
        weights = weights_of(module, "weight_clustering")
        sparse = network.constrained("zeros") if self.preserve_sparsity else ()
        for name, weight in weights.items():
            flat = weight.detach().cpu().float().flatten().numpy()
            seed = derive(workshop.seed, name) % 2**32
            values = clustered(flat, self.clusters, seed=seed, keep_zeros=name in sparse)
            with torch.no_grad():
                weight.copy_(torch.from_numpy(values).view_as(weight))
        constraints = constrained(network, "clusters", tuple(weights))
        return Network(module=module, architecture=network.architecture, constraints=constraints)


def clustered(weights: NDArray[np.float32], count: int, *, seed: int, keep_zeros: bool) -> NDArray[np.float32]:
    """Return weights (N,) with at most `count` distinct values; kept zeros are one of them, and stay where they are."""
    import numpy as np

    if keep_zeros and not weights.all():
        others = weights != 0
        result = np.zeros_like(weights)
        result[others] = clustered(weights[others], count - 1, seed=seed, keep_zeros=False)
        return result
    ordered = np.sort(weights)
    fresh = np.ones(len(ordered), dtype=bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    distinct = int(fresh.sum())
    if distinct <= count:
        return weights
    many = distinct > SAMPLE
    sample = ordered[np.linspace(0, len(ordered) - 1, SAMPLE).astype(np.int64)] if many else ordered
    centroids = lloyd(ordered, plus_plus(sample, count, seed))
    return centroids.astype(np.float32)[np.searchsorted(_borders(centroids), weights)]


def plus_plus(weights: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float64]:
    """Return the first centroids by k-means++, ascending: `count` of the weights, or all distinct ones if fewer."""
    import numpy as np
    from sklearn.cluster import kmeans_plusplus

    points, times = np.unique(weights, return_counts=True)
    values = points.astype(np.float64)
    first = min(count, len(points))
    found = kmeans_plusplus(values[:, None], first, sample_weight=times.astype(np.float64), random_state=seed)
    return np.sort(values[found[1]])


def lloyd(ordered: NDArray[np.float32], centroids: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centroids that Lloyd's iterations reach for ascending weights (N,), ascending.

    A cluster is a stretch of the ordered weights, so that its mean is a difference of two cumulative sums.
    """
    import numpy as np

    count = len(centroids)
    sums = np.zeros(len(ordered) + 1)
    np.cumsum(ordered, dtype=np.float64, out=sums[1:])
    edges = np.empty(0, dtype=np.int64)
    for _ in range(ITERATIONS):
        inner = np.searchsorted(ordered, _borders(centroids), side="right")
        before, edges = edges, np.concatenate(([0], inner, [len(ordered)]))
        if np.array_equal(before, edges):
            break
        centroids = _means(ordered, sums, np.unique(edges), count)
    return centroids


def _means(
    ordered: NDArray[np.float32], sums: NDArray[np.float64], edges: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Return the mean of each stretch, ascending; where they are fewer than `count`, with the furthest weights."""
    import numpy as np

    means = np.diff(sums[edges]) / np.diff(edges)
    missing = count - len(means)
    if missing:
        # Those are at the ends of stretches. Some cluster has lost all of its weights, and takes one of them.
        ends = np.concatenate([ordered[edges[:-1]], ordered[edges[1:] - 1]]).astype(np.float64)
        furthest = np.argsort(-np.abs(ends - np.tile(means, 2)), kind="stable")
        means = np.unique(np.concatenate([means, ends[furthest[:missing]]]))
    return means


def _borders(centroids: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 numbers that are not above the midpoints between neighbouring centroids."""
    import numpy as np

    middles = (centroids[1:] + centroids[:-1]) / 2
    borders = middles.astype(np.float32)
    return np.where(borders > middles, np.nextafter(borders, np.float32(-np.inf)), borders)
