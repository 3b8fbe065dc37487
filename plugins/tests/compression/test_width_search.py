"""The search for widths: known optima, an exact budget, a winner trained once, and a test split that nobody sees."""

from __future__ import annotations

import importlib.util
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robustgate.compression.width_search import WidthSearch
from robustgate.config import load
from robustgate.core.components import Architecture, Network, Samples
from robustgate.core.errors import CompressionError, ConfigurationError
from robustgate.core.records import Variant
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.training.supervised import Supervised

PROXY, TRAINING = Supervised(epochs=1), Supervised(epochs=7)
CHANNELS = (2, 4, 6, 8, 10, 12)
WIDTHS = [list(CHANNELS)] * 3
GRID = list(itertools.product(CHANNELS, repeat=3))
BUDGET = 120


class Layers(nn.Module):
    """So many parameters as two layers between three widths would have; three classes."""

    def __init__(self, widths: tuple[int, ...], classes: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(parameters(widths)))
        self.classes = classes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), self.classes)


def parameters(widths: tuple[int, ...]) -> int:
    return widths[0] * widths[1] + widths[1] * widths[2]


def quality(widths: tuple[int, ...]) -> float:
    """More is better, with less and less gain, most of all in the last stage."""
    return 1 - sum(share * 0.8**width for share, width in zip((0.2, 0.3, 0.5), widths, strict=True))


@dataclass
class Known:
    """A workshop whose training takes no time and whose accuracies are known."""

    seed: int = 0
    classes: int = 3
    model: str = "big"

    def __post_init__(self) -> None:
        self.trained: list[tuple[tuple[int, ...], Supervised, torch.Tensor]] = []

    @property
    def example(self) -> torch.Tensor:
        return torch.zeros(2, 3, 4, 4)

    def build(self, build: str, args: Mapping[str, Any]) -> Network:
        assert build == "a:b"
        assert set(args) == {"depth", "widths"}
        assert args["depth"] == 8
        module = Layers(tuple(args["widths"]), self.classes)
        return Network(module=module, architecture=architecture_of(args))

    def train(self, network: Network, recipe: Supervised) -> Network:
        weight = network.module.weight
        self.trained.append((tuple(network.architecture.args["widths"]), recipe, weight.detach().clone()))
        with torch.no_grad():
            weight.fill_(recipe.epochs)
        return network

    def accuracy(self, network: Network, split: str) -> float:
        assert split == "calibration", "the test split judges"
        assert (network.module.weight == PROXY.epochs).all(), "it was not trained by the proxy"
        return quality(tuple(network.architecture.args["widths"]))

    @property
    def tried(self) -> list[tuple[int, ...]]:
        return [widths for widths, recipe, _ in self.trained if recipe == PROXY]


def architecture_of(args: Mapping[str, Any]) -> Architecture:
    return Architecture(build="a:b", args=dict(args), mean=(0.0,) * 3, std=(1.0,) * 3)


def reference() -> Network:
    return Network(module=Layers((2, 2, 2)), architecture=architecture_of({}))


def search(**changes: Any) -> WidthSearch:
    given = {
        "build": "a:b",
        "args": {"depth": 8},
        "search": {"widths": WIDTHS},
        "parameters": BUDGET,
        "trials": 60,
        "proxy": PROXY,
        "training": TRAINING,
    }
    return WidthSearch(**{**given, **changes})


def winner_of(step: WidthSearch, workshop: Known) -> tuple[int, ...]:
    return tuple(step.apply(reference(), workshop).architecture.args["widths"])


def best_of(grid: list[tuple[int, ...]], budget: int) -> tuple[int, ...]:
    return max((widths for widths in grid if parameters(widths) <= budget), key=quality)


def test_the_optimum_is_found_in_a_third_of_the_grid() -> None:
    ranking = sorted((widths for widths in GRID if parameters(widths) <= BUDGET), key=quality, reverse=True)
    places = []
    for seed in range(8):
        workshop = Known(seed=seed)
        places.append(ranking.index(winner_of(search(), workshop)))
        assert len(workshop.tried) <= 60 < len(ranking)
        assert all(parameters(widths) <= BUDGET for widths in workshop.tried)
    # 60 random candidates of 216 would hold the only best one in 28 of 100 searches: six of eight in 7 of 1000.
    assert places.count(0) >= 6
    assert max(places) <= 3


