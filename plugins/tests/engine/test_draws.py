"""A sample's numbers are its own: whatever the batch, its order, and the calls before."""

import time

import pytest
import torch

from robustgate.core.seeds import derive
from robustgate.engine.draws import SampleDraws

SEEDS = [derive(0, "case", index) for index in range(8)]
KINDS = pytest.mark.parametrize("kind", ["normal", "uniform"])


@KINDS
def test_shape_type_and_determinism(kind):
    first = getattr(SampleDraws(SEEDS), kind)(3, 4, 5)
    assert first.shape == (8, 3, 4, 5)
    assert first.dtype == torch.float32
    assert torch.equal(first, getattr(SampleDraws(SEEDS), kind)(3, 4, 5))
    assert getattr(SampleDraws(SEEDS), kind)().shape == (8,)
    assert getattr(SampleDraws([]), kind)(2).shape == (0, 2)


@KINDS
def test_a_sample_does_not_know_its_batch(kind):
    whole = getattr(SampleDraws(SEEDS), kind)(3, 7)
    order = [5, 0, 3]
    assert torch.equal(getattr(SampleDraws([SEEDS[i] for i in order]), kind)(3, 7), whole[order])
    alone = torch.cat([getattr(SampleDraws([seed]), kind)(3, 7) for seed in SEEDS])
    assert torch.equal(alone, whole)


@KINDS
def test_how_the_calls_are_split_does_not_matter(kind):
    whole = getattr(SampleDraws(SEEDS), kind)(20)
    pieces = SampleDraws(SEEDS)
    assert torch.equal(torch.cat([getattr(pieces, kind)(n) for n in (1, 2, 17)], dim=1), whole)


def test_take_continues_the_streams():
    expected = SampleDraws(SEEDS)
    expected.normal(5)
    second, third = expected.normal(5), expected.normal(5)

    draws = SampleDraws(SEEDS)
    draws.normal(5)
    taken = draws.take(torch.tensor([6, 2]))
    assert len(taken) == 2
    assert torch.equal(taken.normal(5), second[[6, 2]])
    # What was taken has moved on in the batch, too; the others have not.
    after = draws.normal(5)
    assert torch.equal(after[[6, 2]], third[[6, 2]])
    assert torch.equal(after[[0, 7]], second[[0, 7]])


def test_take_refuses_a_row_twice():
    with pytest.raises(ValueError, match="at most once"):
        SampleDraws(SEEDS).take(torch.tensor([1, 1]))


def test_distributions():
    draws = SampleDraws(range(200))
    normal, uniform = draws.normal(5000).double(), draws.uniform(5000).double()
    # A million numbers: a mean errs by 1e-3 of a standard deviation; five of those are allowed.
    assert abs(normal.mean()) < 5e-3
    assert abs(normal.var() - 1) < 5 * 1.5e-3
    assert abs((normal**4).mean() - 3) < 5 * 0.01
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5 * 0.3e-3
    assert abs(uniform.var() - 1 / 12) < 5e-4


def test_neighbouring_seeds_are_unrelated():
    correlation = torch.corrcoef(SampleDraws(range(50)).normal(4000))
    assert (correlation - torch.eye(50)).abs().max() < 6 / 4000**0.5


def test_global_streams_are_left_alone():
    import numpy as np

    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    draws = SampleDraws(SEEDS)
    draws.normal(10)
    draws.uniform(10)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_a_batch_of_small_images_takes_milliseconds():
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        SampleDraws(range(256)).normal(3, 32, 32)
        seconds.append(time.perf_counter() - start)
    # 11 ms on the slow machine where it was written; the margin is for a busy one.
    assert min(seconds) < 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_does_not_matter():
    assert torch.equal(SampleDraws(SEEDS, "cuda").normal(9).cpu(), SampleDraws(SEEDS).normal(9))
