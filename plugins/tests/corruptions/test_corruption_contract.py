"""What every corruption on the shelf must keep to, found by discovery."""

import dataclasses
import itertools
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from robustgate.core.catalog import shelf
from robustgate.core.errors import MeasurementError
from robustgate.engine.draws import SampleDraws

SEVERITIES = range(1, 6)
COUNT = 12


def pictures(height, width):
    """Return random pictures (12, 3, H, W) on 8-bit levels, with structure at every scale, as photographs have."""
    generator = torch.Generator().manual_seed(0)
    levels = 0.3 * torch.rand(COUNT, 3, height, width, generator=generator)
    for cells, weight in ((3, 0.35), (8, 0.2), (20, 0.15)):
        coarse = torch.rand(COUNT, 3, cells, cells, generator=generator)
        levels += weight * functional.interpolate(coarse, (height, width), mode="bilinear")
    return (levels * 255).round() / 255


@pytest.fixture(params=shelf("corruptions").names)
def corruption(request):
    return shelf("corruptions").component(request.param)


@pytest.fixture(params=[(32, 32), (24, 40), (72, 96)], ids="{0[0]}x{0[1]}".format)
def images(request):
    return pictures(*request.param)


def test_is_a_frozen_keyword_only_dataclass_with_defaults(corruption):
    assert dataclasses.is_dataclass(corruption)
    assert corruption.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(corruption))
    assert corruption() == corruption()
    assert corruption.__doc__


def test_imports_without_torch(corruption):
    code = f"import sys, {corruption.__module__}; sys.exit(bool({{'torch', 'numpy', 'PIL'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("severity", SEVERITIES)
def test_keeps_shape_type_and_input(corruption, images, severity):
    before = images.clone()
    result = corruption().apply(images, severity, SampleDraws(range(COUNT)))
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert result.device == images.device
    assert torch.isfinite(result).all()
    assert torch.equal(images, before)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_sample_does_not_know_its_batch(corruption, images, severity):
    whole = corruption().apply(images, severity, SampleDraws(range(COUNT)))
    order = [7, 0, 3]
    part = corruption().apply(images[order], severity, SampleDraws(order))
    assert torch.equal(part, whole[order])
    alone = corruption().apply(images[5:6], severity, SampleDraws([5]))
    assert torch.equal(alone, whole[5:6])


def test_distance_grows_with_severity(corruption, images):
    results = [corruption().apply(images, severity, SampleDraws(range(COUNT))).clamp(0, 1) for severity in SEVERITIES]
    distances = [(result - images).square().mean().sqrt().item() for result in results]
    assert 0 < distances[0] < distances[-1]
    # A published step may change the kind rather than the strength (fog at 224 px, severities 3 and 4).
    assert all(later > 0.95 * earlier for earlier, later in itertools.pairwise(distances))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_images_give_finite_results(corruption, value):
    flat = torch.full((2, 3, 32, 32), value)
    assert torch.isfinite(corruption().apply(flat, 5, SampleDraws(range(2)))).all()


@pytest.mark.parametrize("severity", [0, 6])
def test_other_severities_are_refused(corruption, severity):
    with pytest.raises(MeasurementError, match=f"^severity must be a whole number from 1 to 5, got {severity}$"):
        corruption().apply(pictures(32, 32), severity, SampleDraws(range(COUNT)))


def test_global_stream_is_left_alone(corruption):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    corruption().apply(pictures(32, 32), 2, SampleDraws(range(COUNT)))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_table_can_be_chosen(corruption):
    small = pictures(32, 32)
    results = [
        corruption(table=table).apply(small, 1, SampleDraws(range(COUNT))) for table in ("auto", "cifar", "imagenet")
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_images(corruption):
    for images, severity in itertools.product((pictures(32, 32), pictures(72, 96)), SEVERITIES):
        cpu = corruption().apply(images, severity, SampleDraws(range(COUNT)))
        gpu = corruption().apply(images.cuda(), severity, SampleDraws(range(COUNT), "cuda"))
        assert gpu.device.type == "cuda"
        assert (gpu.cpu() - cpu).abs().max() < 1e-6