@pytest.mark.parametrize("budget", [parameters((2, 4, 12)), parameters((2, 4, 12)) - 1, 8, 100, 288])
def test_a_small_grid_is_tried_whole_and_the_budget_holds_to_the_last_parameter(budget: int) -> None:
    workshop = Known()
    assert winner_of(search(trials=216, parameters=budget), workshop) == best_of(GRID, budget)
    assert workshop.tried == [widths for widths in GRID if parameters(widths) <= budget]


@pytest.mark.parametrize("trials", [1, 5, 40])
def test_a_budget_that_hardly_any_candidate_meets(trials: int) -> None:
    # Few of 216 fit; the first of them is proposed first, so that even one trial finds one.
    workshop = Known()
    fitting = [widths for widths in GRID if parameters(widths) <= 16]
    assert len(fitting) < 10
    assert winner_of(search(trials=trials, parameters=16), workshop) in fitting
    assert set(workshop.tried) <= set(fitting)
    assert len(workshop.tried) == len(set(workshop.tried)), "a candidate was trained twice"


def test_how_far_a_candidate_is_over_the_budget_leads_to_those_that_fit() -> None:
    # 38 of 8000 fit: 40 random candidates would meet one in 17 of 100 searches, five of six in 1 of 1000.
    grid = {"widths": [list(range(2, 22))] * 3}
    found = 0
    for seed in range(6):
        try:
            found += parameters(winner_of(search(search=grid, parameters=20, trials=40), Known(seed=seed))) <= 20
        except CompressionError:
            continue
    assert found >= 5


def test_the_winner_is_built_afresh_and_trained_once() -> None:
    workshop = Known()
    network = search().apply(reference(), workshop)
    *proxies, (widths, recipe, weight) = workshop.trained
    assert [one[1] for one in proxies] == [PROXY] * len(proxies)
    assert recipe == TRAINING
    assert list(widths) == network.architecture.args["widths"]
    # It starts where its proxy started, as if nothing had been built between.
    assert torch.equal(weight, next(start for tried, _, start in proxies if tried == widths))
    assert (network.module.weight == TRAINING.epochs).all()
    assert network.constraints == ()


def test_the_seed_decides_and_the_global_stream_does_not() -> None:
    def trained(seed: int, around: int) -> list[tuple[tuple[int, ...], list[float]]]:
        workshop = Known(seed=seed)
        torch.manual_seed(around)
        network, before = reference(), torch.get_rng_state()
        search(trials=20).apply(network, workshop)
        assert torch.equal(torch.get_rng_state(), before)
        return [(widths, weight.tolist()) for widths, _, weight in workshop.trained]

    large = 2**63 - 1  # a step's seed has 63 bits
    one, again, other = trained(large, 1), trained(large, 2), trained(3, 1)
    assert one == again
    assert [widths for widths, _ in one] != [widths for widths, _ in other]
    # The first candidate is the same, and starts from other weights.
    assert one[0][0] == other[0][0]
    assert one[0][1] != other[0][1]


def test_of_equals_the_one_with_fewest_parameters_wins() -> None:
    class Flat(Known):
        def accuracy(self, network: Network, split: str) -> float:
            return 0.5

    # (4, 2, 8) and (2, 4, 2) are the smallest of those below, the one listed later is the smaller one.
    grid = {"widths": [[4, 2], [4], [4, 2]]}
    assert winner_of(search(search=grid), Flat()) == (2, 4, 2)


@pytest.mark.parametrize("trials", [5, 500])
def test_where_none_fits_the_smallest_is_told_before_anything_is_trained(trials: int) -> None:
    workshop = Known()
    message = r"none of the 216 candidates fits 7 parameters; the smallest has 8: \{'widths': \[2, 2, 2\]\}"
    with pytest.raises(CompressionError, match=message):
        search(trials=trials, parameters="7").apply(reference(), workshop)
    assert workshop.trained == []


def test_a_grid_too_large_to_be_counted_tells_the_smallest_that_was_met() -> None:
    workshop = Known()
    step = search(search={"widths": [list(range(2, 22))] * 3}, parameters=7, trials=6)
    with pytest.raises(CompressionError, match=r"none of the [1-6] candidates that the trials proposed fits 7"):
        step.apply(reference(), workshop)
    assert workshop.trained == []


