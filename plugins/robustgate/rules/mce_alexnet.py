"""The mean corruption error, against AlexNet's published errors on ImageNet-C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from robustgate.core.components import Bound
from robustgate.rules._over_shifts import OverShifts, check_ratio, grid, of_benchmark
from robustgate.rules.mce import corruption_errors

if TYPE_CHECKING:
    from robustgate.core.components import Shares
    from robustgate.core.records import Shift

__all__ = ["MceAlexnet"]

# Means over the five severities of ImageNet-C, given by the authors of the data set.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def alexnet_corruption_errors(errors: NDArray[np.float64], corruptions: Sequence[str]) -> NDArray[np.float64]:
    """Return each corruption's CE (..., C): the mean of errors (..., C, S) over severities against AlexNet's."""
    base = np.array([ALEXNET_ERRORS[name] for name in corruptions])
    return corruption_errors(errors.mean(axis=-1, keepdims=True), base[:, None])


@dataclass(frozen=True, kw_only=True)
class MceAlexnet(OverShifts):
    """At most so large a mean corruption error, as ImageNet-C defines it: ``max = 0.8``, printed as 80.

    The base is AlexNet's published errors, which are those of ImageNet-C: of other images the figure compares nothing,
    and there is no such convention. With `partial`, over what is planned of the fifteen corruptions; fewer severities
    then stand against AlexNet's mean over all five. Source: Hendrycks & Dietterich 2019, arXiv 1903.12261.
    """

    max: float
    partial: bool = False

    def __post_init__(self) -> None:
        check_ratio(self.max, "max")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The largest error."""
        name = "mce_alexnet_partial" if self.partial else "mce_alexnet"
        return (Bound(metric=name, kind="max", limit=self.max, unit=""),)

    def needs(self, planned: Sequence[Shift]) -> tuple[Shift, ...]:
        """Return the cells of the benchmark."""
        return of_benchmark(planned, "mce_alexnet", partial=self.partial)

    def figures(self, shares: Shares, shifts: Sequence[Shift]) -> tuple[NDArray[np.float64], ...]:
        """Return the mCE, a ratio."""
        names = list(dict.fromkeys(str(shift.corruption) for shift in shifts))
        return (alexnet_corruption_errors(1 - grid(shares.right, shifts), names).mean(axis=-1),)
