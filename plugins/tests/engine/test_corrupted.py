"""What the engine makes of a corruption: 8-bit images, each from its own stream, whatever parts they are worked on in."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from robustgate.core.catalog import shelf
from robustgate.core.errors import MeasurementError
from robustgate.core.seeds import derive
from robustgate.engine import measure
from robustgate.engine.draws import SampleDraws
from robustgate.engine.measure import corrupted

COUNT, SIDE, SEED = 7, (24, 20), 3
# Their places in the split: samples are drawn in an order of their own.
NUMBERS = np.array([40, 3, 41, 128, 0, 5, 39])


@pytest.fixture
def levels():
    """8-bit images (7, 3, 24, 20), in memory as a domain gives them."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, *SIDE, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def one_by_one(component, levels, severity):
    """What the contract says: each image alone, from the stream of its place, clipped and truncated."""
    made = []
    for number, image in zip(NUMBERS, levels, strict=True):
        draws = SampleDraws([derive(SEED, int(number))])
        made.append(
            (component.apply(image[None].contiguous().float() / 255, severity, draws).clamp(0, 1) * 255).floor()
        )
    return torch.cat(made).to(torch.uint8)


@pytest.mark.parametrize("name", shelf("corruptions").names)
@pytest.mark.parametrize("severity", [1, 4])
def test_it_is_what_the_corruption_makes_of_each_image_alone(name, severity, levels, monkeypatch):
    component = shelf("corruptions").component(name)()
    monkeypatch.setattr(measure, "CACHED_PIXELS", 3 * SIDE[0] * SIDE[1])  # in parts of 3, 3 and 1
    before = levels.clone()
    made = corrupted(levels, component, severity, SEED, numbers=NUMBERS, name="case")
    expected = one_by_one(component, levels, severity)
    assert (made.dtype, made.shape) == (torch.uint8, levels.shape)
    assert torch.equal(levels, before)
    # Sums in another order may take a value across the edge of a level, here and there.
    apart = (made.int() - expected.int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() <= 0.002


@dataclass
class Faulty:
    what: str

    def apply(self, images, severity, draws):
        if self.what == "shape":
            return images[:, :1]
        return images.clone().fill_(float(self.what))


@pytest.mark.parametrize("what", ["nan", "inf", "shape"])
def test_what_is_no_image_is_refused(what, levels):
    with pytest.raises(MeasurementError, match="case: the corruption gave"):
        corrupted(levels, Faulty(what), 1, SEED, numbers=NUMBERS, name="case")