def test_macs_are_counted_for_one_image() -> None:
    class Convolutions(Known):
        def build(self, build: str, args: Mapping[str, Any]) -> Network:
            layer = nn.Conv2d(3, args["width"], 3, padding=1, bias=False)
            module = nn.Sequential(
                layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(args["width"], 3, bias=False)
            )
            return Network(module=module.eval(), architecture=architecture_of(args))

        def train(self, network: Network, recipe: Supervised) -> Network:
            self.trained.append((network.architecture.args["width"], recipe, torch.empty(0)))
            return network

        def accuracy(self, network: Network, split: str) -> float:
            return network.architecture.args["width"] / 100

    def macs(width: int) -> int:
        return 4 * 4 * width * 3 * 9 + 3 * width

    for budget, best in ((macs(5), 5), (macs(5) - 1, 4)):
        workshop = Convolutions()
        step = search(args={}, search={"width": (3, 4, 5, 6)}, parameters=None, macs=budget)
        assert step.apply(reference(), workshop).architecture.args == {"width": best}
        assert [width for width, recipe, _ in workshop.trained if recipe == PROXY] == list(range(3, best + 1))


def test_a_student_of_other_classes_is_refused_before_it_is_trained() -> None:
    workshop = Known(classes=4)
    message = "a:b with {'depth': 8} has 4 classes, big has 3; expected the same number"
    with pytest.raises(CompressionError, match=message):
        search().apply(reference(), workshop)
    assert workshop.trained == []


def test_optuna_says_nothing_and_its_logger_is_left_as_it_was(capfd) -> None:
    logger = logging.getLogger("optuna")
    search(trials=3).apply(reference(), Known())
    before = (logger.level, logger.propagate, list(logger.handlers))
    logger.setLevel(logging.ERROR)
    with pytest.raises(ZeroDivisionError):
        search(trials=3).apply(reference(), Breaking())
    assert logger.level == logging.ERROR
    logger.setLevel(before[0])
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    assert capfd.readouterr() == ("", "")


class Breaking(Known):
    def accuracy(self, network: Network, split: str) -> float:
        raise ZeroDivisionError


