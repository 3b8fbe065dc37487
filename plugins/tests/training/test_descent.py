"""What every recipe has from its descent: transforms, warm-up, bfloat16, and epochs that survive a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bright_halves import SIZE, course_of, network, network_of, same, samples_of, sides
from torch import Tensor, nn
from torchvision.transforms import v2

from robustgate.attacks.pgd import Pgd
from robustgate.core.components import Constraint, Recipe
from robustgate.core.errors import CompressionError
from robustgate.engine import course
from robustgate.engine.course import Lesson, train
from robustgate.training._descent import share_of_peak
from robustgate.training.adversarial import Adversarial
from robustgate.training.asam import Asam
from robustgate.training.augmix import AugMix
from robustgate.training.distillation import Distillation
from robustgate.training.sam import Sam
from robustgate.training.supervised import Supervised

# Transforms


def levels(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def augmented(images: np.ndarray, *, seed: int = 0, **transforms: dict[str, object]) -> Tensor:
    """Return images as the network is shown them."""
    recipe = Supervised(epochs=1, batch_size=2, shift=0, transforms=transforms)
    run = recipe.begin(network_of(network()), course_of(samples_of(images, np.zeros(len(images)))))
    torch.manual_seed(seed)
    return run.augmented(torch.from_numpy(images))


def pictures(count: int = 8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def test_transforms_are_torchvisions_in_the_order_in_which_they_stand() -> None:
    images = pictures()
    bits, threshold = v2.RandomPosterize(bits=2, p=1.0), v2.RandomSolarize(threshold=100, p=1.0)
    whole = torch.from_numpy(images).permute(0, 3, 1, 2)
    posterize, solarize = {"bits": 2, "p": 1.0}, {"threshold": 100, "p": 1.0}
    one = augmented(images, RandomPosterize=posterize, RandomSolarize=solarize)
    other = augmented(images, RandomSolarize=solarize, RandomPosterize=posterize)
    assert torch.equal(levels(one), threshold(bits(whole)))
    assert torch.equal(levels(other), bits(threshold(whole)))
    assert not torch.equal(one, other)


def test_images_stay_at_8_bit_levels_and_are_shown_as_float_in_unit_range() -> None:
    shown = augmented(pictures(), RandAugment={"num_ops": 2}, RandomErasing={"p": 1.0})
    assert shown.dtype == torch.float32
    assert 0 <= shown.min() <= shown.max() <= 1
    assert torch.equal(levels(shown).float() / 255, shown)


def test_equal_images_of_a_batch_are_transformed_apart_and_as_the_stream_says() -> None:
    images = np.repeat(pictures(1), 40, axis=0)
    transforms = {"RandomRotation": {"degrees": 90}, "ColorJitter": {"brightness": 0.5}}
    shown = augmented(images, **transforms)
    assert len(shown.flatten(1).unique(dim=0)) > 30
    assert torch.equal(shown, augmented(images, **transforms))
    assert not torch.equal(shown, augmented(images, seed=1, **transforms))


def test_without_transforms_images_are_as_they_are() -> None:
    images = pictures()
    assert torch.equal(levels(augmented(images)), torch.from_numpy(images).permute(0, 3, 1, 2))


def test_images_have_their_channels_last_in_memory() -> None:
    # What convolutions make of them then has too; the weights stay as they are.
    assert augmented(pictures()).is_contiguous(memory_format=torch.channels_last)


def test_the_seed_decides_the_transforms_and_the_global_stream_nothing() -> None:
    recipe = Supervised(epochs=1, batch_size=32, transforms={"RandAugment": {}})

    def trained(seed: int, before: int) -> dict[str, Tensor]:
        module = network()
        torch.manual_seed(before)
        train(module, recipe, sides(), seed=seed)
        return module.state_dict()

    assert same(trained(1, before=5), trained(1, before=6))
    assert not same(trained(1, before=5), trained(2, before=5))
    assert not same(trained(1, before=5), trained_by(replace(recipe, transforms={}), seed=1))


def trained_by(recipe: Recipe, seed: int) -> dict[str, Tensor]:
    module = network()
    train(module, recipe, sides(), seed=seed)
    return module.state_dict()


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (
            {"RandAugmnet": {}},
            r"transforms: torchvision.transforms.v2 has no 'RandAugmnet' \(did you mean 'RandAugment'",
        ),
        ({"functional": {}}, "transforms: torchvision.transforms.v2 has no 'functional'"),
        ({"InterpolationMode": {}}, "transforms: torchvision.transforms.v2 has no 'InterpolationMode'"),
        ({"RandAugment": {"operations": 2}}, r"transforms\.RandAugment: .*unexpected keyword argument 'operations'"),
        ({"RandomErasing": {"p": 2.0}}, r"transforms\.RandomErasing: "),
        # What is wrong with these shows on an image only.
        ({"RandomRotation": {"degrees": 10, "fill": "black"}}, r"transforms\.RandomRotation: "),
        ({"Normalize": {"mean": [0.5], "std": [0.5]}}, r"transforms\.Normalize: .*float"),
        ({"RandomGrayscale": {"p": 0}, "CutMix": {"num_classes": 2}}, r"transforms\.CutMix: "),
        (
            {"CenterCrop": {"size": 4}},
            r"transforms\.CenterCrop: expected an image that stays uint8 \(3, 6, 6\), got uint8 \(3, 4, 4\)",
        ),
        (
            {"ConvertImageDtype": {}},
            r"transforms\.ConvertImageDtype: expected an image that stays uint8 \(3, 6, 6\), got float32 \(3, 6, 6\)",
        ),
    ],
)
def test_a_transform_that_cannot_be_is_one_clear_error(transforms, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        train(network(), Supervised(epochs=1, transforms=transforms), sides())


# Warm-up


@pytest.mark.parametrize(("warm_up", "peak"), [(0.0, 0), (0.1, 9), (0.5, 49), (0.999, 99)])
def test_the_learning_rate_rises_for_the_share_of_the_steps_that_is_asked_for(warm_up: float, peak: int) -> None:
    shares = [share_of_peak(step, 100, warm_up) for step in range(100)]
    assert shares[peak] == pytest.approx(1.0)
    assert max(range(100), key=shares.__getitem__) == peak
    assert shares[:peak] == sorted(shares[:peak])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)


def test_without_warm_up_the_first_step_is_taken_at_the_peak() -> None:
    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
            self.places: list[float] = []

        def forward(self, images: Tensor) -> Tensor:
            self.places.append(self.weight.item())
            return self.weight

    def first_step(warm_up: float) -> float:
        module = Scalar()
        recipe = Supervised(epochs=10, batch_size=8, lr=0.1, momentum=0.5, weight_decay=0.0, warm_up=warm_up)
        train(module, recipe, sides(8), objective=lambda _images, logits, _labels: logits)
        return module.places[0] - module.places[1]

    assert first_step(0.0) == pytest.approx(0.1 * 1.5)
    assert first_step(0.5) == pytest.approx(0.1 * 1.5 * share_of_peak(0, 10, 0.5))
    assert first_step(0.5) < 0.02


# Mixed precision


def test_mixed_precision_rounds_what_is_computed_and_not_what_is_kept() -> None:
    losses: dict[bool, list[float]] = {}
    states = {}
    for mixed in (False, True):
        module, heard = network(dropout=0.0), losses.setdefault(mixed, [])
        kinds: set[torch.dtype] = set()
        module[5].register_forward_hook(lambda _module, _args, made, kinds=kinds: kinds.add(made.dtype))
        recipe = Supervised(epochs=4, batch_size=32, mixed_precision=mixed)
        train(module, recipe, sides(), pupil=lambda lesson, heard=heard: heard.append(lesson.loss))
        assert kinds == {torch.bfloat16 if mixed else torch.float32}
        states[mixed] = module.state_dict()
        assert all(value.dtype in (torch.float32, torch.int64) for value in states[mixed].values())
    assert losses[True][-1] != losses[False][-1]
    assert losses[True][-1] == pytest.approx(losses[False][-1], rel=0.1)
    changes = [states[mixed]["5.weight"] - network()[5].weight.detach() for mixed in (False, True)]
    assert (changes[0] - changes[1]).norm() < 0.1 * changes[0].norm()
    assert not torch.equal(*changes)


def test_steps_below_what_bfloat16_can_tell_add_up() -> None:
    # Of 1, it knows no neighbour nearer than 1 / 256: weights that were kept in it would stand still.
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2, bias=False))
    nn.init.ones_(module[1].weight)
    recipe = Supervised(epochs=20, batch_size=32, lr=1e-4, weight_decay=0.0, warm_up=0.0, mixed_precision=True)
    train(module, recipe, sides())
    change = (module[1].weight.detach() - 1).abs()
    assert 1e-5 < change.median() < 1 / 256


# Epochs that survive


class Killed(BaseException):
    """As an interrupt: nothing that catches errors catches it."""


TRANSFORMS = {"RandAugment": {"num_ops": 1}, "RandomErasing": {}}
SETTINGS = {"epochs": 4, "batch_size": 16, "flip": True, "transforms": TRANSFORMS}
STEPS = 4 * 3
RECIPES: list[Recipe] = [
    Supervised(**SETTINGS),
    Sam(**SETTINGS),
    Asam(**SETTINGS),
    Distillation(**SETTINGS),
    Adversarial(**SETTINGS, attack=Pgd(eps=8 / 255, steps=2), share=0.5),
    AugMix(**SETTINGS, mixture_width=1),
]
BOUND = (Constraint(kind="zeros", parameters=("0.weight",)), Constraint(kind="clusters", parameters=("5.weight",)))


def begun(*, bound: bool) -> tuple[nn.Module, tuple[Constraint, ...]]:
    """Return a network with dropout and batch normalisation as it is before its training, and its constraints."""
    module = network()
    if bound:
        with torch.no_grad():
            module[0].weight[module[0].weight.abs() < 0.1] = 0
            module[5].weight.copy_((module[5].weight * 20).round() / 20)
    return module, BOUND if bound else ()


def end_of(recipe: Recipe, folder: Path | None = None, *, bound: bool = False, kill_at: int = 0) -> dict[str, Tensor]:
    """Train from the start, or go on in the folder; the process is killed at the step `kill_at` of those it takes."""
    module, constraints = begun(bound=bound)
    taken, share = 0, 0.0

    def pupil(lesson: Lesson) -> None:
        nonlocal taken, share
        taken += lesson.share > share  # what is told at an epoch's end is no step
        share = lesson.share
        if taken == kill_at:
            raise Killed

    teachers = {None: network(7)}
    train(module, recipe, sides(48), seed=3, constraints=constraints, teachers=teachers, folder=folder, pupil=pupil)
    return module.state_dict()


@pytest.fixture
def _heard_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "PAUSE", -1.0)


@pytest.mark.usefixtures("_heard_at_every_step")
@pytest.mark.parametrize("bound", [False, True], ids=["free", "bound"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__.lower())
def test_a_training_that_is_killed_and_called_again_ends_as_one_left_alone(
    recipe: Recipe, bound: bool, tmp_path: Path
) -> None:
    alone = end_of(recipe, bound=bound)
    kills = np.random.default_rng([RECIPES.index(recipe), bound]).integers(1, STEPS, 2)
    for number, kill in enumerate([*kills.tolist(), 4]):  # the last one is early in the second epoch
        folder = tmp_path / str(number)
        with pytest.raises(Killed):
            end_of(recipe, folder, bound=bound, kill_at=kill)
        assert same(end_of(recipe, folder, bound=bound), alone), f"killed at step {kill}"
    if bound:
        zeros, clusters = begun(bound=True)[0][0].weight == 0, len(begun(bound=True)[0][5].weight.unique())
        assert torch.equal(alone["0.weight"] == 0, zeros)
        assert len(alone["5.weight"].unique()) == clusters


@pytest.mark.usefixtures("_heard_at_every_step")
def test_a_training_survives_being_killed_again_and_again(tmp_path: Path) -> None:
    recipe = RECIPES[0]
    alone = end_of(recipe)
    for kill in (2, 5, 4, 1, 5):  # of the steps of each attempt, three of which make an epoch
        with pytest.raises(Killed):
            end_of(recipe, tmp_path, kill_at=kill)
    assert same(end_of(recipe, tmp_path), alone)


def test_a_network_that_was_half_trained_when_its_training_was_killed_goes_on_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "PAUSE", -1.0)
    recipe, alone = RECIPES[0], end_of(RECIPES[0])
    module, heard = network(), []

    def pupil(lesson: Lesson) -> None:
        heard.append(lesson)
        if len(heard) == 10:
            raise Killed

    with pytest.raises(Killed):
        train(module, recipe, sides(48), seed=3, folder=tmp_path, pupil=pupil)
    train(module, recipe, sides(48), seed=3, folder=tmp_path, pupil=pupil)
    assert same(module.state_dict(), alone)
    # Killed in the third epoch, which began anew: lessons go on where they were, one a step and one at an epoch's end.
    assert [(lesson.epoch, lesson.epochs) for lesson in heard] == [
        (epoch, 4) for epoch, told in ((1, 4), (2, 4), (3, 2), (3, 4), (4, 4)) for _ in range(told)
    ]


def test_an_epoch_s_last_word_is_of_all_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course, "PAUSE", 1e9)  # nothing but the first step and the end is told
    losses, heard = [], []

    def objective(_images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        loss = torch.nn.functional.cross_entropy(logits, labels)
        losses.append(float(loss.detach()))
        return loss

    train(network(), Supervised(epochs=2, batch_size=16), sides(48), objective=objective, pupil=heard.append)
    ends = np.mean(losses[:3]), np.mean(losses[3:])
    expected = [(1, 1 / 6, losses[0]), (1, 0.5, ends[0]), (2, 4 / 6, losses[3]), (2, 1.0, ends[1])]
    found = [(lesson.epoch, lesson.share, lesson.loss) for lesson in heard]
    assert found == [(epoch, pytest.approx(share), pytest.approx(loss)) for epoch, share, loss in expected]


def test_a_training_that_had_finished_is_not_trained_again(tmp_path: Path) -> None:
    recipe, samples = RECIPES[0], sides(48)
    alone = end_of(recipe, tmp_path)
    asked: list[Tensor] = []
    module = network()
    module.register_forward_pre_hook(lambda _module, args: asked.append(args[0]))
    train(module, recipe, samples, seed=3, folder=tmp_path)
    assert same(module.state_dict(), alone)
    assert not asked
    assert not any(part.training for part in module.modules())


def test_the_global_stream_is_as_it_was_after_a_training_that_went_on(tmp_path: Path) -> None:
    end_of(RECIPES[0], tmp_path)
    module = network()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(module, RECIPES[0], sides(48), seed=3, folder=tmp_path)
    assert torch.equal(torch.rand(3), expected)


CHILD = """
import sys, time
sys.path[:0] = [{tests!r}]
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_descent import RECIPES, network, sides
from robustgate.engine.course import train

