"""Distillation as a recipe: the loss it minimises, a teacher that is left alone, and what it cannot be asked."""

from __future__ import annotations

import copy
from datetime import date

import numpy as np
import pytest
import torch
from bright_halves import SIZE, course_of, doubled, network, network_of, same, sides
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from robustgate.config import load
from robustgate.core.errors import CompressionError, ConfigurationError
from robustgate.core.records import Variant
from robustgate.engine.course import train
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.training.distillation import Distillation
from robustgate.training.supervised import Supervised


def linear(seed: int, classes: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, classes))


class Shown(nn.Module):
    """A network that remembers what it was shown, and in which mode it was."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[tuple[Tensor, bool, bool]] = []

    def __deepcopy__(self, memo: dict[int, object]) -> Shown:
        copied = Shown(copy.deepcopy(self.inner, memo))
        copied.seen = self.seen
        return copied

    def forward(self, images: Tensor) -> Tensor:
        logits = self.inner(images)
        self.seen.append((images.clone(), self.training, logits.requires_grad))
        return logits


@pytest.mark.parametrize(("temperature", "alpha"), [(4.0, 0.9), (1.0, 0.5), (7.0, 1.0)])
def test_the_loss_and_its_gradient_are_hintons(temperature: float, alpha: float) -> None:
    student, teacher, samples = doubled(linear(0)), doubled(linear(1)), sides(16)
    recipe = Distillation(epochs=1, batch_size=16, temperature=temperature, alpha=alpha)
    run = recipe.begin(network_of(student), course_of(samples, teachers={None: teacher}))
    images, labels = next(run.shuffled())
    loss = recipe.gradients(run, images, labels)

    told, taught = (one(images).detach().numpy() for one in (student, teacher))
    right = np.eye(2)[labels.numpy()]
    soft, aim = softmax(told / temperature, axis=1), softmax(taught / temperature, axis=1)
    surprise = -(right * log_softmax(told, axis=1)).sum(axis=1)
    divergence = (aim * (np.log(aim) - np.log(soft))).sum(axis=1)
    expected = ((1 - alpha) * surprise + alpha * temperature**2 * divergence).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    # Of each logit: (1 - alpha) (p - y) + alpha T (p_s - p_t); a linear layer's bias gathers them.
    slope = (1 - alpha) * (softmax(told, axis=1) - right) + alpha * temperature * (soft - aim)
    np.testing.assert_allclose(student[1].bias.grad.numpy(), slope.mean(axis=0), rtol=1e-9, atol=1e-12)


def test_without_the_teachers_share_it_is_supervised_training_bit_for_bit() -> None:
    settings = {"epochs": 3, "batch_size": 16, "flip": True}
    plain, taught, other = (network() for _ in range(3))
    train(plain, Supervised(**settings), sides(), seed=4)
    train(taught, Distillation(**settings, alpha=0.0), sides(), seed=4, teachers={None: network(1)})
    train(other, Distillation(**settings, alpha=0.1), sides(), seed=4, teachers={None: network(1)})
    assert same(taught.state_dict(), plain.state_dict())
    assert not same(other.state_dict(), plain.state_dict())


def test_the_student_comes_to_answer_as_the_teacher_does_where_labels_say_otherwise() -> None:
    samples, teacher, student = sides(), linear(1), linear(0)
    teacher[1].weight.data *= 10
    recipe = Distillation(epochs=60, batch_size=32, shift=0, alpha=1.0, lr=0.2, weight_decay=0.0, temperature=2.0)
    train(student, recipe, samples, teachers={None: teacher})
    images = torch.from_numpy(samples.images).permute(0, 3, 1, 2) / 255
    agree = (student(images).argmax(1) == teacher(images).argmax(1)).float().mean()
    assert agree > 0.9
    assert (teacher(images).argmax(1).numpy() == samples.labels).mean() < 0.7


def test_the_teacher_sees_the_students_images_in_eval_mode_and_is_left_alone() -> None:
    teacher = Shown(network(1)).train()
    before, student = copy.deepcopy(teacher.state_dict()), Shown(network(2))
    train(student, Distillation(epochs=2, batch_size=32), sides(), teachers={"big": teacher, None: teacher})
    (_, *taught), (_, *told) = teacher.seen, student.seen  # the first look counts the classes
    assert len(taught) == len(told) == 6
    assert all(torch.equal(one, other) for (one, _, _), (other, _, _) in zip(taught, told, strict=True))
    assert not any(training or flows for _, training, flows in teacher.seen)
    assert [training for _, training, _ in student.seen] == [False] + [True] * 6
    assert same(teacher.state_dict(), before)
    assert teacher.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())


def test_a_named_teacher_is_the_one_that_teaches() -> None:
    settings = {"epochs": 1, "batch_size": 16}
    teachers = {None: linear(1), "big": linear(2)}
    one, other, again = (linear(0) for _ in range(3))
    train(one, Distillation(**settings), sides(), teachers=teachers)
    train(other, Distillation(**settings, teacher="big"), sides(), teachers=teachers)
    train(again, Distillation(**settings), sides(), teachers={None: teachers["big"]})
    assert same(other.state_dict(), again.state_dict())
    assert not same(one.state_dict(), other.state_dict())
    assert (Distillation(epochs=1).models, Distillation(epochs=1, teacher="big").models) == ((), ("big",))


@pytest.mark.parametrize(("teacher", "said"), [(None, "the model itself, uncompressed"), ("big", "big")])
def test_other_classes_are_refused_before_anything_is_trained(teacher: str | None, said: str) -> None:
    student = linear(0)
    before = copy.deepcopy(student.state_dict())
    message = rf"distillation: the teacher \({said}\) has 3 classes, the student has 2; expected the same number"
    with pytest.raises(CompressionError, match=message):
        train(student, Distillation(epochs=1, teacher=teacher), sides(), teachers={teacher: linear(1, classes=3)})
    assert same(student.state_dict(), before)


def test_an_objective_of_the_compressions_own_is_refused_rather_than_dropped() -> None:
    with pytest.raises(CompressionError, match="the compression trains by a loss of its own, which this recipe would"):
        train(
            linear(0),
            Distillation(epochs=1),
            sides(),
            teachers={None: linear(1)},
            objective=lambda _images, logits, _labels: logits.sum(),
        )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], got 1.5"),
        ({"label_smoothing": 0.1}, "label_smoothing must be 0, got 0.1: the teacher's answers soften the labels"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distillation(**{"epochs": 1, **parameters})


TAUGHT = """
[compressions.{name}]
steps = [
    {{ method = "filter_pruning", ratio = 0.25, finetune = {{ recipe = "{recipe}", epochs = 2, batch_size = 32{more} }} }},
]
"""


def test_without_a_name_the_variants_own_model_teaches_as_it_was_before_any_step(tiny) -> None:
    path = tiny.configure(
        extra=TAUGHT.format(name="by_name", recipe="distillation", more=', teacher = "tiny"')
        + TAUGHT.format(name="by_its_own", recipe="distillation", more="")
        + TAUGHT.format(name="untaught", recipe="supervised", more="")
    )
    configuration = load(path)
    asked = {name: steps[0].models for name, steps in configuration.compressions.items()}
    assert asked == {"fp25": (), "by_name": ("tiny",), "by_its_own": (), "untaught": ()}
    gate = Gate(make_plan(configuration), today=date(2026, 1, 1))
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    by_name, by_its_own, untaught = (
        gate.subject(Variant(model="tiny", source="day", compression=name)).logits(images)
        for name in ("by_name", "by_its_own", "untaught")
    )
    assert torch.equal(by_name, by_its_own)
    assert not torch.equal(by_name, untaught)


def test_a_teacher_that_the_configuration_does_not_have_is_named(tiny) -> None:
    path = tiny.configure(extra=TAUGHT.format(name="kd", recipe="distillation", more=', teacher = "tinny"'))
    with pytest.raises(ConfigurationError, match="no model 'tinny' \\(did you mean 'tiny'\\?\\)"):
        load(path)
