"""AugMix: its divergence against SciPy's, its views, and one batch for all three."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from bright_halves import SIZE, course_of, doubled, network, network_of, same, samples_of, sides
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor, nn
from torchvision.transforms import v2

from robustgate.engine.course import train
from robustgate.training.augmix import AugMix, jensen_shannon
from robustgate.training.supervised import Supervised


def answers(views: int, *, scale: float = 3.0) -> tuple[Tensor, ...]:
    stream = torch.Generator().manual_seed(0)
    return tuple(scale * torch.randn(7, 5, generator=stream, dtype=torch.float64) for _ in range(views))


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_the_divergence_of_two_views_is_the_square_of_scipys_distance(scale: float) -> None:
    one, other = answers(2, scale=scale)
    expected = jensenshannon(softmax(one.numpy(), axis=1), softmax(other.numpy(), axis=1), axis=1) ** 2
    assert jensen_shannon((one, other)).item() == pytest.approx(expected.mean(), rel=1e-9)


def test_the_divergence_of_three_views_is_the_mean_surprise_at_their_mixture() -> None:
    views = answers(3)
    told = np.stack([softmax(one.numpy(), axis=1) for one in views])
    expected = np.mean([entropy(one, told.mean(axis=0), axis=1) for one in told])  # SciPy's, of two, is relative
    assert jensen_shannon(views).item() == pytest.approx(expected, rel=1e-9)
    # The same, as the entropy that mixing adds: of the mixture, less the mean of the views'.
    added = entropy(told.mean(axis=0), axis=1) - entropy(told, axis=2).mean(axis=0)
    assert jensen_shannon(views).item() == pytest.approx(added.mean(), rel=1e-9)


def test_the_divergence_is_nothing_among_equals_and_log_three_among_certain_contradictions() -> None:
    (one,) = answers(1)
    assert jensen_shannon((one, one, one)).item() == pytest.approx(0, abs=1e-12)
    sure = tuple(500 * torch.eye(3)[[view]].expand(4, 3) for view in range(3))
    assert jensen_shannon(sure).item() == pytest.approx(math.log(3), rel=1e-6)


def test_the_divergences_gradient_is_that_of_finite_differences() -> None:
    views = tuple(one[:2].clone().requires_grad_() for one in answers(3))
    assert torch.autograd.gradcheck(lambda *shown: jensen_shannon(shown), views)


class Shown(nn.Module):
    """A network that remembers the batches that it was shown."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.batches: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(images.detach().clone())
        logits: Tensor = self.inner(images)
        return logits


def shown(recipe: Supervised, *, seed: int = 3) -> Shown:
    module = Shown(network())
    train(module, recipe, sides(), seed=seed)
    return module


def test_the_image_and_two_mixtures_go_through_the_network_in_one_batch() -> None:
    settings = {"epochs": 2, "batch_size": 32, "flip": True}
    plain, mixed = shown(Supervised(**settings)), shown(AugMix(**settings))
    assert [len(batch) for batch in mixed.batches] == [96] * 6
    assert mixed.inner[1].num_batches_tracked == 6
    for batch, images in zip(mixed.batches, plain.batches, strict=True):
        clean, first, second = batch.chunk(3)
        assert torch.equal(clean, images), "all three are of the image as it is moved and mirrored"
        for one, other in ((clean, first), (clean, second), (first, second)):
            assert (one != other).flatten(1).any(dim=1).float().mean() > 0.9
        levels = batch * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
        assert 0 <= batch.min() <= batch.max() <= 1
        # Each mixture has a share of the image in it.
        likeness = [torch.corrcoef(torch.stack([clean.flatten(), one.flatten()]))[0, 1] for one in (first, second)]
        assert min(likeness) > 0.5


def test_the_loss_is_cross_entropy_of_the_image_and_the_weighed_divergence_of_all() -> None:
    module = doubled(Shown(network(dropout=0.0))).train()
    recipe = AugMix(epochs=1, batch_size=32, consistency=7.0, label_smoothing=0.1)
    run = recipe.begin(network_of(module), course_of(sides(32)))
    images, labels = next(run.shuffled())
    loss = recipe.gradients(run, images, labels)
    gradient = module.inner[5].weight.grad.clone()
    module.zero_grad()
    logits = module.inner(module.batches[0].double())
    views = tuple(logits.chunk(3))
    expected = nn.functional.cross_entropy(views[0], labels, label_smoothing=0.1) + 7.0 * jensen_shannon(views)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, module.inner[5].weight.grad)
    assert jensen_shannon(views) > 1e-5


