"""Networks from their description: weights fit to the last key or are refused with file, key, expected and got."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from robustgate.config import Model, Normalize
from robustgate.core.components import Architecture, Edit
from robustgate.core.errors import ConfigurationError, ModelError
from robustgate.engine.networks import architecture_of, build, load_reference, load_weights
from robustgate.zoo import cifar_resnet

EXAMPLE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([1.0, -1.0])}
PLACE = "models.net.weights.day"

FACTORIES = """
from torch import nn

class Fails:
    def __call__(self, depth):
        raise RuntimeError(f"no network of {depth} layers")

fails = Fails()
number = 3

def returns_text():
    return "a network"

def mean_net(scale=1.0):
    class Mean(nn.Module):
        def forward(self, x):
            return scale * x.mean((2, 3))
    return Mean()
"""


@pytest.fixture(autouse=True)
def _factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_factories.py").write_text(FACTORIES)
    (tmp_path / "broken_factories.py").write_text("import torch\n1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def linear(state: dict[str, Tensor] | None = None) -> nn.Linear:
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.weight, 7.0)
    return layer


def safetensors(folder: Path, **changes: Tensor | None) -> Path:
    state = {key: value for key, value in {**STATE, **changes}.items() if value is not None}
    save_file(state, folder / "net.safetensors")
    return folder / "net.safetensors"


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "net.pt")
    return folder / "net.pt"


def loaded(file: Path) -> nn.Linear:
    layer = linear()
    load_weights(layer, file, PLACE)
    return layer


def refusal(file: Path, module: nn.Module | None = None) -> str:
    module = module or linear()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ModelError) as raised:
        load_weights(module, file, PLACE)
    # Refused weights leave no trace in the network.
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    message = str(raised.value)
    assert message.startswith(f"{PLACE}: ")
    assert str(file) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3, "best_prec1": 91.7},
        {f"module.{key}": value for key, value in STATE.items()},
        {"state_dict": {f"module.{key}": value for key, value in STATE.items()}},
        {key: nn.Parameter(value) for key, value in STATE.items()},
    ],
    ids=["plain", "checkpoint", "parallel", "parallel checkpoint", "parameters"],
)
def test_a_torch_file_of_plain_tensors_is_loaded(tmp_path: Path, content: object) -> None:
    found = loaded(saved(tmp_path, content)).state_dict()
    assert all(torch.equal(found[key], value) for key, value in STATE.items())


def test_a_safetensors_file_is_loaded(tmp_path: Path) -> None:
    assert torch.equal(loaded(safetensors(tmp_path)).weight, STATE["weight"])


def test_counters_of_batch_normalisation_may_be_lists_of_one(tmp_path: Path) -> None:
    source, module = cifar_resnet(depth=8, num_classes=10), cifar_resnet(depth=8, num_classes=10)
    state = source.state_dict()
    counters = [key for key in state if "num_batches" in key]
    state |= {key: torch.tensor([7]) for key in counters}
    save_file(state, tmp_path / "weights.safetensors")
    load_weights(module, tmp_path / "weights.safetensors", "models.net")
    assert {int(module.state_dict()[key]) for key in counters} == {7}
    assert torch.equal(module.state_dict()["linear.weight"], state["linear.weight"])
    save_file(state | {counters[0]: torch.tensor([7, 7])}, tmp_path / "two.safetensors")
    with pytest.raises(ModelError, match=r"num_batches_tracked' expected \(\), got \(2,\)"):
        load_weights(module, tmp_path / "two.safetensors", "models.net")


def test_counters_of_batch_normalisation_may_be_left_out(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2), "bias": torch.zeros(2), "running_mean": torch.zeros(2)}
    save_file({**state, "running_var": torch.full((2,), 4.0)}, tmp_path / "net.safetensors")
    layer = nn.BatchNorm2d(2)
    load_weights(layer, tmp_path / "net.safetensors", PLACE)
    assert layer.running_var.tolist() == [4.0, 4.0]
    # The statistics themselves may not: with those of an untrained layer nothing that is measured means anything.
    save_file(state, tmp_path / "net.safetensors")
    assert "missing 'running_var'" in refusal(tmp_path / "net.safetensors", nn.BatchNorm2d(2))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"bias": None}, "does not fit the network: missing 'bias'"),
        ({"weigth": torch.zeros(1)}, "does not fit the network: unknown 'weigth' (did you mean 'weight'?)"),
        ({"head.scale": torch.zeros(1)}, "does not fit the network: unknown 'head.scale'"),
        ({"weight": torch.zeros(3, 2)}, "does not fit the network: 'weight' expected (2, 3), got (3, 2)"),
        ({"bias": torch.zeros(1)}, "does not fit the network: 'bias' expected (2,), got (1,)"),
        ({"bias": torch.tensor([0.0, torch.nan])}, ": 'bias' holds NaN or infinity"),
        ({"weight": torch.full((2, 3), torch.inf)}, ": 'weight' holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, changes, problem: str) -> None:
    assert refusal(safetensors(tmp_path, **changes)).endswith(problem)


def test_several_problems_are_told_at_once_and_many_are_counted(tmp_path: Path) -> None:
    file = safetensors(tmp_path, bias=None, weight=torch.zeros(1), scale=torch.zeros(1))
    assert refusal(file).endswith("'weight' expected (2, 3), got (1,); missing 'bias'; unknown 'scale'")
    message = refusal(safetensors(tmp_path), cifar_resnet(depth=8, num_classes=10))
    keys = {key for key in cifar_resnet(depth=8, num_classes=10).state_dict() if "num_batches" not in key}
    assert message.count("missing") == 5
    assert message.endswith(f"; and {len(keys) + 2 - 5} more")


def test_files_of_another_kind_are_refused_with_the_reason(tmp_path: Path) -> None:
    damaged = safetensors(tmp_path)
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert " is not a safetensors file: " in refusal(damaged)
    assert refusal(tmp_path / "gone.safetensors").endswith(f"no such file: {tmp_path / 'gone.safetensors'}")
    assert refusal(tmp_path / "gone.pt").endswith(f"no such file: {tmp_path / 'gone.pt'}")
    for content in (b"", b"hello"):
        (tmp_path / "net.pt").write_bytes(content)
        assert " cannot be read as plain tensors (weights_only): " in refusal(tmp_path / "net.pt")
    assert refusal(saved(tmp_path, [torch.zeros(1)])).endswith(" holds list, expected a state dict of tensors")
    assert refusal(saved(tmp_path, {"weight": 3})).endswith(" holds dict, expected a state dict of tensors")
    assert refusal(saved(tmp_path, {0: torch.zeros(1)})).endswith(" holds dict, expected a state dict of tensors")


class Trap:
    """What a pickle does when it is loaded without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('sprung', 'w')",)


