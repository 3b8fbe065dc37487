"""Attacks of another library: what its source says of them, and calls that leave no trace."""

from __future__ import annotations

import ast
import hashlib
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from robustgate.core.budget import check_eps
from robustgate.core.components import Norm, Query
from robustgate.core.errors import MeasurementError, listing, nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from robustgate.core.components import AttackTarget, Draws, Walk

NORMS: tuple[Norm, ...] = ("linf", "l2", "l0")
# What the adapter gives to a class that takes it.
GIVEN = {"model", "eps", "max_epsilon", "norm", "n_classes"}


@dataclass(frozen=True, kw_only=True)
class LibraryAttack:
    """One attack of a library, by the name of its class; what both adapters share.

    The library calls the variant itself, for a batch at a time, and gives back one point a sample. The engine asks
    the artifact about that point, projected to eps where it lies outside: nothing that the library says of its own
    success counts. A library draws for the whole batch: its random numbers are seeded from the draws of all samples
    in it, so the same run gives the same result again, but a sample's result may depend on the others in its batch.
    Caps on queries and seconds are looked at between batches, not inside one.
    """

    library: ClassVar[str]
    exports: ClassVar[str]
    """The file of the library, relative to it, that names its attacks."""

    attack: str = ""
    eps: float
    norm: Norm | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    minimizes: bool = False
    needs_gradient: bool = True

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        if not self.attack:
            raise ValueError(f'names no attack of {self.library}: write method = "{self.library}:PGD"')
        if self.missing_extra is None:
            self._check(lineage(self._source(), self.attack))

    @property
    def missing_extra(self) -> str | None:
        """The extra of robustgate that brings the library, where it is not installed, or None. Imports nothing."""
        return None if find_spec(self.library) is not None else self.library

    def run(self, images: Tensor, labels: Tensor, draws: Draws, target: AttackTarget) -> Walk:
        """Ask about what the library found. Raises MeasurementError for whatever it raises."""
        import torch

        seed = int.from_bytes(hashlib.sha256(draws.uniform(4).cpu().numpy().tobytes()).digest()[:4], "big") >> 1
        module = target.module(gradient=self.needs_gradient)
        with self._named_errors(), _untouched(module), _own_randomness(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's age: not the user's to mend
            shell = _shell(module, images.device)
            found = self.find(shell, images.contiguous(), labels, classes=target.classes, seed=seed).detach()
        yield Query(torch.arange(len(images), device=images.device), found)

    def find(self, module: nn.Module, images: Tensor, labels: Tensor, *, classes: int, seed: int) -> Tensor:
        """Return the library's point (N, 3, H, W) for each of the `images`, which are contiguous."""
        raise NotImplementedError

    def check_class(self, line: list[ast.ClassDef]) -> set[str]:
        """Return the norms in which a class measures, those of its ancestors included; empty where it does not say.

        `line` is the class and its ancestors, nearest first. Raises ValueError where the class cannot be used.
        """
        raise NotImplementedError

    def check_reach(self, steps: int, step: float) -> None:
        """Raise ValueError where so many steps of that length, in units of eps, cannot reach it."""
        if steps * step < 1 - 1e-9:
            raise ValueError(f"{steps} steps of {step:g} eps cannot reach eps: their product must be at least 1")

    def _source(self) -> Path:
        spec = find_spec(self.library)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(f"{self.library} is not installed")
        return Path(spec.submodule_search_locations[0]) / self.exports

    def _check(self, line: list[ast.ClassDef]) -> None:
        """Check the attack's name, its parameters and the norm against the library's source."""
        known = attack_names(self._source())
        if not line or self.attack not in known:
            raise ValueError(
                f"{self.library} has no attack {self.attack!r}{nearest(self.attack, known)}; known: {listing(known)}"
            )
        names = [name for name in parameter_names(line) if name not in GIVEN]
        for name in self.parameters:
            if name not in names:
                why = "is given by the table's own keys" if name in GIVEN else f"is unknown{nearest(name, names)}"
                raise ValueError(f"parameters: {name!r} of {self.attack} {why}; known: {listing(names)}")
        norms = [norm for norm in NORMS if norm in self.check_class(line)]
        if self.norm is None and len(norms) == 1:
            object.__setattr__(self, "norm", norms[0])
            check_eps(self.eps, self.norm)
        elif self.norm is None or (norms and self.norm not in norms):
            got = "" if self.norm is None else f", got {self.norm!r}"
            raise ValueError(f"norm must be one of {', '.join(norms or NORMS)} for {self.library}'s {self.attack}{got}")

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except MeasurementError:
            raise
        except Exception as error:  # whatever a library raises
            # A bare assert says nothing: its own line must.
            reason = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
            raise MeasurementError(f"{self.library}'s {self.attack}: {type(error).__name__}: {reason}") from error


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seed torch's and NumPy's global streams, and put them back; gradients are on."""
    import numpy as np
    import torch

    before = np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad():
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Let no gradient flow into the module's parameters: some libraries would leave it there."""
    flowing = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in flowing:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in flowing:
            parameter.requires_grad_(True)


def _shell(module: nn.Module, device: torch.device) -> nn.Module:
    """Return what a library may hold: a module that calls `module`, whose mode and place it cannot change.

    Its one empty parameter says where the images are: libraries ask the first, and some networks have none.
    """
    import torch
    from torch import nn

    class Shell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.empty(0, device=device), requires_grad=False)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = module(images)
            return logits

    return Shell().eval()


@cache
def _statements(file: Path) -> list[ast.stmt]:
    return ast.parse(file.read_text(encoding="utf-8")).body


def attack_names(exports: Path) -> list[str]:
    """Return the names of the attacks that a file imports from the folder ``attacks``, or renames."""
    found: list[str] = []
    for node in _statements(exports):
        if isinstance(node, ast.ImportFrom) and node.module not in (None, "base"):
            inside = exports.parent.name == "attacks" or str(node.module).startswith("attacks.")
            found += [alias.asname or alias.name for alias in node.names if inside and node.level]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return found


def lineage(file: Path, name: str) -> list[ast.ClassDef]:
    """Return the class that `name` means in a source file, then its ancestors in that library; empty if there is none.

    Nothing is imported: the file, and those that it imports the name from, are read.
    """
    for node in _statements(file):
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            return [node, *chain.from_iterable(lineage(file, base) for base in bases)]
        if isinstance(node, ast.ImportFrom) and node.level and node.module:
            named = {alias.asname or alias.name: alias.name for alias in node.names}
            if name in named:
                place = file.parents[node.level - 1].joinpath(*node.module.split("."))
                return lineage(place / "__init__.py" if place.is_dir() else place.with_suffix(".py"), named[name])
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and name in map(ast.unparse, node.targets):
            return lineage(file, node.value.id)
    return []


def parameter_names(line: list[ast.ClassDef]) -> list[str]:
    """Return what a class's ``__init__`` takes, or that of its nearest ancestor that has one, without ``self``."""
    for node in line:
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                taken = [*statement.args.args, *statement.args.kwonlyargs]
                return [argument.arg for argument in taken if argument.arg != "self"]
    return []


def norms_in(text: str) -> set[str]:
    """Return the norms that a text names, as this project writes them: ``Linf, L2`` are linf and l2."""
    return {found.lower() for found in re.findall(r"\bL(?:inf|\d)\b", text, flags=re.IGNORECASE)}
