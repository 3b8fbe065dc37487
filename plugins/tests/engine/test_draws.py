"""A sample's numbers are its own: whatever the batch, its order, and the calls before."""

import time

import numpy as np
import pytest
import torch
from scipy import stats

from robustgate.core.seeds import derive
from robustgate.engine.draws import SampleDraws, normal_quantiles

SEEDS = [derive(0, "case", index) for index in range(8)]
KINDS = pytest.mark.parametrize("kind", ["normal", "uniform", "integers"])


@KINDS
def test_shape_type_and_determinism(kind):
    first = getattr(SampleDraws(SEEDS), kind)(3, 4, 5)
    assert first.shape == (8, 3, 4, 5)
    assert first.dtype == (torch.int16 if kind == "integers" else torch.float32)
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


def test_kinds_do_not_disturb_how_calls_are_split():
    whole, pieces = SampleDraws(SEEDS), SampleDraws(SEEDS)
    normal, uniform, integers = whole.normal(6), whole.uniform(6), whole.integers(6)
    assert torch.equal(torch.cat([pieces.normal(n) for n in (1, 5)], dim=1), normal)
    assert torch.equal(torch.cat([pieces.uniform(n) for n in (5, 1)], dim=1), uniform)
    assert torch.equal(torch.cat([pieces.integers(n) for n in (1, 1, 4)], dim=1), integers)


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


def test_normal_numbers_are_the_means_of_equal_shares():
    table = normal_quantiles().astype(float)
    assert abs(table.mean()) < 1e-9
    for power, moment in ((2, 1), (4, 3), (6, 15)):
        assert (table**power).mean() == pytest.approx(moment, rel=1e-3)
    assert (np.diff(table) > 0).all()
    # The mean of a normal number beyond the quantile of 1 / 65,536.
    tail = stats.norm.isf(1 / 65536)
    assert table[-1] == pytest.approx(65536 * stats.norm.pdf(tail), rel=1e-6)
    assert table[-1] == -table[0]


def test_integers_are_uniform():
    counts = np.bincount(SampleDraws(range(200)).integers(5000).flatten().numpy().view(np.uint16) >> 8, minlength=256)
    # Chi-squared of 255 degrees of freedom: below 370 but for one set of seeds in a million.
    assert ((counts - 1e6 / 256) ** 2).sum() / (1e6 / 256) < 370


def test_streams_that_draw_nothing_cost_nothing():
    start = time.perf_counter()
    for _ in range(100):
        SampleDraws(range(256))
    # 0.1 ms; 60 ms if streams were made.
    assert time.perf_counter() - start < 0.02


def test_neighbouring_seeds_are_unrelated():
    correlation = torch.corrcoef(SampleDraws(range(50)).normal(4000))
    assert (correlation - torch.eye(50)).abs().max() < 6 / 4000**0.5


def test_global_streams_are_left_alone():
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
    # 3 ms on the slow machine where it was written; the margin is for a busy one.
    assert min(seconds) < 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_does_not_matter():
    assert torch.equal(SampleDraws(SEEDS, "cuda").normal(9).cpu(), SampleDraws(SEEDS).normal(9))
