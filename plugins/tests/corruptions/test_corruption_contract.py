"""What every corruption on the shelf must keep to, found by discovery."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from robustgate.core.catalog import shelf
from robustgate.core.errors import MeasurementError
from robustgate.engine.draws import SampleDraws
from robustgate.testing import SEVERITIES, CorruptionContract, pictures

COUNT = 12
# What the published severities of these do to an image falls back from one to the next.
UNGRADED = {
    "ElasticTransform": "elastic_transform",
    "Frost": "frost",
    "GlassBlur": "glass_blur",
    "Saturate": "saturate",
    "Spatter": "spatter",
}


class TestContract(CorruptionContract):
    """Every corruption on the shelf keeps the contract, with its defaults."""

    @pytest.fixture(params=shelf("corruptions").names)
    def corruption(self, request):
        return shelf("corruptions").component(request.param)()

    @pytest.fixture
    def is_graded(self, corruption):
        return type(corruption).__name__ not in UNGRADED


@pytest.mark.parametrize("name", UNGRADED.values())
def test_the_published_ones_are_not_graded_either(reference, name):
    images = reference.arrays["images"].astype(float)
    distances = [np.square(made - images).mean() ** 0.5 for made in reference.arrays[name]]
    assert any(later < 0.95 * earlier for earlier, later in itertools.pairwise(distances))


@pytest.fixture(params=shelf("corruptions").names)
def corruption(request):
    return shelf("corruptions").component(request.param)


def test_imports_without_torch(corruption):
    code = f"import sys, {corruption.__module__}; sys.exit(bool({{'torch', 'numpy', 'PIL'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_flat_images_give_finite_results(corruption, value):
    flat = torch.full((2, 3, 32, 32), value)
    assert torch.isfinite(corruption().apply(flat, 5, SampleDraws(range(2)))).all()


@pytest.mark.parametrize("severity", [0, 6])
def test_other_severities_are_refused(corruption, severity):
    with pytest.raises(MeasurementError, match=f"^severity must be a whole number from 1 to 5, got {severity}$"):
        corruption().apply(pictures(COUNT, 32), severity, SampleDraws(range(COUNT)))


def test_the_table_can_be_chosen(corruption):
    small = pictures(COUNT, 32)
    # At severity 5: the two tables have some values in common.
    results = [
        corruption(table=table).apply(small, 5, SampleDraws(range(COUNT))) for table in ("auto", "cifar", "imagenet")
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_images(corruption):
    for images, severity in itertools.product((pictures(COUNT, 32), pictures(COUNT, 72)), SEVERITIES):
        cpu = corruption().apply(images, severity, SampleDraws(range(COUNT)))
        gpu = corruption().apply(images.cuda(), severity, SampleDraws(range(COUNT), "cuda"))
        assert gpu.device.type == "cuda"
        assert (gpu.cpu() - cpu).abs().max() < 1e-6
