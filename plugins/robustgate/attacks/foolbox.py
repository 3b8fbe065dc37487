"""Attacks of Foolbox (Rauber et al. 2020, JOSS 5(53), 2607), by the names of its classes."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from robustgate.attacks._library import LibraryAttack, norms_in

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Foolbox"]

FIXED, MINIMAL = "FixedEpsilonAttack", "MinimizationAttack"


@dataclass(frozen=True, kw_only=True)
class Foolbox(LibraryAttack):
    """An attack of Foolbox: ``method = "foolbox:LinfPGD"``, `parameters` are its class's own.

    An attack at a fixed epsilon gets `eps`; one that minimizes gets none, so that it does not stop early, and its
    point counts as the engine measures it: by its norm and, projected to `eps`, by what the artifact then says. With
    `minimizes` its norms are kept too. `norm` may be left out where the class has one; a class that takes a `distance`
    gets the one of `norm`. Parameters that are objects of Foolbox (`init_attack`) keep their defaults.

    Worked round, in 3.3.4:

    - The default step does not know the number of steps (LinfPGD's is eps/30): here it keeps the product of both that
      the class has by default. A step that cannot reach eps is refused.
    - The model is moved to a GPU if there is one: here it stays where the images are. Bare asserts, which `python -O`
      drops, are errors with a text. For the rest see `LibraryAttack`.

    Not worked round: L2CarliniWagnerAttack gives back a black image where it finds nothing. If that is misclassified
    it counts, with its huge norm, which is far outside any eps. LinfPGD and its kin give back the last iterate.
    """

    library: ClassVar[str] = "foolbox"
    exports: ClassVar[str] = "attacks/__init__.py"

    def check_class(self, line: list[ast.ClassDef]) -> set[str]:
        """Return the norm of the class's `distance`. Raises ValueError for a class that is of neither kind."""
        kinds = {node.name for node in line}
        if not kinds & {FIXED, MINIMAL}:
            raise ValueError(f"foolbox's {self.attack} knows no budget: it is neither a {FIXED} nor a {MINIMAL}")
        if self.minimizes and FIXED in kinds:
            raise ValueError(f"foolbox's {self.attack} does not minimize: it is a {FIXED}")
        said = (norms_in(ast.unparse(one)) for node in line for one in node.body if _is_distance(one))
        norms: set[str] = next(filter(None, said), set())
        if FIXED in kinds and norms == {"l1"}:
            raise ValueError(f"eps of foolbox's {self.attack} would be an l1 norm, which nothing here measures")
        return norms

    def find(self, module: nn.Module, images: Tensor, labels: Tensor, *, classes: int, seed: int) -> Tensor:  # noqa: ARG002
        """Return the library's point for each image. Raises what it raises, and ValueError for a step too small."""
        import foolbox  # the library: this module's own name is robustgate.attacks.foolbox
        from foolbox.attacks.base import MinimizationAttack
        from foolbox.criteria import Misclassification
        from foolbox.models.pytorch import PyTorchModel

        kind = getattr(foolbox.attacks, self.attack)
        accepted = {name: taken.default for name, taken in inspect.signature(kind).parameters.items()}
        given: dict[str, Any] = dict(self.parameters)
        if "distance" in accepted:
            given["distance"] = getattr(foolbox.distances, str(self.norm))
        if "rel_stepsize" in accepted and "steps" in accepted:
            steps = given.get("steps", accepted["steps"])
            if given.get("abs_stepsize") is None:
                given.setdefault("rel_stepsize", accepted["rel_stepsize"] * accepted["steps"] / steps)
                self.check_reach(steps, given["rel_stepsize"])
            else:
                self.check_reach(steps, given["abs_stepsize"] / self.eps)
        attack = kind(**given)
        model = PyTorchModel(module, bounds=(0, 1), device=images.device)
        minimal = isinstance(attack, MinimizationAttack)
        _, found, _ = attack(model, images, Misclassification(labels), epsilons=None if minimal else self.eps)
        result: Tensor = found
        return result


def _is_distance(statement: ast.stmt) -> bool:
    """Say whether a statement of a class is its attribute or property `distance`."""
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0]) == "distance"
    return isinstance(statement, ast.FunctionDef) and statement.name == "distance"
