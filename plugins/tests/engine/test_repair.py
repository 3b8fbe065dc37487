"""Recipes put into chains, images that are shared, and what a change of a chain changes elsewhere."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustgate.config import load, parse
from robustgate.core.components import Samples
from robustgate.core.errors import CompressionError, DomainError
from robustgate.engine.course import Lesson
from robustgate.engine.overlap import hashes
from robustgate.engine.plan import make_plan
from robustgate.engine.remedies import inline, remedied
from robustgate.engine.repair import Repairs
from robustgate.reports.results_json import load as load_results

SAM: dict[str, Any] = {"recipe": "sam", "epochs": 3, "transforms": {"RandAugment": {"num_ops": 1}}}
CHAINS = """
[compressions.many]  # in lines
steps = [
    # the pruned
    { use = "fp75" },  # and then
    { method = "static_quantization" },
]
[compressions]
dotted.steps = [{ use = "many" }]
inner = { steps = [{ method = "magnitude_pruning", sparsity = 0.5, finetune = { epochs = 2 } }] }
[compressions.trained]
steps = [{ use = "fp75" }, { method = "quantization_aware_training", finetune = { epochs = 2 } }]  # as it was
[compressions.alias]
steps = [{ use = "trained" }]
[[compressions.listed.steps]]
use = "fp75"  # of tables
[[compressions.listed.steps]]
method = "dynamic_quantization"
"""


def of(method: str | None, recipe: str | None = None) -> tuple[str | None, str | None]:
    return method, recipe


@pytest.mark.parametrize(
    ("compression", "expected"),
    [
        ("fp75", [of("filter_pruning"), of(None, "Sam")]),
        ("many", [of("filter_pruning"), of(None, "Sam"), of("static_quantization")]),
        ("dotted", [of("filter_pruning"), of(None, "Sam"), of("static_quantization")]),
        ("inner", [of("magnitude_pruning", "Supervised"), of(None, "Sam")]),
        ("trained", [of("filter_pruning"), of("quantization_aware_training", "Sam")]),
        ("alias", [of("filter_pruning"), of("quantization_aware_training", "Sam")]),
        ("listed", [of("filter_pruning"), of(None, "Sam"), of("dynamic_quantization")]),
    ],
)
def test_a_recipe_goes_where_there_is_a_network_to_train(tiny, compression: str, expected: list[Any]) -> None:
    path = tiny.write_red(
        CHAINS.replace("[compressions]\n", "")
        .replace("dotted.steps", "[compressions.dotted]\nsteps")
        .replace("inner = { steps = [", "[compressions.inner]\nsteps = [")
        .replace("} }] }", "} }]")
    )
    before, text = load(path), path.read_text()
    changed = remedied(text, before, compression, SAM)
    after = parse(changed.encode(), path)
    assert [
        of(step.method, type(step.finetune).__name__ if step.finetune else None)
        for step in after.compressions[compression]
    ] == expected
    (sam,) = [step.finetune for step in after.compressions[compression] if type(step.finetune).__name__ == "Sam"]
    assert (sam.epochs, sam.transforms) == (3, {"RandAugment": {"num_ops": 1}})
    users = {"fp75": {"many", "dotted", "trained", "alias", "listed"}, "many": {"dotted"}, "trained": {"alias"}}
    different = {name for name, steps in before.compressions.items() if steps != after.compressions[name]}
    assert different == {compression} | users.get(compression, set())
    for comment in (
        "# its splits",
        "# as it ships",
        "# of the images",
        "# in lines",
        "# and then",
        "# as it was",
        "# of tables",
    ):
        assert comment in changed
    assert (before.domains, before.models, before.policies) == (after.domains, after.models, after.policies)


@pytest.mark.parametrize("value", [SAM, {"a b": [1, 2.5, True, 'it\'s "so"\n'], "c": {}}, {"x": 1e-05}])
def test_a_table_in_one_line_is_read_as_it_was(value: dict[str, Any]) -> None:
    assert tomllib.loads(f"x = {inline(value)}")["x"] == value
    assert "\n" not in inline(value)


def test_the_reference_and_controls_have_no_chain(tiny) -> None:
    path = tiny.write_red()
    for name, message in (("none", "robustgate train"), ("control", "changes with that")):
        with pytest.raises(CompressionError, match=message):
            remedied(path.read_text(), load(path), name, SAM)


def test_equal_pixels_in_another_shape_are_another_image() -> None:
    def one(*shape: int) -> Samples:
        images = np.arange(48, dtype=np.uint8).reshape(1, *shape, 3)
        return Samples(images=images, labels=np.zeros(1, dtype=np.int64), classes=("a",), names=("x",))

    assert hashes(one(4, 4)) == hashes(one(4, 4))
    assert hashes(one(4, 4)) != hashes(one(2, 8))


def repairs(path: Path, results: Path, *recipes: Any, **settings: Any) -> Repairs:
    return Repairs(make_plan(load(path)), load_results(results), recipes, **{"seconds": 3600.0, **settings})


def with_night(tiny: Any, test_label_is_bright: bool) -> Path:
    """Add a domain whose test images are labelled right, or wrong; a training may look at the others."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 90), ("test", 10)):
        images = rng.integers(200, 250, (count, 8, 8, 3)).astype(np.uint8)
        labels = np.full(count, int(split == "train" or test_label_is_bright))
        np.savez(tiny.folder / f"night-{split}.npz", images=images, labels=labels, classes=np.array(["dark", "bright"]))
    extra = """
[domains.night]
kind = "npz"
files = { train = "night-train.npz", test = "night-test.npz" }
[shifts]
pairs = [["day", "night"]]
[[policies.edge.rules]]
name = "crosses"
where = { compression = "none", target = "night" }
min = 0.7
"""
    return tiny.write_red(extra, ('name = "floor"', 'name = "floor"\nwhere = { kind = "clean", compression = "fp*" }'))


