"""The losses that attacks climb: each takes labels and gives a function of the logits, one value a sample.

Higher is closer to a wrong decision. Below them the loss by which a network learns from another. Only tensor methods
and torch's own losses: torch is imported where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustgate.core.components import Loss, Objective

if TYPE_CHECKING:
    from torch import Tensor, nn


def cross_entropy(labels: Tensor) -> Loss:
    """Return the cross-entropy to `labels` (N,), as every library takes it.

    Its gradient is half lost already where float32 rounds the label's probability to 1, at odds of 16.6.
    """
    from torch.nn import functional

    return lambda logits: functional.cross_entropy(logits, labels, reduction="none")


def exact_cross_entropy(labels: Tensor) -> Loss:
    """Return the cross-entropy to `labels` (N,), as the softplus of `log_odds`: its gradient is exact to odds of 87."""
    from torch.nn import functional

    return lambda logits: functional.softplus(log_odds(labels)(logits))


def log_odds(labels: Tensor) -> Loss:
    """Return the log-sum-exp of the other logits less the label's.

    Cross-entropy is its softplus, a growing function: for each sample both gradients point the same way. But this one
    does not vanish where the network is so sure that float32 rounds its probability to 1.
    """

    def loss(logits: Tensor) -> Tensor:
        return others(logits, labels).logsumexp(dim=1) - logits.gather(1, labels[:, None])[:, 0]

    return loss


def others(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits (N, classes) with the label's own at minus infinity."""
    return logits.scatter(1, labels[:, None], float("-inf"))


def margin(labels: Tensor) -> Loss:
    """Return the largest other logit less the label's: above zero where the decision is wrong. Two classes suffice."""
    return lambda logits: others(logits, labels).amax(dim=1) - logits.gather(1, labels[:, None])[:, 0]


def dlr(labels: Tensor) -> Loss:
    """Return the difference of logits ratio (Croce & Hein 2020, arXiv 2003.01690, eq. 6): -(z_y - z_i) / (z_1 - z_3).

    It does not change when logits are shifted or scaled. With two classes there is no third logit: the denominator
    is then z_1 - z_2, and the loss the sign of the margin, whose gradient is zero; the paper leaves that open. Here
    the margin stands in for it.
    """

    def loss(logits: Tensor) -> Tensor:
        difference = margin(labels)(logits)
        if logits.shape[1] < 3:
            return difference
        top = logits.topk(3, dim=1).values
        return difference / (top[:, 0] - top[:, 2] + 1e-12)

    return loss


def dlr_targeted(labels: Tensor, targets: Tensor) -> Loss:
    """Return the targeted DLR loss (eq. 7): -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), towards `targets` (N,).

    With three classes z_4 is z_3; with two, the margin to the target stands in for the ratio.
    """

    def loss(logits: Tensor) -> Tensor:
        difference = logits.gather(1, targets[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]
        classes = logits.shape[1]
        if classes < 3:
            return difference
        top = logits.topk(min(4, classes), dim=1).values
        return difference / (top[:, 0] - (top[:, 2] + top[:, -1]) / 2 + 1e-12)

    return loss


def softened(teacher: nn.Module, temperature: float, alpha: float) -> Objective:
    """Return the loss of a student who learns from a teacher's softened outputs (Hinton et al. 2015, arXiv 1503.02531).

    (1 - alpha) CE(z_s, y) + alpha T^2 KL(softmax(z_t / T) || softmax(z_s / T)); both see the same images. With an
    `alpha` of 0 the teacher is not asked.
    """
    import torch
    from torch.nn import functional

    def objective(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        if not alpha:
            return functional.cross_entropy(logits, labels)
        with torch.no_grad():
            taught = functional.log_softmax(teacher(images) / temperature, dim=1)
        soft = functional.log_softmax(logits / temperature, dim=1)
        divergence = functional.kl_div(soft, taught, reduction="batchmean", log_target=True)
        return (1 - alpha) * functional.cross_entropy(logits, labels) + alpha * temperature**2 * divergence

    return objective
