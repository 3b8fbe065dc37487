"""The worst case: what stands under several attacks at once."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WorstCase"]


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """Join attacks of the configuration, by name: a sample is right only where it is under each of them.

    Nothing is attacked anew: each sample's worst outcome is taken. A network that was fitted to one attack falls to
    another, and an average of several hides it; the union is how robust accuracy is told (Tramer & Boneh 2019, arXiv
    1904.13000). Norms need not agree: the budgets are then those of each attack.
    """

    attacks: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.attacks)) < 2 or len(set(self.attacks)) < len(self.attacks):
            raise ValueError(f"attacks must name at least two attacks, each once, got {list(self.attacks)}")