def test_a_pickle_that_needs_more_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refusal(saved(tmp_path, {"state_dict": STATE, "note": Trap()}))
    assert not (tmp_path / "sprung").exists()
    # The reason, and what to do; not torch's advice on how to trust the file all the same.
    assert re.search(r"\(weights_only\): UnpicklingError: Unsupported global: GLOBAL eval was not an allowed", message)
    assert message.endswith("; save the state dict as safetensors")
    assert "add_safe_globals" not in message
    assert "torch.nn.modules.linear.Linear" in refusal(saved(tmp_path, linear()))


def described(factory: str, **args: object) -> Architecture:
    return Architecture(build=factory, args=args, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.mark.parametrize(
    ("architecture", "error", "message"),
    [
        (
            described("odd_factories:fails", depth=9),
            ModelError,
            "factory 'odd_factories:fails' with {'depth': 9} failed: no network of 9 layers",
        ),
        (described("odd_factories:fails", width=9), ModelError, "failed: .*unexpected keyword argument 'width'"),
        (described("odd_factories:returns_text"), ModelError, "must return a torch module, got str"),
        (described("odd_factories:number"), ConfigurationError, "'odd_factories:number' is not callable, it is int"),
        (described("odd_factories:mean_nett"), ConfigurationError, r"no 'mean_nett' in it \(did you mean 'mean_net'"),
        (described("nowhere:net"), ConfigurationError, "cannot import 'nowhere': No module named 'nowhere'"),
        (described("broken_factories:net"), ConfigurationError, "cannot import 'broken_factories': division by zero"),
        (described("odd_factories.mean_net"), ConfigurationError, "a factory is written 'package.module:name'"),
        (described("robustgate.zoo:cifar_resnet", depth=9, num_classes=2), ModelError, r"depth must be 6n\+2"),
    ],
)
def test_factories_that_give_no_network_are_named(architecture: Architecture, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        build(architecture, EXAMPLE)


def test_normalisation_is_inside_the_network() -> None:
    normalize = Normalize(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    model = Model(build="odd_factories:mean_net", args={"scale": 3.0}, normalize=normalize, weights={})
    module = build(architecture_of(model), EXAMPLE)
    assert not module.training
    means = EXAMPLE.mean((2, 3))
    expected = 3 * (means - torch.tensor([0.5, 0.25, 0.0])) / torch.tensor([0.5, 0.25, 2.0])
    torch.testing.assert_close(module(EXAMPLE), expected)
    # It is no part of the state: the weights' keys are those of the network itself.
    assert not module.state_dict()
    bare = Model(build="odd_factories:mean_net", normalize="inside", weights={})
    assert torch.equal(build(architecture_of(bare), EXAMPLE)(EXAMPLE), means)


def test_a_reference_is_its_factory_with_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    original = cifar_resnet(depth=8, num_classes=4, width=4).eval()
    save_file(original.state_dict(), tmp_path / "net.safetensors")
    model = Model(
        build="robustgate.zoo:cifar_resnet",
        args={"depth": 8, "num_classes": 4, "width": 4},
        normalize="inside",
        weights={"day": tmp_path / "net.safetensors"},
    )
    found = load_reference(model, "net", "day", EXAMPLE)
    assert not found.module.training
    assert torch.equal(found.module(EXAMPLE), original(EXAMPLE))
    (tmp_path / "net.safetensors").unlink()
    with pytest.raises(ModelError, match=r"models\.net\.weights\.day: no such file: .*net\.safetensors"):
        load_reference(model, "net", "day", EXAMPLE)


def test_edits_are_made_again_in_order() -> None:
    whole = described("robustgate.zoo:cifar_resnet", depth=8, num_classes=4, width=4)
    history = [[["network.layer1.0.conv1", True, [0, 2]]], [["network.layer1.0.conv1", True, [0]]]]
    edits = tuple(Edit(method="filter_pruning", payload={"history": steps}) for steps in history)
    module = build(whole.edited(edits[0]).edited(edits[1]), EXAMPLE)
    assert module.network.layer1[0].conv1.out_channels == 4 - 2 - 1
    assert module(EXAMPLE).shape == (2, 4)
