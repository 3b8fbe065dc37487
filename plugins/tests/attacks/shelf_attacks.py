"""Every attack on the shelf, with parameters that make it cheap on small images."""

from __future__ import annotations

from typing import Any

ATTACKS: dict[str, dict[str, Any]] = {
    "apgd_ce": {"eps": 0.03, "steps": 8},
    "apgd_t": {"eps": 0.03, "steps": 5},
    "autoattack": {"eps": 0.03, "steps": 4, "queries": 20},
    "carlini_wagner": {"eps": 0.3, "binary_searches": 4, "steps": 40},
    "ddn": {"eps": 0.3, "steps": 40},
    "deepfool": {"eps": 0.3, "steps": 20},
    "fab": {"eps": 0.03, "steps": 10},
    "fgsm": {"eps": 0.03},
    "foolbox": {"attack": "LinfPGD", "eps": 0.03, "parameters": {"steps": 5, "random_start": False}},
    "gradient_free": {"eps": 0.1, "queries": 60},
    "hop_skip_jump": {"eps": 0.5, "queries": 200},
    "jitter": {"eps": 0.03, "steps": 5},
    "jsma": {"eps": 0.01},
    "noise": {"eps": 0.3, "repeats": 10},
    "pgd": {"eps": 0.03, "steps": 5},
    "square": {"eps": 0.03, "queries": 80},
    "torchattacks": {"attack": "PGD", "eps": 0.03, "parameters": {"steps": 5, "random_start": False}},
}
