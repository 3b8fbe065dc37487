"""How many gradients are taken of each image."""

from __future__ import annotations

import pytest

from robustgate.engine.subjects import CountedTarget


def watch_columns(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return a list that is filled from now on: of each batch how many images there were, and gradients for each."""
    seen: list[tuple[int, int]] = []
    plain = CountedTarget.gradient

    def watched(self, images, loss):
        logits, gradient = plain(self, images, loss)
        seen.append((len(images), gradient.shape[1] if gradient.dim() > images.dim() else 1))
        return logits, gradient

    monkeypatch.setattr(CountedTarget, "gradient", watched)
    return seen
