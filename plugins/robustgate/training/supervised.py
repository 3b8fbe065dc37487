"""Plain supervised training: SGD with momentum, a one-cycle learning rate, light augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from robustgate.training._descent import Descent

__all__ = ["Supervised"]


@dataclass(frozen=True, kw_only=True)
class Supervised(Descent):
    """Minimise the cross-entropy, or the objective of a compression's own, by SGD with Nesterov momentum.

    The papers that this project follows do not give their fine-tuning settings; these are sound defaults for small
    networks.
    """
