"""Every recipe on the shelf keeps the contract that a third party's inherits."""

from __future__ import annotations

import pytest

from robustgate.core.catalog import shelf
from robustgate.core.components import Recipe
from robustgate.testing import RecipeContract

SETTINGS = {"epochs": 3, "batch_size": 8, "lr": 0.02}
OWN = {"adasap": {"flattening": 1, "pruning_phase": 1}, "deep_coral": {"target": "elsewhere"}}


class TestOurs(RecipeContract):
    @pytest.fixture(params=shelf("training").names)
    def recipe(self, request: pytest.FixtureRequest) -> Recipe:
        made: Recipe = shelf("training").component(request.param)(**SETTINGS, **OWN.get(request.param, {}))
        return made

    @pytest.fixture
    def domain(self) -> str:
        return "elsewhere"
