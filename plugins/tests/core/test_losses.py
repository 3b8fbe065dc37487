"""The losses' gradients, against float64."""

from __future__ import annotations

import pytest
import torch

from robustgate.core.losses import cross_entropy, exact_cross_entropy


def slope(loss, odds: float, dtype: torch.dtype) -> torch.Tensor:
    """The gradient to three logits, of which the label's leads the others' log-sum-exp by `odds`."""
    logits = torch.tensor([[odds + 1.313262, 0.0, 1.0]], dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(torch.tensor([0]))(logits).sum(), logits)
    return gradient[0]


@pytest.mark.parametrize("odds", [-5.0, 0.0, 5.0, 16.0, 20.0, 40.0, 80.0])
def test_the_exact_cross_entropy_is_cross_entropy_however_sure_the_network(odds: float) -> None:
    # Beyond odds of 20 the gradient is in proportion to exp(-odds); float64 itself rounds the probability to 1 at 37.
    truth = slope(cross_entropy, min(odds, 20.0), torch.float64) * torch.tensor(min(odds, 20.0) - odds).double().exp()
    torch.testing.assert_close(slope(exact_cross_entropy, odds, torch.float32).double(), truth, rtol=2e-5, atol=0)


def test_the_usual_cross_entropy_loses_the_label_s_half_of_its_gradient() -> None:
    label, *others = slope(cross_entropy, 18.0, torch.float32).tolist()
    assert label == 0
    assert sum(others) > 1e-8
