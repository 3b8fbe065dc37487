"""The CIFAR-10 tables of arXiv 2512.24971, from its raw errors through our own functions, to the printed digit."""

from __future__ import annotations

import csv
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tabled_shares import BENCHMARK, CLEAN, TabledShares

from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS
from robustgate.core.records import Shift, VariantRecord
from robustgate.rules.compression_ratio import CompressionRatio
from robustgate.rules.mce import Mce, corruption_errors
from robustgate.rules.mean_corruption_accuracy import MeanCorruptionAccuracy
from robustgate.rules.relative_mce import RelativeMce
from robustgate.rules.retention import Retention

# Clean and corruption accuracy, mCE and relative mCE with each CE rounded, mCE unrounded, compression, zipped MiB.
PRINTED = """
resnet50 Original 88.42 63.39 100.0 100.0 100.00 1.00 90.73
resnet50 Int8 88.38 63.44 99.6 98.8 99.64 4.14 21.92
resnet50 Pruning 93.26 70.75 76.7 87.5 76.51 1.64 55.41
resnet50 Pruning+Int8 93.23 70.50 77.3 88.2 77.16 5.65 16.05
resnet50 Clustering 92.03 70.02 81.3 89.3 81.33 4.53 20.01
resnet50 Clustering+Int8 91.73 69.74 82.1 88.5 82.04 6.50 13.97
resnet50 P+C 92.50 70.07 81.1 91.5 81.07 5.43 16.70
resnet50 P+C+Int8 92.41 69.85 81.6 91.8 81.70 7.90 11.48
resnet50 QAT 93.02 70.18 78.5 89.9 78.57 2.20 41.17
resnet50 QAT+Int8 62.89 36.01 201.7 126.6 201.59 4.20 21.58
resnet50 CQAT 92.19 69.90 81.2 91.1 81.19 4.34 20.91
resnet50 CQAT+Int8 92.18 69.94 81.1 90.7 81.04 6.33 14.33
resnet50 PQAT 93.46 70.64 76.7 88.2 76.57 3.12 29.03
resnet50 PQAT+Int8 93.45 70.64 76.7 88.0 76.54 5.73 15.84
resnet50 PCQAT 92.69 71.36 77.0 86.1 76.89 5.46 16.63
resnet50 PCQAT+Int8 92.67 71.40 76.7 85.8 76.75 8.13 11.16
vgg19 Original 72.24 52.39 100.0 100.0 100.00 1.00 72.85
vgg19 Int8 71.75 51.79 101.5 101.7 101.52 4.75 15.34
vgg19 Pruning 76.54 55.34 92.1 101.1 92.02 1.65 44.26
vgg19 Pruning+Int8 76.12 54.79 93.5 103.3 93.45 6.20 11.75
vgg19 Clustering 74.79 54.16 94.8 96.6 94.80 6.20 11.76
vgg19 Clustering+Int8 74.33 53.49 96.5 99.1 96.44 7.52 9.69
vgg19 P+C 75.57 54.50 94.3 102.0 94.38 7.15 10.19
vgg19 P+C+Int8 75.06 54.27 95.0 101.1 95.11 8.99 8.10
vgg19 QAT 76.05 55.27 92.7 101.5 92.70 2.79 26.15
vgg19 QAT+Int8 61.33 44.61 118.9 97.9 118.86 4.78 15.25
vgg19 CQAT 74.68 54.26 94.9 98.3 94.88 5.76 12.65
vgg19 CQAT+Int8 74.74 54.32 94.8 98.3 94.75 7.70 9.47
vgg19 PQAT 75.69 55.14 93.2 100.3 93.16 3.83 19.00
vgg19 PQAT+Int8 75.70 55.19 93.1 100.0 93.04 6.22 11.70
vgg19 PCQAT 74.17 52.73 98.4 105.6 98.37 6.98 10.43
vgg19 PCQAT+Int8 74.19 52.75 98.4 105.5 98.31 9.43 7.73
mobilenet_v2 Original 89.76 61.59 100.0 100.0 100.00 1.00 12.50
mobilenet_v2 Int8 87.12 58.30 112.5 105.1 112.48 3.71 3.37
mobilenet_v2 Pruning 88.90 59.53 105.1 103.5 105.15 1.62 7.71
mobilenet_v2 Pruning+Int8 85.96 55.29 121.7 113.8 121.83 5.14 2.43
mobilenet_v2 Clustering 90.65 63.29 96.2 99.1 96.21 3.68 3.40
mobilenet_v2 Clustering+Int8 87.78 59.25 109.3 105.5 109.26 5.78 2.16
mobilenet_v2 P+C 90.35 63.38 94.7 95.3 94.93 4.44 2.82
mobilenet_v2 P+C+Int8 88.93 60.68 103.3 101.5 103.34 6.90 1.81
mobilenet_v2 QAT 90.14 61.42 100.5 101.8 100.48 1.86 6.72
mobilenet_v2 QAT+Int8 79.54 49.91 144.1 118.4 144.23 3.74 3.34
mobilenet_v2 CQAT 89.20 62.11 99.7 97.5 99.55 3.52 3.55
mobilenet_v2 CQAT+Int8 89.41 62.26 99.0 98.5 99.11 5.40 2.31
mobilenet_v2 PQAT 89.60 59.28 107.4 110.4 107.31 2.60 4.81
mobilenet_v2 PQAT+Int8 89.59 59.43 106.9 109.3 106.73 5.19 2.41
mobilenet_v2 PCQAT 88.44 59.35 108.2 106.9 108.27 4.76 2.63
mobilenet_v2 PCQAT+Int8 88.22 59.39 108.1 105.4 108.15 7.83 1.60
"""
ROWS = [(name, network, *figures) for network, name, *figures in (line.split() for line in PRINTED.split("\n") if line)]
Key = tuple[str, str]