def test_an_objective_of_the_compressions_own_takes_the_place_of_cross_entropy() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def objective(images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        seen.append((images, logits))
        return logits.square().mean()

    module = Shown(network())
    train(module, AugMix(epochs=1, batch_size=32), sides(32), objective=objective)
    ((images, logits),) = seen
    assert torch.equal(images, module.batches[0][:32])
    assert logits.shape == (32, 2)


def test_mixtures_are_torchvisions_one_image_at_a_time_without_the_benchmarks_operations() -> None:
    settings = {"severity": 5, "mixture_width": 2, "chain_depth": 1}
    recipe = AugMix(epochs=1, batch_size=32, shift=0, **settings)
    module = Shown(network(dropout=0.0))
    run = recipe.begin(network_of(module), course_of(sides(32)))
    images, labels = next(run.shuffled())
    torch.manual_seed(5)
    recipe.gradients(run, images, labels)
    transform = v2.AugMix(**settings, all_ops=False)
    assert not {"Brightness", "Color", "Contrast", "Sharpness"} & transform._PARTIAL_AUGMENTATION_SPACE.keys()
    torch.manual_seed(5)
    levels = (images * 255).round().to(torch.uint8)
    expected = [torch.stack([transform(image) for image in levels]) / 255 for _ in range(2)]
    _, *mixed = module.batches[0].chunk(3)
    assert all(torch.equal(one, other) for one, other in zip(mixed, expected, strict=True))


def test_equal_images_of_a_batch_are_mixed_apart() -> None:
    image = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    module = Shown(network())
    samples = samples_of(np.repeat(image[None], 16, axis=0), np.arange(16) % 2)
    train(module, AugMix(epochs=1, batch_size=16, shift=0), samples)
    clean, first, second = module.batches[0].chunk(3)
    assert len(clean.flatten(1).unique(dim=0)) == 1
    assert len(torch.cat([first, second]).flatten(1).unique(dim=0)) > 24


def test_the_seed_decides_the_mixtures_and_the_global_stream_nothing() -> None:
    recipe = AugMix(epochs=1, batch_size=32)
    torch.manual_seed(1)
    one = shown(recipe)
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    again, other = shown(recipe), shown(recipe, seed=4)
    assert same(one.state_dict(), again.state_dict())
    assert not same(one.state_dict(), other.state_dict())
    # `network` seeds the stream; a training leaves it as it was.
    module = network()
    torch.manual_seed(2)
    train(module, recipe, sides())
    assert torch.equal(torch.rand(3), expected)


def test_answers_waver_less_where_consistency_is_asked_for() -> None:
    # Labels of noise can but be learnt by heart, from what a mixture changes.
    rng = np.random.default_rng(0)
    samples = samples_of(rng.integers(0, 256, (32, SIZE, SIZE, 3), dtype=np.uint8), rng.integers(0, 2, 32))
    levels = torch.from_numpy(samples.images).permute(0, 3, 1, 2)
    mixing = {"severity": 10, "mixture_width": 1, "chain_depth": 1}
    torch.manual_seed(11)
    mixed = torch.stack([v2.AugMix(**mixing, all_ops=False)(image) for image in levels])

    def wavering(consistency: float) -> tuple[float, float]:
        """Return how far answers to fresh mixtures are from those to the images, and how many of these are right."""
        torch.manual_seed(0)
        first, second = nn.Linear(3 * SIZE * SIZE, 16), nn.Linear(16, 2)
        module = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), first, nn.ReLU(), second)
        recipe = AugMix(epochs=40, batch_size=32, shift=0, lr=0.1, **mixing, consistency=consistency)
        train(module, recipe, samples, seed=3)
        with torch.no_grad():
            answers = module(levels / 255), module(mixed / 255)
        right = (answers[0].argmax(1).numpy() == samples.labels).mean().item()
        return jensen_shannon(answers).item(), right

    (free, right), (held, right_when_held) = wavering(0.0), wavering(12.0)
    assert right == right_when_held == 1.0
    assert held < free / 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"severity": 0}, r"severity must be in \[1, 10\], got 0"),
        ({"severity": 11}, r"severity must be in \[1, 10\], got 11"),
        ({"mixture_width": 0}, "mixture_width must be at least 1, got 0"),
        ({"chain_depth": 0}, "chain_depth must be at least 1, got 0"),
        ({"consistency": -1.0}, "consistency must not be below 0, got -1"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugMix(**{"epochs": 1, **parameters})
