"""AdaSAP: each filter's own radius, filters that go on the way with their momenta, and a training that goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from bright_halves import course_of, network_of, same, sides
from torch import Tensor, nn
from torch.nn import functional

from robustgate.compression.filter_pruning import FilterPruning
from robustgate.config import load
from robustgate.core.components import Architecture, Constraint, ConstraintKind, Network
from robustgate.core.counts import count_parameters
from robustgate.core.errors import CompressionError
from robustgate.core.records import Variant
from robustgate.engine import networks
from robustgate.engine.bench import Bench
from robustgate.engine.course import train
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.training.adasap import AdaSap, PruningRun

SAMPLES = sides(96)
BATCHES = 6  # of 16 images
RESNET = Architecture(
    build="robustgate.zoo.cifar_resnet:cifar_resnet",
    args={"depth": 8, "num_classes": 2, "widths": [6, 9, 12]},
    mean=(0.5,) * 3,
    std=(0.2,) * 3,
)
FULL, TARGET = 4439, 2200
PRUNING = FilterPruning(parameters=TARGET, criterion="l2", scope="global")
# An epoch of flattening, two of pruning with rounds after 10, 14 and 18 steps, one of fine-tuning.
RECIPE = AdaSap(epochs=4, flattening=1, pruning_phase=2, interval=4, pruning=PRUNING, batch_size=16, rho_max=0.5)
ALONE = replace(RECIPE, pruning=None)


def resnet() -> Network:
    torch.manual_seed(0)
    module = networks.build(RESNET, course_of(SAMPLES).example)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "bn" in name:
                parameter.uniform_(0.5, 1.5)  # no two alike, so that each can be told from the others
    return Network(module=module, architecture=RESNET)


def perturbed(recipe: AdaSap, module: nn.Module, *gradients: Tensor) -> list[Tensor]:
    """Return the perturbation of a module whose parameters have these gradients, in the first phase."""
    run = recipe.begin(network_of(module), course_of(SAMPLES))
    moving = list(module.named_parameters())
    for (_, parameter), gradient in zip(moving, gradients, strict=True):
        parameter.grad = gradient
    with torch.no_grad():
        return recipe.perturbation(run, moving)


def linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


FORMULA = replace(ALONE, rho_min=0.1, rho_max=0.9, adaptive=False)


@pytest.mark.parametrize(
    ("rows", "radii"),
    [
        # Norms 1, 2 and 5: none, a quarter and all of the way from the weakest to the strongest.
        ([[1.0, 0.0], [0.0, -2.0], [3.0, 4.0]], [0.9, 0.7, 0.1]),
        ([[3.0, 4.0], [1.0, 0.0], [0.0, -2.0]], [0.1, 0.9, 0.7]),
        ([[3.0, 4.0], [5.0, 0.0], [-4.0, 3.0]], [0.9, 0.9, 0.9]),
        ([[3.0, 4.0]], [0.9]),
        ([[0.0, 0.0], [0.0, 1.0]], [0.9, 0.1]),
    ],
)
def test_the_radius_falls_in_a_line_from_the_weakest_filter_to_the_strongest(rows, radii) -> None:
    gradient = torch.tensor([[3.0, -4.0]]).repeat(len(rows), 1)
    (found,) = perturbed(FORMULA, linear(*rows), gradient)
    # SAM's form: the gradient's direction, as long as the radius.
    torch.testing.assert_close(found, torch.tensor(radii)[:, None] * torch.tensor([0.6, -0.8]))


def test_the_adaptive_form_is_asams_with_each_filters_own_norm() -> None:
    rows, gradient = [[1.0, -2.0], [0.0, 5.0]], torch.tensor([[2.0, 1.0], [-1.0, 3.0]])
    recipe = replace(FORMULA, adaptive=True, eta=0.5)
    (found,) = perturbed(recipe, linear(*rows), gradient)
    # T = |w| + 0.5 is (1.5, 2.5) and (0.5, 5.5); T g is (3, 2.5) and (-0.5, 16.5).
    first = torch.tensor([1.5 * 3.0, 2.5 * 2.5]) * 0.9 / (3.0**2 + 2.5**2) ** 0.5
    second = torch.tensor([0.5 * -0.5, 5.5 * 16.5]) * 0.1 / (0.5**2 + 16.5**2) ** 0.5
    torch.testing.assert_close(found, torch.stack([first, second]))


@pytest.mark.parametrize("adaptive", [True, False])
def test_a_filter_is_not_moved_by_anothers_gradient_nor_without_one(adaptive: bool) -> None:
    recipe = replace(FORMULA, adaptive=adaptive)
    rows, gradient = [[1.0, 0.0], [0.0, -2.0], [3.0, 4.0]], torch.tensor([[1.0, 2.0], [0.0, 0.0], [-1.0, 1.0]])
    (quiet,) = perturbed(recipe, linear(*rows), gradient)
    (loud,) = perturbed(recipe, linear(*rows), gradient * torch.tensor([[1.0], [1.0], [1000.0]]))
    torch.testing.assert_close(loud, quiet)
    assert torch.equal(quiet[1], torch.zeros(2))
    assert quiet[0].norm() > 0


def test_filters_are_those_of_each_layer_and_other_parameters_stay() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ConvTranspose2d(5, 4, 2), nn.Flatten(), nn.Linear(4 * 25, 2)]
    module = nn.Sequential(*layers)
    gradients = [torch.randn_like(parameter) for parameter in module.parameters()]
    found = dict(zip(dict(module.named_parameters()), perturbed(FORMULA, module, *gradients), strict=True))
    for name, dims in {"0.weight": (1, 2, 3), "2.weight": (0, 2, 3), "4.weight": (1,)}.items():
        weights = module.get_parameter(name).detach().double().square().sum(dim=dims).sqrt()
        share = (weights - weights.min()) / (weights.max() - weights.min())
        expected = 0.9 - 0.8 * share
        lengths = found.pop(name).double().square().sum(dim=dims).sqrt()
        torch.testing.assert_close(lengths, expected, rtol=1e-5, atol=1e-5)
        assert len(expected.unique()) == len(expected), "the layer must be able to tell"
    assert found.keys() == {"0.bias", "1.weight", "1.bias", "2.bias", "4.bias"}
    assert not any(change.any() for change in found.values())


@pytest.mark.parametrize(("uniform", "last"), [(None, 0.9), (0.4, 0.4)])
def test_radii_are_of_the_weights_of_each_step_and_uniform_after_the_first_phases(uniform, last) -> None:
    recipe = replace(FORMULA, epochs=3, pruning_phase=1, uniform=uniform)
    module, seen = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).double(), []
    module.register_forward_pre_hook(
        lambda module, images: seen.append(module[1].weight.detach().clone()) or (images[0].double(),)
    )
    train(module, recipe, SAMPLES)
    assert len(seen) == 2 * 3 * BATCHES
    for step, (weight, moved) in enumerate(zip(seen[::2], seen[1::2], strict=True)):
        strengths = weight.norm(dim=1)
        expected = torch.where(strengths == strengths.max(), 0.1, 0.9).double()
        if step >= 2 * BATCHES:
            expected = torch.full((2,), last).double()
        torch.testing.assert_close((moved - weight).norm(dim=1), expected)
    assert len({tuple(weight.flatten().tolist()) for weight in seen[::2]}) == 3 * BATCHES


def sizes_of(recipe: AdaSap) -> tuple[list[int], Network]:
    """Return the number of parameters at each step, and what is left at last."""
    network, sizes = resnet(), []

    def look(module: nn.Module, _images: object) -> None:
        if module.training:  # and not looked at by whoever prunes it
            sizes.append(count_parameters(module))

    network.module.register_forward_pre_hook(look)
    trained = recipe.train(network, course_of(SAMPLES))
    assert sizes[::2] == sizes[1::2]
    return sizes[::2], trained


@pytest.mark.parametrize(
    ("interval", "rounds"), [(4, [10, 14, 18]), (5, [13, 18]), (6, [12, 18]), (7, [18]), (100, [18])]
)
def test_filters_go_every_so_many_steps_and_the_target_is_met_at_the_phases_end(interval, rounds) -> None:
    sizes, trained = sizes_of(replace(RECIPE, interval=interval))
    assert len(sizes) == 4 * BATCHES
    changed = [step for step in range(1, len(sizes)) if sizes[step] != sizes[step - 1]]
    assert changed == rounds
    assert sizes[0] == FULL
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[17] > TARGET >= sizes[18] == count_parameters(trained.module) > 0.95 * TARGET
    # Each round leaves the same share of what was there, but for the channel that is the last to go.
    steps = [sizes[0], *(sizes[step] for step in rounds)]
    for place, size in enumerate(steps):
        goal = FULL * (TARGET / FULL) ** (place / len(rounds))
        assert 0.9 * goal < size <= goal + 1
    assert len(trained.architecture.edits) == len(rounds)
    assert not any(part.training for part in trained.module.modules())


def test_the_last_step_may_be_a_round() -> None:
    sizes, trained = sizes_of(replace(RECIPE, epochs=3))
    assert sizes[-1] > TARGET >= count_parameters(trained.module)
    assert not any(part.training for part in trained.module.modules())
    assert all(parameter.grad is None for parameter in trained.module.parameters())


def test_a_share_of_the_filters_leaves_as_many_as_one_round_would() -> None:
    step = FilterPruning(ratio=0.4, criterion="l2", scope="global")
    once = step.apply(resnet(), course_of(SAMPLES))
    trained = replace(RECIPE, pruning=step).train(resnet(), course_of(SAMPLES))

    def filters(network: Network) -> int:
        roots = {"network.conv1", "network.layer2.0.conv2", "network.layer3.0.conv2"}
        roots |= {f"network.layer{stage}.0.conv1" for stage in (1, 2, 3)}
        return sum(len(network.module.get_parameter(f"{root}.weight")) for root in roots)

    assert filters(trained) == filters(once) < filters(resnet())


def begun(recipe: AdaSap, steps: int) -> PruningRun:
    """Return a run after some steps at the peak, no filter removed yet."""
    run = recipe.begin(resnet(), course_of(SAMPLES))
    assert isinstance(run, PruningRun)
    run.module.train()
    for _, (images, labels) in zip(range(steps), run.shuffled(), strict=False):
        step(run, recipe, images, labels)
    return run


def step(run: PruningRun, recipe: AdaSap, images: Tensor, labels: Tensor) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    recipe.gradients(run, images, labels)
    run.optimizer.step()


def momenta(run: PruningRun) -> dict[str, Tensor]:
    return {name: run.optimizer.state[one]["momentum_buffer"] for name, one in run.module.named_parameters()}


def fits(weights: dict[str, Tensor], values: dict[str, Tensor], pairs: dict[str, dict[float, float]]) -> bool:
    """Say whether each weight has the value that it is paired with."""
    return all(
        [pairs[name][weight] for weight in weights[name].flatten().tolist()] == values[name].flatten().tolist()
        for name in weights
    )


def test_a_filters_momentum_goes_with_it() -> None:
    run = begun(RECIPE, steps=3)
    weights = {name: one.detach() for name, one in run.module.named_parameters()}
    pairs = {
        name: dict(zip(weights[name].flatten().tolist(), momenta(run)[name].flatten().tolist(), strict=True))
        for name in weights
    }
    assert all(len(pairs[name]) == weights[name].numel() for name in weights), "each weight must be unlike the others"
    run.shrink(PRUNING.apply(run.network, run.course))
    kept, carried = {name: one.detach() for name, one in run.module.named_parameters()}, momenta(run)
    assert sum(value.numel() for value in kept.values()) <= TARGET
    assert fits(kept, carried, pairs)
    # The test must be able to tell: one layer's momenta in another order, or those of the filters that went.
    name = "network.layer2.0.conv1.weight"
    assert not fits(kept, {**carried, name: carried[name].flip(0)}, pairs)
    assert not fits(kept, {**carried, name: carried[name].flip(1)}, pairs)
    assert [id(one) for one in run.optimizer.param_groups[0]["params"]] == list(map(id, run.module.parameters()))


def test_the_next_step_is_nesterovs_with_the_momenta_that_were_carried_over() -> None:
    run = begun(RECIPE, steps=3)
    images, labels = next(run.shuffled())
    run.shrink(PRUNING.apply(run.network, run.course))
    weights = {name: one.detach().clone() for name, one in run.module.named_parameters()}
    velocities = {name: value.clone() for name, value in momenta(run).items()}
    step(run, RECIPE, images, labels)
    for name, parameter in run.module.named_parameters():
        assert parameter.grad is not None
        slope = parameter.grad + RECIPE.weight_decay * weights[name]
        velocity = RECIPE.momentum * velocities[name] + slope
        expected = weights[name] - RECIPE.lr * (slope + RECIPE.momentum * velocity)
        torch.testing.assert_close(parameter.detach(), expected)
        assert parameter.grad.any()


def test_training_with_pruning_is_not_pruning_and_then_training() -> None:
    gradual = RECIPE.train(resnet(), course_of(SAMPLES)).module
    at_once = ALONE.train(PRUNING.apply(resnet(), course_of(SAMPLES)), course_of(SAMPLES)).module
    assert not same(gradual.state_dict(), at_once.state_dict())


def test_the_control_is_the_same_training_of_a_network_that_keeps_its_size() -> None:
    assert RECIPE.control == ALONE
    assert ALONE.control == ALONE

    def first_weights(recipe: AdaSap) -> tuple[list[Tensor], Network]:
        network, seen = resnet(), []
        network.module.network.conv1.register_forward_pre_hook(
            lambda layer, _: seen.append(layer.weight.detach().clone()) if layer.training else None
        )
        return seen, recipe.train(network, course_of(SAMPLES))

    (pruned, smaller), (kept, whole) = first_weights(RECIPE), first_weights(ALONE)
    assert count_parameters(smaller.module) < count_parameters(whole.module) == FULL
    assert whole.architecture == RESNET
    same_steps = [one.shape == other.shape and torch.equal(one, other) for one, other in zip(pruned, kept, strict=True)]
    # Two passes a step, and not another weight before the first round.
    assert all(same_steps[:20])
    assert not any(same_steps[22::2])


def killed_at(calls: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return cross-entropy, of which one call is the last."""
    counter = count(1)

    def objective(_images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        if next(counter) == calls:
            raise KeyboardInterrupt
        return functional.cross_entropy(logits, labels)

    return objective


# Two calls a step: in the first phase, in the second's first epoch before and after its round, in its second epoch
# between two rounds, in the last phase.
@pytest.mark.parametrize(("step", "edits"), [(3, None), (8, 0), (11, 0), (13, 1), (16, 1), (20, 3)])
def test_a_training_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path, step: int, edits: int | None) -> None:
    recipe = replace(RECIPE, flip=True)
    expected = recipe.train(resnet(), course_of(SAMPLES, objective=killed_at(0)))
    with pytest.raises(KeyboardInterrupt):
        recipe.train(resnet(), course_of(SAMPLES, objective=killed_at(2 * step), folder=tmp_path))
    kept = tmp_path / "epochs.pt"
    if edits is None:
        assert not kept.exists()
    else:
        assert len(torch.load(kept, weights_only=True)["state"]["edits"]) == edits
    calls = killed_at(2 * (4 * BATCHES - step // BATCHES * BATCHES) + 1)  # and no epoch twice
    found = recipe.train(resnet(), course_of(SAMPLES, objective=calls, folder=tmp_path))
    assert found.architecture == expected.architecture
    assert same(found.module.state_dict(), expected.module.state_dict())


def test_a_network_that_was_pruned_before_keeps_its_own_edits(tmp_path: Path) -> None:
    recipe = replace(RECIPE, pruning=FilterPruning(ratio=0.4, criterion="l2", scope="global"))
    start = FilterPruning(ratio=0.2).apply(resnet(), course_of(SAMPLES))
    expected = recipe.train(copy.deepcopy(start), course_of(SAMPLES, objective=killed_at(0)))
    with pytest.raises(KeyboardInterrupt):
        recipe.train(copy.deepcopy(start), course_of(SAMPLES, objective=killed_at(27), folder=tmp_path))
    found = recipe.train(copy.deepcopy(start), course_of(SAMPLES, objective=killed_at(0), folder=tmp_path))
    assert len(found.architecture.edits) == 1 + 3
    assert found.architecture == expected.architecture
    assert same(found.module.state_dict(), expected.module.state_dict())


def test_the_result_can_be_built_again() -> None:
    trained = RECIPE.train(resnet(), course_of(SAMPLES))
    images = torch.rand(8, 3, 6, 6)
    again = networks.build(trained.architecture, course_of(SAMPLES).example)
    again.load_state_dict(trained.module.state_dict())
    assert torch.equal(again(images), trained.module(images))


CHAIN = """
[compressions.sharp]
steps = [{ finetune = { recipe = "adasap", epochs = 3, flattening = 1, pruning_phase = 1, interval = 4, lr = 0.001, \
batch_size = 16, rho_max = 0.1, pruning = { method = "filter_pruning", ratio = 0.5, criterion = "l2", \
scope = "global" } } }]
"""


def test_a_chain_rebuilt_from_disk_answers_to_the_last_bit(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, built = torch.rand(16, 3, 8, 8), []
    plain = Bench.train

    def watched(bench: Bench, network: Network, *options: Any) -> Network:
        built.append(plain(bench, network, *options))
        return built[-1]

    monkeypatch.setattr(Bench, "train", watched)

    def gate() -> Gate:
        return Gate(make_plan(load(tiny.configure(extra=CHAIN))), today=date(2026, 1, 1))

    first, sharp = gate(), Variant(model="tiny", source="day", compression="sharp")
    found = first.foundry.subject(sharp).logits(images)
    assert torch.equal(found, built[0].module(images))
    assert len(built[0].architecture.edits) == 2  # 9 steps, a round every 4
    # Two of four filters, of 3 weights and 2 of the head each, and the head's biases.
    assert first.record(sharp).parameters == 2 * 3 + 2 * 2 + 2
    assert torch.equal(gate().foundry.subject(sharp).logits(images), found)
    assert len(built) == 1
    # Its control keeps all four filters, and sees the same recipe otherwise.
    control = first.plan.controls["sharp"]
    (trained,) = first.plan.chains[control]
    (step,) = first.plan.chains["sharp"]
    assert trained.finetune == replace(step.finetune, pruning=None)
    assert first.record(Variant(model="tiny", source="day", compression=control)).parameters == 4 * 3 + 4 * 2 + 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"flattening": -1}, "flattening and pruning_phase are epochs.*: got -1 and 2 of 4"),
        ({"flattening": 3}, "together at most epochs: got 3 and 2 of 4"),
        ({"pruning_phase": 0}, "pruning needs a pruning_phase of at least 1 epoch, got 0"),
        ({"interval": 0}, "interval must be at least 1, got 0"),
        ({"rho_min": 0.0}, "rho_min must be above 0 and at most rho_max, got 0 and 0.5"),
        ({"rho_min": 0.6}, "rho_min must be above 0 and at most rho_max, got 0.6 and 0.5"),
        ({"uniform": 0.0}, "uniform must be above 0, got 0"),
        ({"eta": 0.0}, "eta must be above 0, got 0"),
        ({"pruning": replace(PRUNING, rounds=3)}, r"pruning.rounds: interval says how many .* leave it out; got 3"),
    ],
)
def test_parameters_that_make_no_sense_together_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **parameters)