@cache
def published(folder: Path) -> tuple[dict[Key, int], dict[Key, dict[Shift, float]]]:
    """Return the zipped bytes of every configuration, and its accuracy under every shift."""
    sizes: dict[Key, int] = {}
    accuracies: dict[Key, dict[Shift, float]] = {}
    cells = {(shift.corruption, shift.severity): shift for shift in BENCHMARK}
    with (folder / "compression_on_cifar10c.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            key = row["architecture"], row["configuration"]
            sizes[key] = int(row["zip_bytes"])
            held = accuracies.setdefault(key, {CLEAN: 1 - float(row["clean_error"])})
            held[cells[row["corruption"], int(row["severity"])]] = 1 - float(row["error"])
    return sizes, accuracies


def shares(folder: Path, network: str, name: str) -> TabledShares:
    accuracies = published(folder)[1]
    return TabledShares(ours=accuracies[network, name], theirs=accuracies[network, "Original"])


def errors(folder: Path, network: str, name: str) -> tuple[np.ndarray, float]:
    """Return the errors (15, 5) and the clean one, as they stand in the file but for the order."""
    held = published(folder)[1][network, name]
    return 1 - np.array([held[shift] for shift in BENCHMARK]).reshape(15, 5), 1 - held[CLEAN]


def printed(value: float, figure: str) -> str:
    """Return a value with the digits of a printed figure."""
    digits = Decimal(1).scaleb(-len(figure.partition(".")[2]))
    return str(Decimal(repr(round(float(value), 9))).quantize(digits, ROUND_HALF_EVEN))


def record(size: int) -> VariantRecord:
    names = dict.fromkeys(("name", "model", "source", "compression", "artifact_sha256"), "")
    return VariantRecord(
        **names,
        format="litert",
        parameters=None,
        nonzero_parameters=None,
        size_bytes=0,
        deflated_bytes=size,
        seconds_to_build=0.0,
    )


def test_the_file_holds_all_rows_of_the_tables(real_data: Path) -> None:
    sizes, accuracies = published(real_data)
    assert len(ROWS) == 48
    assert {(network, name) for name, network, *_ in ROWS} == sizes.keys() == accuracies.keys()
    assert all(len(held) == 76 for held in accuracies.values())


@pytest.mark.parametrize(
    ("name", "network", "clean", "corrupted", "mce", "relative", "unrounded", "ratio", "size"),
    ROWS,
    ids=[f"{network}-{name}" for name, network, *_ in ROWS],
)
def test_a_row(
    real_data: Path,
    name: str,
    network: str,
    clean: str,
    corrupted: str,
    mce: str,
    relative: str,
    unrounded: str,
    ratio: str,
    size: str,
) -> None:
    sizes, accuracies = published(real_data)
    given = shares(real_data, network, name)
    assert printed(100 * accuracies[network, name][CLEAN], clean) == clean
    (held,) = MeanCorruptionAccuracy(min=0.5).figures(given, BENCHMARK)
    assert printed(100 * held[0], corrupted) == corrupted
    (whole,) = Mce(max=1.0).figures(given, BENCHMARK)
    assert printed(100 * whole[0], unrounded) == unrounded
    # The authors round each corruption's error to a whole percent before they take the mean.
    (ours, ours_clean), (base, base_clean) = errors(real_data, network, name), errors(real_data, network, "Original")
    each = 100 * corruption_errors(ours, base)
    assert each.mean() == pytest.approx(100 * whole[0], abs=1e-9)
    assert printed(np.round(each).mean(), mce) == mce
    added = 100 * corruption_errors(ours - ours_clean, base - base_clean)
    assert printed(np.round(added).mean(), relative) == relative
    figure, floor = RelativeMce(max=1.0, floor=0.5).figures(given, (CLEAN, *BENCHMARK))
    assert 100 * figure[0] == pytest.approx(added.mean(), abs=1e-9)
    assert floor[0] == pytest.approx(held[0])
    compression = CompressionRatio(min=1.0).value(record(sizes[network, name]), record(sizes[network, "Original"]))
    assert compression is not None
    assert printed(compression, ratio) == ratio
    assert printed(sizes[network, name] / 2**20, size) == size


@pytest.mark.parametrize(
    ("network", "name", "retention"),
    [
        ("resnet50", "Original", "0.717"),
        ("resnet50", "Pruning", "0.759"),
        ("resnet50", "QAT+Int8", "0.573"),
        ("resnet50", "PCQAT+Int8", "0.770"),
        ("vgg19", "Original", "0.725"),
        ("vgg19", "PCQAT+Int8", "0.711"),
        ("mobilenet_v2", "Original", "0.686"),
        ("mobilenet_v2", "Int8", "0.669"),
        ("mobilenet_v2", "Pruning", "0.670"),
    ],
)
def test_retention(real_data: Path, network: str, name: str, retention: str) -> None:
    figure, _ = Retention(min=0.5, floor=0.5).figures(shares(real_data, network, name), (CLEAN, *BENCHMARK))
    assert printed(figure[0], retention) == retention


def test_the_cells_stand_in_the_canonical_order() -> None:
    assert [shift.corruption for shift in BENCHMARK[::5]] == list(BENCHMARK_CORRUPTIONS)
