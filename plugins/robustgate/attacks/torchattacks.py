"""Attacks of torchattacks (Kim 2020, arXiv 2010.01950), by the names of its classes."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from robustgate.attacks._library import LibraryAttack, norms_in

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Torchattacks"]

THEIR_NORMS = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True, kw_only=True)
class Torchattacks(LibraryAttack):
    """An attack of torchattacks: ``method = "torchattacks:PGD"``, `parameters` are its class's own.

    `eps`, `norm` and the number of classes go to a class that takes them, under whatever name it takes the budget
    (JSMA's `gamma`); `norm` may be left out where the class has but one. `minimizes` is for those that look for small
    perturbations (CW, DeepFool): their norms are then kept.

    Worked round, in 3.5.1:

    - The default `alpha` does not know `eps` (PGD's 2/255 is larger than 0.004): here it keeps the ratio of step times
      steps to budget that the class has by default. An `alpha` that cannot reach eps is refused.
    - Models left in train mode, gradients left in parameters, the global random streams moved, results that require
      gradients, a model without parameters, images that are not contiguous: see `LibraryAttack`.
    - AutoAttack without a seed takes the clock for one, and others always 0: here it comes from the sample's draws.
    - JSMA aims at class (label + 1) modulo 10, whatever the number of classes: here modulo that number.

    Not worked round: CW cannot move a value that is exactly 0 or 1, finds nothing where all other logits are negative,
    stops a batch by its summed cost, and searches for no constant. DeepFool gives back points that fool nobody, which
    the engine does not count. PGD and its kin give back the last iterate, not the best. JSMA needs memory for the
    square of the number of values. AutoAttack and APGDT need four classes. SPSA's step does not know `eps`. What a
    class without `eps` finds is only projected to it.
    """

    library: ClassVar[str] = "torchattacks"
    exports: ClassVar[str] = "__init__.py"

    def check_class(self, line: list[ast.ClassDef]) -> set[str]:
        """Return the norms that the class's docstring names as its distance measures."""
        measured = re.search(r"Distance Measure\s*:(.*)", ast.get_docstring(line[0]) or "")
        return norms_in(measured[1]) if measured else set()

    def find(self, module: nn.Module, images: Tensor, labels: Tensor, *, classes: int, seed: int) -> Tensor:
        """Return the library's point for each image. Raises what it raises, and ValueError for an `alpha` too small."""
        import torchattacks  # the library: this module's own name is robustgate.attacks.torchattacks

        kind = getattr(torchattacks, self.attack)
        accepted = {name: taken.default for name, taken in inspect.signature(kind).parameters.items()}
        attack = kind(module, **self._arguments(accepted, classes, seed))
        if self.attack == "JSMA":
            attack.set_mode_targeted_by_function(lambda _, truth: (truth + 1) % classes, quiet=True)
        found: Tensor = attack(images, labels)
        return found

    def _arguments(self, accepted: Mapping[str, Any], classes: int, seed: int) -> dict[str, Any]:
        offered: dict[str, Any] = {"eps": self.eps, "max_epsilon": self.eps, "n_classes": classes, "seed": seed}
        if self.norm == "l0":
            offered["gamma"] = self.eps  # JSMA's name for the share of the values that may change
        else:
            offered["norm"] = THEIR_NORMS[str(self.norm)]
        given = {name: value for name, value in offered.items() if name in accepted} | dict(self.parameters)
        if "alpha" in accepted and "eps" in accepted:
            steps = given.get("steps", accepted.get("steps", 1))
            if "alpha" in given:
                self.check_reach(steps, given["alpha"] / self.eps)
            else:
                usual = accepted["alpha"] / accepted["eps"] * accepted.get("steps", 1)
                given["alpha"] = self.eps * usual / steps
        return given