ADAPTS = {"recipe": "deep_coral", "target": "night", "epochs": 10, "lr": 0.05, "layers": {"logits": 0.0}}


def test_what_a_recipe_turns_red_elsewhere_counts(tiny, judged) -> None:
    told = {}
    for is_right in (True, False):
        path = with_night(tiny, test_label_is_bright=is_right)
        results = judged(path)
        assert {row.name for row in load_results(results).cases if row.verdict == "fail"} == {"tiny-fp75-day"}
        ((done),) = repairs(path, results, ADAPTS).run()
        told[is_right] = done.trials[0]
    assert told[True].verdict == "green", told[True]
    assert told[False].verdict == "red"
    assert 'tiny-none-day_to_night: rule "crosses"' in told[False].told[0]


def test_what_a_recipe_looks_at_of_another_domain_must_not_judge(tiny, judged) -> None:
    path = with_night(tiny, test_label_is_bright=True)
    results = judged(path)
    train, test = (dict(np.load(tiny.folder / f"night-{split}.npz")) for split in ("train", "test"))
    train["images"][5] = test["images"][5]
    np.savez(tiny.folder / "night-train.npz", **train)
    repairs(path, results, {"epochs": 1}).check()
    with pytest.raises(
        DomainError, match=r"1 of the 10 images that judge \(its test split\) are in the train split of night"
    ):
        repairs(path, results, ADAPTS).check()


def test_what_things_are_chosen_by_must_not_judge(tiny, judged) -> None:
    path = tiny.write_red()
    results = judged(path)
    np.savez(tiny.folder / "calibration.npz", **np.load(tiny.folder / "test.npz"))
    with pytest.raises(DomainError, match=r"144 of the 144 images that judge .* in the calibration split of day"):
        repairs(path, results, {"epochs": 1}).check()


def test_a_training_stops_with_the_time_and_goes_on_with_the_next(tiny, judged) -> None:
    path = tiny.write_red()
    results = judged(path)
    heard: list[Lesson] = []

    def until_the_third_epoch(lesson: Lesson) -> None:
        heard.append(lesson)
        if lesson.epoch == 3:
            first.clock.give(10**12)

    # An epoch takes longer than the pause between two words of it.
    recipe = {"epochs": 5, "batch_size": 2, "lr": 0.01}
    first = repairs(path, results, recipe, pupil=until_the_third_epoch)
    (done,) = first.run()
    assert (done.trials[0].verdict, done.taken) == ("out of time", None)
    assert max(lesson.epoch for lesson in heard) == 3
    heard.clear()
    (done,) = repairs(path, results, recipe, pupil=heard.append).run()
    assert done.trials[0].verdict == "green"
    assert next(lesson.epoch for lesson in heard if lesson.epoch) == 3


def test_only_the_policy_that_is_asked_for_condemns(tiny, judged) -> None:
    lax = '\n[policies.lax]\n[[policies.lax.rules]]\nname = "low"\nmin = 0.2\n'
    path = tiny.write_red(lax, ("[gate]\n", '[gate]\npolicy = "edge,lax"\n'))
    configuration, results = load(path), load_results(judged(path))
    assert Repairs(make_plan(configuration), results, seconds=1.0).failing == ("fp75",)
    assert Repairs(make_plan(configuration, "lax"), results, seconds=1.0).failing == ()


def test_what_others_use_is_repaired_first(tiny, judged) -> None:
    extra = '\n[compressions.a]\nsteps = [{ use = "b" }]\n[compressions.b]\nsteps = [{ use = "fp75" }]\n'
    path = tiny.write_red(extra)
    assert repairs(path, judged(path)).failing == ("fp75", "b", "a")
