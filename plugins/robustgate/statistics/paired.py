"""Two classifiers on the same samples: the drop from the reference to the compressed one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from scipy import special

from robustgate.statistics.proportion import Interval, normal_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PairedCounts:
    """What `n` samples say about a drop: on `lost` only the reference is right, on `gained` only the compressed."""

    n: int
    lost: int
    gained: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1: nothing was measured, got {self.n}")
        if self.lost < 0 or self.gained < 0 or self.lost + self.gained > self.n:
            raise ValueError(
                f"lost and gained must be at least 0 and together at most n = {self.n}, "
                f"got lost = {self.lost}, gained = {self.gained}"
            )

    @classmethod
    def of(cls, reference: NDArray[np.bool_], compressed: NDArray[np.bool_]) -> PairedCounts:
        """Count two arrays (N,) that say, sample by sample, whether each was right. ValueError unless both are (N,)."""
        if reference.ndim != 1 or reference.shape != compressed.shape:
            raise ValueError(f"outcomes must be two arrays of one length, got {reference.shape}, {compressed.shape}")
        right, still = reference.astype(bool), compressed.astype(bool)
        return cls(n=len(right), lost=int((right & ~still).sum()), gained=int((~right & still).sum()))

    @property
    def drop(self) -> float:
        """The reference's accuracy less the compressed one's, in [-1, 1]."""
        return (self.lost - self.gained) / self.n

    @property
    def swapped(self) -> PairedCounts:
        """The same samples with the two classifiers exchanged."""
        return PairedCounts(n=self.n, lost=self.gained, gained=self.lost)


def drop_interval(counts: PairedCounts, confidence: float, *, corrected: bool = False) -> Interval:
    """Return the score interval of the drop, within [-1, 1]: every drop that a score test would not reject.

    Unlike Wald's it neither collapses to a point without discordant pairs nor leaves [-1, 1]. It covers `confidence`
    on average, and where few samples disagree, or n is small, a little less (at 0.99 and n = 60, 0.985). `corrected`
    for continuity, by one sample as McNemar's test is, it is a little wider, and covers `confidence` from n = 40 on.
    Raises ValueError for a confidence that cannot be. Sources: Tango 1998, Stat. Med. 17:891; the correction, which
    leaves McNemar's test at a drop of 0: Edwards 1948, Psychometrika 13:185.
    """
    z, correction = normal_quantile(confidence), 1 if corrected else 0
    return Interval(low=0.0 - _upper(counts.swapped, z, correction), high=_upper(counts, z, correction))


def _upper(counts: PairedCounts, z: float, correction: int) -> float:
    """Return the largest drop at which the score is -z."""
    if counts.lost - counts.gained + correction >= counts.n:
        return 1.0
    from scipy import optimize  # a fifth of a second to import, and a run that infers no drop does without

    def excess(drop: float) -> float:
        shortfall = counts.n * drop - (counts.lost - counts.gained) - correction
        return shortfall * abs(shortfall) - z * z * score_variance(counts, drop)

    # At the estimate the excess is negative, or zero where the variance vanishes (no discordant pair, or all of them
    # gained); a hair above it is negative. At 1 the variance is zero and the excess positive.
    above = min(counts.drop + 1e-12, 1.0)
    return float(optimize.brentq(excess, above, 1.0, xtol=1e-15, rtol=1e-14))


def score_variance(counts: PairedCounts, drop: float) -> float:
    """Return the variance of lost - gained, estimated under the hypothesis that the true drop is `drop`.

    n(2q + D(1 - D)), where D is the drop and q the restricted maximum-likelihood estimate of the gained share, the
    larger root of 2n q² + B q + C = 0 (Tango 1998, eq. 7 and 9).
    """
    n, lost, gained = counts.n, counts.lost, counts.gained
    b = (2 * n - lost + gained) * drop - lost - gained
    c = -gained * drop * (1 - drop)
    root = math.sqrt(max(0.0, b * b - 8 * n * c))
    # Two forms of one root: the one whose terms do not cancel.
    q = (root - b) / (4 * n) if b <= 0 else -2 * c / (root + b)
    return max(0.0, n * (2 * q + drop * (1 - drop)))


def mcnemar_p(counts: PairedCounts, method: Literal["mid_p", "exact"] = "mid_p") -> float:
    """Return the two-sided p-value of the hypothesis that both classifiers are right equally often.

    ``exact`` is the binomial test on the discordant pairs, which is conservative; ``mid_p`` counts half of the
    observed split's own probability. Without a discordant pair, or with as many lost as gained, both are 1. Raises
    ValueError for an unknown method. Source: Fagerland, Lydersen & Laake 2013, BMC Med. Res. Methodol. 13:91.
    """
    if method not in ("mid_p", "exact"):
        raise ValueError(f"method must be mid_p or exact, got {method!r}")
    fewer, discordant = min(counts.lost, counts.gained), counts.lost + counts.gained
    if discordant == 0:
        return 1.0
    up_to = float(special.bdtr(fewer, discordant, 0.5))
    below = float(special.bdtr(fewer - 1, discordant, 0.5)) if fewer else 0.0
    # Both tails whole, or each with half of the observed split's own probability.
    return min(1.0, 2 * up_to if method == "exact" else up_to + below)