def test_without_optuna_a_small_grid_is_searched_and_a_large_one_names_the_extra(monkeypatch) -> None:
    assert search().missing_extra is None
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else find(name))
    assert search(trials=216).missing_extra is None
    assert winner_of(search(trials=216), Known()) == best_of(GRID, BUDGET)
    assert search(trials=215).missing_extra == "search"
    with pytest.raises(CompressionError, match=r"needs optuna; pip install 'robustgate\[search\]'"):
        search(trials=215).apply(reference(), Known())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"macs": "1M"}, "give either parameters or macs"),
        ({"parameters": None}, "give either parameters or macs"),
        ({"parameters": "1 MB"}, "parameters must be a count such as 80000 or '4.51M', got '1 MB'"),
        ({"parameters": None, "macs": -1}, "macs must be a count"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"search": {}}, "search must name an argument"),
        ({"search": {"depth": [8, 14]}}, "search.depth is given in args too"),
        ({"search": {"width": 8}}, "search.width must be a list of candidates, or of such lists .*, got 8"),
        ({"search": {"width": "abc"}}, "search.width must be a list of candidates, or of such lists .*, got 'abc'"),
        ({"search": {"width": []}}, r"search.width must be a list of candidates, or of such lists .*, got \[\]"),
        ({"search": {"widths": [8, [16, 32]]}}, r"search.widths must be .*, got \[8, \[16, 32\]\]"),
        ({"search": {"widths": [[8], []]}}, r"search.widths\[1\] must be a list of numbers, texts or truths, got \[\]"),
        ({"search": {"widths": [[[8]], [[16]]]}}, r"search.widths\[0\] must be a list of numbers, .*, got \[\[8\]\]"),
        ({"search": {"width": [8, 12, 8]}}, r"search.width names a candidate twice: \[8, 12, 8\]"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(**changes)


def test_arguments_of_both_kinds_are_searched_together() -> None:
    seen: list[dict[str, Any]] = []

    class Recording(Known):
        def build(self, build: str, args: Mapping[str, Any]) -> Network:
            seen.append(dict(args))
            return super().build(build, {"depth": args["depth"], "widths": args["widths"]})

    grid = {"act": ["relu", "silu"], "widths": [[2, 4], [2], [6, 8]], "wide": [False, True]}
    search(search=grid).apply(reference(), Recording())
    found = {(one["act"], tuple(one["widths"]), one["wide"]) for one in seen}
    assert found == set(itertools.product(("relu", "silu"), itertools.product((2, 4), (2,), (6, 8)), (False, True)))
    assert all(one["depth"] == 8 for one in seen)


# Real data: an image is of class 1 where exactly one of its halves is bright. One hidden unit cannot tell; more can.
XOR = """
from torch import nn

def net(hidden):
    return nn.Sequential(nn.AvgPool2d((8, 4)), nn.Flatten(), nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 2))
"""
CHAIN = """
[compressions.searched]
steps = [{ method = "width_search", build = "xor_network:net", args = {}, search = { hidden = [1, 16, 24] }, parameters = 146, trials = 5, proxy = { epochs = 15, lr = 0.1, batch_size = 16, shift = 0 }, training = { epochs = 30, lr = 0.1, batch_size = 16, shift = 0 } }]
"""


def xor_images(count: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 2, (2, count))
    images = rng.integers(0, 80, (count, 8, 8, 3), dtype=np.uint8)
    images[:, :, :4] += (170 * left).astype(np.uint8)[:, None, None, None]
    images[:, :, 4:] += (170 * right).astype(np.uint8)[:, None, None, None]
    return Samples(
        images=images, labels=(left ^ right).astype(np.int64), classes=("same", "other"), names=("",) * count
    )


def xor_project(tiny: Any, *, test_seed: int = 3, chain: str = CHAIN) -> Path:
    (tiny.folder / "xor_network.py").write_text(XOR)
    for split, seed in (("train", 1), ("calibration", 2), ("test", test_seed)):
        samples = xor_images(256, seed)
        np.savez(tiny.folder / f"{split}.npz", images=samples.images, labels=samples.labels, classes=samples.classes)
    files = 'files = { train = "train.npz", calibration = "calibration.npz", test = "test.npz" }'
    return tiny.configure(
        ('files = { train = "day.npz", calibration = "day.npz", test = "day.npz" }', files), extra=chain
    )


def test_a_search_on_real_data_finds_what_can_solve_it_and_comes_back_from_its_description(tiny) -> None:
    def record(test_seed: int) -> tuple[int, str, float]:
        gate = Gate(make_plan(load(xor_project(tiny, test_seed=test_seed))), today=date(2026, 1, 1))
        variant = Variant(model="tiny", source="day", compression="searched")
        samples = gate.library.samples("day", "test")
        images = torch.from_numpy(samples.images[:]).permute(0, 3, 1, 2).float() / 255
        right = gate.subject(variant).logits(images).argmax(1) == torch.from_numpy(samples.labels)
        made = gate.record(variant)
        return made.parameters, made.artifact_sha256, right.double().mean().item()

    # 9 parameters for each hidden unit and two biases: 16 of them have 146, the whole budget; 24 are over it.
    count, digest, accuracy = record(test_seed=3)
    assert count == 9 * 16 + 2 == 146
    assert accuracy == 1.0
    # Another test split, another folder of artifacts: the same choice and the same network to the last bit.
    (tiny.folder / "cache").rename(tiny.folder / "gone")
    assert record(test_seed=4)[:2] == (count, digest)


def test_a_mistake_in_the_table_is_told_with_its_place(tiny) -> None:
    with pytest.raises(ConfigurationError, match=r"compressions.searched.steps\[0\].*search.hidden names a candidate"):
        load(xor_project(tiny, chain=CHAIN.replace("[1, 16,", "[16, 16,")))
    with pytest.raises(ConfigurationError, match=r"compressions.searched.steps\[0\].proxy.epochs"):
        load(xor_project(tiny, chain=CHAIN.replace("epochs = 15", "epochs = 'x'")))


def test_a_search_is_a_frozen_value() -> None:
    assert replace(search(), trials=3) == search(trials=3)
