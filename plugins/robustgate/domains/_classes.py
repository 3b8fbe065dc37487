"""Names of classes: given as a list, by a file, or known of a published data set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from robustgate.core.errors import DomainError, nearest

Classes = tuple[str, ...] | Path | Literal["cifar10", "cifar100"]
"""The names themselves, a text file with one a line, or a data set whose names are known, in their order."""

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""
KNOWN = {"cifar10": tuple(_CIFAR10.split()), "cifar100": tuple(_CIFAR100.split())}


def class_names(classes: Classes) -> tuple[str, ...]:
    """Return the names that `classes` stands for. Raises DomainError for a file that cannot be read or is empty."""
    if isinstance(classes, tuple):
        return classes
    if isinstance(classes, str):
        return KNOWN[classes]
    try:
        lines = classes.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        known = f"a text file with one class a line, or one of {', '.join(KNOWN)}"
        raise DomainError(f"classes: no such file: {classes}{nearest(classes.name, KNOWN)}; expected {known}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DomainError(f"{classes}: cannot be read as a text file with one class a line: {error}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise DomainError(f"{classes}: expected one class a line, got an empty file")
    return names