def refused(recipe: AdaSap, network: Network, message: str) -> None:
    """A training is refused before its first epoch."""
    before = copy.deepcopy(network.module.state_dict())
    with pytest.raises(CompressionError, match=message):
        recipe.train(network, course_of(SAMPLES))
    assert same(network.module.state_dict(), before)


@pytest.mark.parametrize("kind", ["zeros", "quantizers"])
def test_a_network_under_constraints_is_not_pruned(kind: ConstraintKind) -> None:
    bound = replace(resnet(), constraints=(Constraint(kind=kind, parameters=("network.conv1.weight",)),))
    refused(RECIPE, bound, f"adasap: expected a network without constraints to prune, got one under {kind}")


@pytest.mark.parametrize("recipe", [RECIPE, ALONE])
def test_a_network_under_clusters_is_refused(recipe: AdaSap) -> None:
    bound = replace(resnet(), constraints=(Constraint(kind="clusters", parameters=("network.conv1.weight",)),))
    refused(recipe, bound, "adasap: filters share the values of clusters")


def test_zeros_are_kept_where_nothing_is_pruned() -> None:
    network = resnet()
    weight = network.module.get_parameter("network.conv1.weight")
    weight.data[:2] = 0
    zeros = Constraint(kind="zeros", parameters=("network.conv1.weight",))
    trained = train(network.module, ALONE, SAMPLES, constraints=(zeros,))
    found = trained.get_parameter("network.conv1.weight")
    assert not found[:2].any()
    assert found[2:].all()


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        (FilterPruning(parameters=FULL), "adasap: filter_pruning: .* the network has only 4,439$"),
        (FilterPruning(parameters=20), "adasap: filter_pruning: .* leaves more than 20 parameters$"),
    ],
)
def test_a_pruning_that_cannot_be_is_refused_before_the_first_epoch(pruning: FilterPruning, message: str) -> None:
    refused(replace(RECIPE, pruning=pruning, interval=1), resnet(), message)


def test_rounds_of_less_than_a_filter_together_remove_what_one_would() -> None:
    pruning = FilterPruning(ratio=0.1, scope="global")
    once, often = (train(resnet().module, replace(RECIPE, pruning=pruning, interval=n), SAMPLES) for n in (10**6, 1))
    filters = [sum(one.out_channels for one in net.modules() if isinstance(one, nn.Conv2d)) for net in (once, often)]
    whole = sum(one.out_channels for one in resnet().module.modules() if isinstance(one, nn.Conv2d))
    assert filters[0] < whole
    assert abs(filters[1] - filters[0]) <= 0.05 * whole  # a channel of a residual sum counts in several layers


def test_a_network_without_filters_is_refused() -> None:
    refused(ALONE, network_of(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108))), "the network has none")
