"""What an attack has found so far: for each sample its best point, counted on the artifact."""

from __future__ import annotations

import torch
from torch import Tensor

from robustgate.core.budget import Budget

# What is nearer by less than this is the same point, but for rounding.
NEARER = 1 - 1e-4


class Ledger:
    """The samples (N,) of one walk, and the best that was found for each.

    Under a fixed budget the first adversarial point within it settles a sample. For a minimum-norm attack the nearest
    adversarial point counts, whatever its norm, and no sample is ever settled; points that only a faster copy calls
    adversarial are claims, of which the nearest is confirmed when the walk has ended. `norms` (N,) are those of the
    best `points` (N, 3, H, W), infinite where none was found; `predictions` (N,) is the artifact's decision there.
    `queries` and `gradients` (N,) are what was spent on each.
    """

    def __init__(self, images: Tensor, labels: Tensor, budget: Budget, *, minimizes: bool) -> None:
        count = len(images)
        self.images = images
        self.labels = labels
        self.budget = budget
        self.minimizes = minimizes
        self.points = images.clone()
        self.norms = torch.full((count,), float("inf"), device=images.device)
        self.predictions = labels.clone()
        self.queries, self.gradients = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
        self._claimed, self._claims = self.norms.clone(), self.points.clone() if minimizes else self.points
        self._outside: dict[int, Tensor] = {}
        self._projected = torch.empty(0, dtype=torch.int64, device=labels.device)

    @property
    def fallen(self) -> Tensor:
        """Which samples (N,) have an adversarial point within the budget."""
        return self.budget.contains(self.norms)

    @property
    def felled_by_projection(self) -> Tensor:
        """Which samples (k,) fell only once their point was projected to the budget."""
        return self._projected[self.fallen[self._projected]]

    def settled(self, rows: Tensor) -> Tensor:
        """Say for which samples nothing more is needed."""
        return torch.zeros_like(rows, dtype=torch.bool) if self.minimizes else self.fallen[rows]

    def would_enter(self, rows: Tensor, points: Tensor) -> Tensor:
        """Say which points would be the best so far if they were adversarial."""
        return self._is_better(rows, self.budget.size(points - self.images[rows]))

    def enter(self, rows: Tensor, points: Tensor, predictions: Tensor) -> Tensor:
        """Enter what the artifact decided at some points; return which of them are adversarial."""
        adversarial = predictions != self.labels[rows]
        sizes = self.budget.size(points - self.images[rows])
        better = adversarial & self._is_better(rows, sizes)
        self.points[rows[better]] = points[better]
        self.norms[rows[better]] = sizes[better]
        self.predictions[rows[better]] = predictions[better]
        return adversarial

    def asked(self, rows: Tensor, points: Tensor) -> None:
        """Note which points of an attack that does not minimise lie outside its budget: each sample's last."""
        if self.minimizes:
            return
        inside = self.budget.contains(self.budget.size(points - self.images[rows]))
        if bool(inside.all()) and not self._outside:
            return  # as it is for every attack that projects its own points
        for place, row in enumerate(rows.tolist()):
            if inside[place]:
                self._outside.pop(row, None)
            else:
                self._outside[row] = points[place]

    def claim(self, rows: Tensor, points: Tensor) -> None:
        """Note points that seem adversarial; each sample's nearest is kept."""
        sizes = self.budget.size(points - self.images[rows])
        nearer = sizes < self._claimed[rows]
        self._claimed[rows[nearer]] = sizes[nearer]
        self._claims[rows[nearer]] = points[nearer]

    def claims(self, farther: float) -> tuple[Tensor, Tensor]:
        """Return the samples whose claim, moved outwards, is nearer than what is confirmed; and these points."""
        rows = (farther * self._claimed < NEARER * self.norms).nonzero()[:, 0]
        return rows, self.images[rows] + farther * (self._claims[rows] - self.images[rows])

    def last_words(self) -> tuple[Tensor, Tensor]:
        """Return the samples that stand, but may fall at a point's projection to the budget; and those projections.

        Of a minimum-norm attack that point is the best, of another the last that was asked about, if it was outside.
        """
        if self.minimizes:
            rows = (~self.fallen & self.norms.isfinite()).nonzero()[:, 0]
            points = self.points[rows]
        else:
            standing = [row for row in sorted(self._outside) if not self.fallen[row]]
            rows = torch.tensor(standing, dtype=torch.int64, device=self.labels.device)
            points = torch.stack([self._outside[row] for row in standing]) if standing else self.points[rows]
        self._projected = rows
        return rows, self.budget.project(points, self.images[rows])

    def _is_better(self, rows: Tensor, sizes: Tensor) -> Tensor:
        better = sizes < self.norms[rows]
        return better if self.minimizes else better & self.budget.contains(sizes)
