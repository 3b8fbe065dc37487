"""The attacks that are set side by side: ours, and each peer that has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

EIGHT, ONE = 8 / 255, 1 / 255


@dataclass(frozen=True)
class Peer:
    """A library's attack: its class, what it is made with, the epsilon of Foolbox's call, images that it is given."""

    name: str
    made: Mapping[str, Any]
    images: int = 100
    epsilon: float | None = None


@dataclass(frozen=True)
class Row:
    """Ours beside the peers that have it; `at_least` is the limit on the ratio of images per second."""

    name: str
    method: str
    parameters: Mapping[str, Any]
    peers: Mapping[str, Peer]
    at_least: float = 0
    images: int = 500
    no_loss: bool = False
    """Only images that are classified right, and none may fall."""


def pgd(name: str, eps: float, at_least: float, *, images: int, no_loss: bool = False, **ours: float) -> Row:
    """Return the row of 40 steps in linf; the peers step as Foolbox does, or 2.5 eps / steps."""
    peers = {
        "torchattacks": Peer("PGD", {"eps": eps, "alpha": 2.5 * eps / 40, "steps": 40}),
        "foolbox": Peer("LinfPGD", {"steps": 40}, epsilon=eps),
    }
    return Row(name, "pgd", {"eps": eps, "steps": 40, **ours}, peers, at_least, images, no_loss)


def linf(eps: float, **made: Any) -> dict[str, Any]:
    """Return what those classes of torchattacks take that name their norm."""
    return {"norm": "Linf", "eps": eps, **made}


SPEED = [
    pgd("pgd40 at 0.004", 0.004, 6, images=1000),
    pgd("pgd40 at 8/255", EIGHT, 25, images=2000),
    # One millionth of the range: no decision of this network changes, so that no side has a sample less to attack.
    pgd("pgd40, no sample lost", 1e-6, 1.5, images=400, no_loss=True),
    pgd("pgd40, none lost, all steps", 1e-6, 1.5, images=400, no_loss=True, give_up=float("inf")),
    Row(
        "deepfool l2",
        "deepfool",
        {"eps": 0.1, "steps": 50},
        {
            "torchattacks": Peer("DeepFool", {"steps": 50}, images=50),
            "foolbox": Peer("L2DeepFoolAttack", {"steps": 50}),
        },
        at_least=5,
    ),
    Row("ddn l2, 40 of 100 steps", "ddn", {"eps": 0.1, "steps": 40}, {"foolbox": Peer("DDNAttack", {"steps": 100})}, 2),
    Row("ddn l2, 100 steps", "ddn", {"eps": 0.1, "steps": 100}, {"foolbox": Peer("DDNAttack", {"steps": 100})}),
    # Theirs stops the whole batch when its loss rises: it takes about ten of its steps, and its norms show it.
    Row(
        "c&w l2, 5 of 50 steps",
        "carlini_wagner",
        {"eps": 0.1, "steps": 5, "binary_searches": 1, "refinements": 5},
        {"torchattacks": Peer("CW", {"steps": 50})},
        at_least=3,
    ),
    Row(
        "c&w l2, 3 x 10 of 9 x 50",
        "carlini_wagner",
        {"eps": 0.1, "steps": 10, "binary_searches": 3},
        {"foolbox": Peer("L2CarliniWagnerAttack", {"steps": 50, "binary_search_steps": 9}, images=50)},
        at_least=3,
    ),
    Row(
        "c&w l2, 9 x 50",
        "carlini_wagner",
        {"eps": 0.1, "steps": 50, "binary_searches": 9},
        {"foolbox": Peer("L2CarliniWagnerAttack", {"steps": 50, "binary_search_steps": 9}, images=50)},
        images=100,
    ),
    Row("jsma l0", "jsma", {"eps": 0.01}, {"torchattacks": Peer("JSMA", {"gamma": 0.01}, images=5)}, 5, 50),
    Row(
        "autoattack at 1/255",
        "autoattack",
        {"eps": ONE, "steps": 10},
        {"torchattacks": Peer("AutoAttack", linf(ONE, seed=0), images=50)},
        at_least=2,
        images=200,
    ),
]
STRENGTH = [
    Row("fgsm", "fgsm", {"eps": ONE}, {"torchattacks": Peer("FGSM", {"eps": ONE})}),
    pgd("pgd40 at 1/255", ONE, 0, images=500),
    Row(
        "pgd50 l2",
        "pgd",
        {"eps": 0.1, "norm": "l2", "steps": 50},
        {
            "torchattacks": Peer("PGDL2", {"eps": 0.1, "alpha": 0.005, "steps": 50}),
            "foolbox": Peer("L2PGD", {"steps": 50}, epsilon=0.1),
        },
    ),
    *(row for row in SPEED if row.method in ("deepfool", "ddn", "carlini_wagner")),
    Row("jsma l0", "jsma", {"eps": 0.004}, {"torchattacks": Peer("JSMA", {"gamma": 0.004})}),
    Row("apgd", "apgd_ce", {"eps": ONE, "steps": 10}, {"torchattacks": Peer("APGD", linf(ONE))}),
    Row("apgd-t", "apgd_t", {"eps": ONE, "steps": 10}, {"torchattacks": Peer("APGDT", linf(ONE, n_classes=10))}),
    Row("fab", "fab", {"eps": ONE, "steps": 10}, {"torchattacks": Peer("FAB", linf(ONE, multi_targeted=True))}),
    Row("square", "square", {"eps": ONE, "queries": 1000}, {"torchattacks": Peer("Square", linf(ONE, n_queries=1000))}),
    Row(
        "jitter",
        "jitter",
        {"eps": ONE, "steps": 10},
        {"torchattacks": Peer("Jitter", {"eps": ONE, "alpha": ONE / 4, "steps": 10})},
    ),
    Row("autoattack", "autoattack", {"eps": ONE, "steps": 10}, {"torchattacks": Peer("AutoAttack", linf(ONE, seed=0))}),
]


def evenly(row: Row) -> Row:
    """Return the row with 500 images for each side, and no limit on speed."""
    return replace(
        row, at_least=0, images=500, peers={key: replace(peer, images=500) for key, peer in row.peers.items()}
    )