def pupil(lesson):
    print(lesson.epoch, flush=True)
    time.sleep(0.01)

train(network(), RECIPES[{recipe}], sides(48), seed=3, folder=Path({folder!r}), pupil=pupil)
"""


def test_a_process_that_is_really_killed_loses_no_more_than_an_epoch(tmp_path: Path) -> None:
    recipe = 4  # adversarial, half a batch attacked from random starts: the longest steps
    code = CHILD.format(tests=str(Path(__file__).parent), recipe=recipe, folder=str(tmp_path / "kept"))
    child = subprocess.Popen(
        [sys.executable, "-c", "from robustgate.engine import course; course.PAUSE = -1.0\n" + code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    with child, child.stdout as lines:
        heard = [int(next(lines)) for _ in range(10)]
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert heard == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]  # one a step, and one at an epoch's end
    kept = torch.load(tmp_path / "kept" / "epochs.pt", weights_only=True)
    assert kept["epochs"] == 2
    assert same(end_of(RECIPES[recipe], tmp_path / "kept"), end_of(RECIPES[recipe]))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def scribbled(file: Path) -> None:
    file.write_text("epochs")


def flipped(file: Path) -> None:
    """Change a single bit of the largest tensor."""
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda one: one.file_size)
        content = archive.read(largest)
    whole = bytearray(file.read_bytes())
    whole[whole.index(content) + len(content) // 2] ^= 1
    file.write_bytes(whole)


def of_another_network(file: Path) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    file.unlink()
    train(other, RECIPES[0], sides(48), seed=3, folder=file.parent)


def of_another_kind(file: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, file)


@pytest.mark.parametrize(
    "damage", [emptied, cut, scribbled, flipped, of_another_network, of_another_kind], ids=lambda one: one.__name__
)
def test_kept_epochs_that_are_damaged_are_one_clear_error(damage: Callable[[Path], None], tmp_path: Path) -> None:
    end_of(RECIPES[0], tmp_path)
    file = tmp_path / "epochs.pt"
    damage(file)
    found = rf"{file}: damaged, or kept by another training \(.+\); remove it to begin again"
    with pytest.raises(CompressionError, match=found) as caught:
        end_of(RECIPES[0], tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    file.unlink()
    assert same(end_of(RECIPES[0], tmp_path), end_of(RECIPES[0]))


def test_an_epoch_that_diverged_is_not_kept(tmp_path: Path) -> None:
    def objective(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        steps.append(None)
        return logits.sum() * (float("nan") if len(steps) == 5 else 0.0)

    steps: list[None] = []
    with pytest.raises(
        CompressionError, match="training diverged: the loss of epoch 2 holds NaN or infinity; lower lr"
    ):
        train(network(), RECIPES[0], sides(48), objective=objective, folder=tmp_path)
    assert torch.load(tmp_path / "epochs.pt", weights_only=True)["epochs"] == 1
