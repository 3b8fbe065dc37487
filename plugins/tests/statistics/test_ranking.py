"""Friedman and Nemenyi against the worked example and the tables of Demsar 2006, and against published statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robustgate.statistics.ranking import ranking

# Demsar 2006, JMLR 7:1, table 6: AUC of C4.5, with m, with cf, with both tuned, on 14 data sets. On `voting` the third
# and the fourth are printed alike, and their ranks are 2 and 3: the difference is put back here.
DEMSAR = [
    (0.763, 0.768, 0.771, 0.798),
    (0.599, 0.591, 0.590, 0.569),
    (0.954, 0.971, 0.968, 0.967),
    (0.628, 0.661, 0.654, 0.657),
    (0.882, 0.888, 0.886, 0.898),
    (0.936, 0.931, 0.916, 0.931),
    (0.661, 0.668, 0.609, 0.685),
    (0.583, 0.583, 0.563, 0.625),
    (0.775, 0.838, 0.866, 0.875),
    (1.000, 1.000, 1.000, 1.000),
    (0.940, 0.962, 0.965, 0.962),
    (0.619, 0.666, 0.614, 0.669),
    (0.972, 0.981, 0.9751, 0.975),
    (0.957, 0.978, 0.946, 0.970),
]
# The 16 configurations of arXiv 2512.24971 on ResNet-50, VGG-19 and MobileNetV2, first CIFAR-10, then CIFAR-100.
ACCURACY = """
88.42 88.38 93.26 93.23 92.03 91.73 92.50 92.41 93.02 62.89 92.19 92.18 93.46 93.45 92.69 92.67
72.24 71.75 76.54 76.12 74.79 74.33 75.57 75.06 76.05 61.33 74.68 74.74 75.69 75.70 74.17 74.19
89.76 87.12 88.90 85.96 90.65 87.78 90.35 88.93 90.14 79.54 89.20 89.41 89.60 89.59 88.44 88.22
76.06 75.67 77.17 76.57 75.85 74.28 76.45 75.90 77.34 66.27 77.81 77.67 77.29 77.32 76.79 76.66
55.89 55.27 58.55 58.38 57.62 54.59 57.72 54.11 65.45 54.42 63.13 63.10 60.75 60.67 61.67 61.50
71.85 65.66 71.33 69.76 71.88 68.66 71.56 68.63 73.10 58.65 69.09 69.00 71.08 70.92 66.86 66.69
"""
MCE = """
100.0 99.6 76.7 77.3 81.3 82.1 81.1 81.6 78.5 201.7 81.2 81.1 76.7 76.7 77.0 76.7
100.0 101.5 92.1 93.5 94.8 96.5 94.3 95.0 92.7 118.9 94.9 94.8 93.2 93.1 98.4 98.4
100.0 112.5 105.1 121.7 96.2 109.3 94.7 103.3 100.5 144.1 99.7 99.0 107.4 106.9 108.2 108.1
100.0 100.4 97.9 98.5 96.7 99.9 96.1 97.1 97.5 121.7 95.5 95.4 95.1 95.4 97.8 98.2
100.0 100.2 96.1 96.3 95.8 98.7 96.5 99.7 87.5 99.7 91.3 91.2 92.4 92.5 91.5 91.5
100.0 110.7 99.9 103.0 97.5 104.1 98.6 103.6 97.3 117.3 104.9 104.8 101.0 101.3 107.9 108.1
"""
ZIPPED = """
90.73 21.92 55.41 16.05 20.01 13.97 16.70 11.48 41.17 21.58 20.91 14.33 29.03 15.84 16.63 11.16
72.85 15.34 44.26 11.75 11.76 9.69 10.19 8.10 26.15 15.25 12.65 9.47 19.00 11.70 10.43 7.73
12.50 3.37 7.71 2.43 3.40 2.16 2.82 1.81 6.72 3.34 3.55 2.31 4.81 2.41 2.63 1.60
91.07 21.43 55.61 15.85 19.63 13.85 16.38 11.27 40.62 21.39 20.08 13.75 28.60 15.84 15.75 10.59
73.24 16.16 44.30 12.19 13.14 10.52 11.16 8.55 28.34 16.16 13.68 10.11 20.35 12.25 10.92 7.92
12.83 3.45 7.92 2.50 3.50 2.21 2.86 1.81 6.81 3.41 3.44 2.17 4.85 2.46 2.49 1.50
"""


def test_the_example_of_demsar() -> None:
    found = ranking(DEMSAR, maximised=True)
    assert [round(rank, 3) for rank in found.mean_ranks] == [3.143, 2.0, 2.893, 1.964]
    # He prints the statistic without the correction for ties: two pairs, three of them and four alike.
    ties = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * (4**3 - 4))
    assert round(found.statistic * ties, 2) == 9.28
    assert round(found.critical_difference, 2) == 1.25
    assert found.groups == ((3, 1, 2, 0),)


def test_at_a_tenth_the_example_falls_into_two_groups() -> None:
    found = ranking(DEMSAR, maximised=True, error=0.1)
    assert round(found.critical_difference, 2) == 1.12
    assert found.groups == ((3, 1, 2), (2, 0))


# Demsar 2006, table 5(a), for 3 to 10 treatments.
@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (0.05, [2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_critical_values(error: float, printed: list[float]) -> None:
    for treatments, expected in enumerate(printed, start=3):
        figures = np.random.default_rng(0).random((6, treatments))
        found = ranking(figures, maximised=True, error=error)
        unit = math.sqrt(treatments * (treatments + 1) / 36)
        assert found.critical_difference / unit == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("table", "maximised", "statistic", "p_value"),
    [(ACCURACY, True, 51.57, 6.6e-6), (MCE, False, 49.85, 1.3e-5), (ZIPPED, False, 87.9, 2.4e-12)],
    ids=["accuracy", "mce", "compression"],
)
def test_the_published_statistics(table: str, maximised: bool, statistic: float, p_value: float) -> None:
    figures = np.array([line.split() for line in table.split("\n") if line], dtype=float)
    found = ranking(figures, maximised=maximised)
    assert found.statistic == pytest.approx(statistic, abs=0.05 if statistic == 87.9 else 0.005)
    assert found.p_value == pytest.approx(p_value, rel=0.03)


def test_a_ranking_by_hand() -> None:
    found = ranking([(1.0, 2.0, 3.0), (1.0, 2.0, 3.0), (1.0, 3.0, 2.0), (1.0, 2.0, 2.0)], maximised=False)
    assert found.mean_ranks == (1.0, 2.375, 2.625)
    upside_down = ranking([(3.0, 2.0, 1.0), (3.0, 2.0, 1.0), (3.0, 1.0, 2.0), (3.0, 2.0, 2.0)], maximised=True)
    assert upside_down == found


def test_treatments_that_differ_from_all_others_are_in_no_group() -> None:
    figures = [(1.0, 50.0 + noise, 50.5 - noise, 100.0) for noise in np.linspace(0, 0.5, 40)]
    assert ranking(figures, maximised=False).groups == ((1, 2),)


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ([(1.0, 2.0, 3.0)], r"at least 2 blocks and 3 treatments, got an array \(1, 3\)"),
        ([(1.0, 2.0), (2.0, 3.0)], r"at least 2 blocks and 3 treatments, got an array \(2, 2\)"),
        ([(1.0, 2.0, math.nan), (1.0, 2.0, 3.0)], "a missing one has no rank"),
        ([(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)], "the treatments are equal in every block"),
    ],
)
def test_what_cannot_be_ranked_is_refused(figures: list[tuple[float, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranking(figures, maximised=True)
