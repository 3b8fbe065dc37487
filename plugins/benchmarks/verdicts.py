"""How often a verdict is wrong, and how many samples it takes, by simulation.

    python plugins/benchmarks/verdicts.py [--runs 10000] [--sizes 281 2000 10000] [--json FILE]

A network of accuracy 0.85, and a compressed one that disagrees with its reference on 6 % of the samples and loses
2 points, are judged against limits that they meet exactly, miss or clear by one sample, or by 2, 5 and 10 points. A
verdict is wrong if it is `pass` beyond the limit or `fail` within it; to stay undecided is not wrong. Prints tables of
wrong verdicts, samples used and undecided runs; exits 1 where a figure asked for is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from robustgate.statistics.paired import PairedCounts, drop_interval, mcnemar_p
from robustgate.statistics.proportion import clopper_pearson
from robustgate.statistics.sequential import certain_bounds, decided_at, looks

Kind = Literal["accuracy", "drop"]
CONFIDENCES = (0.95, 0.99)
ACCURACY, LOST, GAINED = 0.85, 0.04, 0.02
# By how much the truth clears the limit: points, or samples where they say so.
MARGINS = ("-10", "-5", "-2", "-1 sample", "0", "+1 sample", "+2", "+5", "+10")
# Of 10,000 samples at confidence 0.99, for an accuracy: the largest median share used at these margins.
SAVINGS = {"-5": 0.06, "+5": 0.06, "-2": 0.30, "+2": 0.30}
SAVINGS_SIZE, SAVINGS_CONFIDENCE = 10_000, 0.99
# Values drawn at once.
ROOM = 2**21


@dataclass(frozen=True)
class Row:
    """One procedure on one limit: shares of the runs, and the median share of the samples that they used."""

    kind: Kind
    procedure: str
    n: int
    confidence: float
    margin: str
    wrong: float
    undecided: float
    used: float

    @property
    def line(self) -> tuple[str, str, int, float]:
        """What the row shares with those of the other margins."""
        return self.kind, self.procedure, self.n, self.confidence

    @property
    def is_kept(self) -> bool:
        """Whether it is as seldom wrong, and as sparing, as is asked for."""
        allowed = 0.0 if self.procedure == "certain" else 1 - self.confidence + 1e-12
        asked = self.kind == "accuracy" and self.procedure == "confident, test set"
        asked &= (self.n, self.confidence) == (SAVINGS_SIZE, SAVINGS_CONFIDENCE)
        return self.wrong <= allowed and (not asked or self.used <= SAVINGS.get(self.margin, 1.0))


@dataclass(frozen=True)
class Outcomes:
    """What one procedure did in some runs: after how many samples, and which verdict (neither: undecided)."""

    used: NDArray[np.int64]
    passed: NDArray[np.bool_]
    failed: NDArray[np.bool_]


def population(kind: Kind, n: int) -> NDArray[np.int8]:
    """Return the outcomes of n samples: right or wrong, or +1 for gained and -1 for lost; a good mean is a high one."""
    if kind == "accuracy":
        return (np.arange(n) < round(ACCURACY * n)).astype(np.int8)
    lost, gained = round(LOST * n), round(GAINED * n)
    return np.repeat(np.array([-1, 1, 0], dtype=np.int8), [lost, gained, n - lost - gained])


def steps(n: int) -> dict[str, int]:
    """Return the margins in samples."""
    return {
        margin: int(margin.split()[0]) if "sample" in margin else round(int(margin) / 100 * n) for margin in MARGINS
    }


def simulate(kind: Kind, n: int, runs: int, seed: int = 0) -> Iterator[Row]:
    """Yield the rows of all procedures, margins and confidences."""
    pool, draws = population(kind, n), np.random.default_rng([seed, n, len(kind)])
    total = int(pool.sum())
    found: dict[tuple[str, float, str], list[Outcomes]] = {}
    for start in range(0, runs, ROOM // n):
        size = min(ROOM // n, runs - start)
        orders = draws.permuted(np.tile(pool, (size, 1)), axis=1)
        samples = pool[draws.integers(n, size=(size, n))]
        for margin, step in steps(n).items():
            limit = (total - step) / n
            found.setdefault(("certain", 1.0, margin), []).append(curtailed(kind, orders, limit))
            for confidence in CONFIDENCES:
                for procedure, outcomes in (
                    ("confident, test set", sequential(kind, orders, limit, confidence, total=n)),
                    ("confident, population", sequential(kind, samples, limit, confidence, total=None)),
                    ("in full, population", in_full(kind, samples, limit, confidence)),
                ):
                    found.setdefault((procedure, confidence, margin), []).append(outcomes)
    for (procedure, confidence, margin), parts in found.items():
        used, passed, failed = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("used", "passed", "failed")
        )
        yield Row(
            kind=kind,
            procedure=procedure,
            n=n,
            confidence=confidence,
            margin=margin,
            wrong=float((failed if steps(n)[margin] >= 0 else passed).mean()),
            undecided=float((~passed & ~failed).mean()),
            used=float(np.median(used)) / n,
        )


def sequential(kind: Kind, values: NDArray[np.int8], limit: float, confidence: float, *, total: int | None) -> Outcomes:
    """Stop at the first look at which the confidence sequence lies on one side of the limit."""
    n, places = values.shape[1], np.array(looks(values.shape[1]))
    at, above = decided_at(values, limit, confidence, least=least_of(kind), most=1, total=total)
    is_decided = at <= n
    used = places[np.searchsorted(places, np.minimum(at, n))]
    return Outcomes(used=used, passed=is_decided & above, failed=is_decided & ~above)


def curtailed(kind: Kind, values: NDArray[np.int8], limit: float) -> Outcomes:
    """Stop at the first look at which the samples that remain cannot turn the verdict."""
    n, places = values.shape[1], np.array(looks(values.shape[1]))
    lows, highs = (ends[:, places - 1] for ends in certain_bounds(values, least=least_of(kind), most=1, total=n))
    first = np.argmax((lows >= limit) | (highs < limit), axis=1)  # the last look, at least, decides
    passed = lows[np.arange(len(values)), first] >= limit
    return Outcomes(used=places[first], passed=passed, failed=~passed)


def in_full(kind: Kind, values: NDArray[np.int8], limit: float, confidence: float) -> Outcomes:
    """Measure everything, and judge by the interval of a sample of fixed size."""
    n = values.shape[1]
    counts = zip((values < 0).sum(axis=1).tolist(), (values > 0).sum(axis=1).tolist(), strict=True)
    ends = np.array([fixed_interval(kind, n, lost, gained, confidence) for lost, gained in counts])
    return Outcomes(used=np.full(len(values), n), passed=ends[:, 0] >= limit, failed=ends[:, 1] < limit)


@cache
def fixed_interval(kind: Kind, n: int, lost: int, gained: int, confidence: float) -> tuple[float, float]:
    """Return the interval of the mean: Clopper-Pearson's of the accuracy, Tango's of the drop with its sign turned."""
    if kind == "accuracy":
        exact = clopper_pearson(gained, n, confidence)
        return exact.low, exact.high
    score = drop_interval(PairedCounts(n=n, lost=lost, gained=gained), confidence, corrected=True)
    return -score.high, -score.low


def least_of(kind: Kind) -> int:
    """Return the worst outcome of one sample."""
    return 0 if kind == "accuracy" else -1


@dataclass(frozen=True)
class Power:
    """With what probability a drop of 2 points is seen on 1,000 samples by a one-sided test at 0.05."""

    disagreement: float
    paired_exact: float
    paired_mid_p: float
    unpaired: float


def power(
    disagreement: float, *, n: int = 1000, drop: float = 0.02, error: float = 0.05, accuracy: float = 0.6
) -> Power:
    """Return the power of McNemar's test by enumeration, and of the z-test that ignores the pairs, near `accuracy`."""
    lost_share = (disagreement + drop) / 2 / disagreement
    seen = {"exact": 0.0, "mid_p": 0.0}
    for discordant in range(int(stats.binom.isf(1e-12, n, disagreement)) + 1):
        lost = np.arange(discordant // 2 + 1, discordant + 1)
        chances = stats.binom.pmf(discordant, n, disagreement) * stats.binom.pmf(lost, discordant, lost_share)
        for method in ("exact", "mid_p"):
            values = [one_sided(n, int(one), discordant - int(one), method) for one in lost]
            seen[method] += float(chances[np.array(values) <= error].sum())
    variance = accuracy * (1 - accuracy) + (accuracy - drop) * (1 - accuracy + drop)
    unpaired = stats.norm.sf(stats.norm.isf(error) - drop / np.sqrt(variance / n))
    return Power(disagreement, seen["exact"], seen["mid_p"], float(unpaired))


def one_sided(n: int, lost: int, gained: int, method: Literal["exact", "mid_p"]) -> float:
    """Return the p-value of "no drop" where more are lost than gained: half of the two-sided one."""
    return mcnemar_p(PairedCounts(n=n, lost=lost, gained=gained), method) / 2


def show(rows: list[Row]) -> None:
    """Print a table for each figure: a line for each procedure, a column for each margin."""
    lines = list(dict.fromkeys(row.line for row in rows))
    for title, name in (("wrong verdicts", "wrong"), ("samples used (median)", "used"), ("undecided", "undecided")):
        print(f"\n{title}, %, by how far the truth clears the limit (points)")
        print(f"{'':<9}{'procedure':<23}{'n':>6} {'conf.':>6}" + "".join(f"{margin:>10}" for margin in MARGINS))
        for line in lines:
            cells = {row.margin: f"{100 * getattr(row, name):.2f}" for row in rows if row.line == line}
            marks = {row.margin: "" if row.is_kept else "!" for row in rows if row.line == line}
            kind, procedure, n, confidence = line
            print(
                f"{kind:<9}{procedure:<23}{n:>6} {confidence:>6g}"
                + "".join(f"{cells[margin] + marks[margin]:>10}" for margin in MARGINS)
            )


def main() -> int:
    """Simulate, print, and say by the exit status whether every figure asked for is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[281, 2000, 10_000])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    began, rows = time.perf_counter(), []
    for kind in ("accuracy", "drop"):
        for n in arguments.sizes:
            rows.extend(simulate(kind, n, arguments.runs))
    rows.sort(key=lambda row: (row.procedure, row.kind, row.n, row.confidence))
    show(rows)
    powers = [power(disagreement) for disagreement in (0.03, 0.06, 0.12, 0.20)]
    print("\npower, for a drop of 2 points, 1,000 samples, one-sided error 0.05 (unpaired: from an accuracy of 0.60)")
    for one in powers:
        print(
            f"disagreement {one.disagreement:>4.0%}: paired, exact {one.paired_exact:.2f}, "
            f"mid-p {one.paired_mid_p:.2f}, unpaired {one.unpaired:.2f}"
        )
    missed = [row for row in rows if not row.is_kept]
    for row in missed:
        print(f"MISSED: {row}")
    print(
        f"\n{arguments.runs:,} runs of each of {len(rows)} settings in {time.perf_counter() - began:.0f} s: "
        f"{len(missed)} figures missed"
    )
    if arguments.json:
        report = {
            "runs": arguments.runs,
            "rows": [asdict(row) for row in rows],
            "power": [asdict(one) for one in powers],
        }
        arguments.json.write_text(json.dumps(report, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
