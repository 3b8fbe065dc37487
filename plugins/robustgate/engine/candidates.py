"""The variants that are assessed, with a figure for each objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from robustgate.core.assessments import Candidate, Objective
from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS, SEVERITIES
from robustgate.core.records import REFERENCE, CaseResult, OverallRecord, Results, VariantRecord, is_control
from robustgate.rules.mce import corruption_errors

CELLS = tuple((name, severity) for name in BENCHMARK_CORRUPTIONS for severity in SEVERITIES)

Cell = tuple[str, int]


OBJECTIVES: Mapping[str, Objective] = {
    one.name: one
    for one in (
        Objective(name="accuracy", maximised=True),
        Objective(name="mean_corruption_accuracy", maximised=True),
        Objective(name="mean_domain_accuracy", maximised=True),
        Objective(name="robust_accuracy", maximised=True),
        Objective(name="mce", maximised=False, absolute="mean_corruption_accuracy"),
        Objective(name="mce_rounded", maximised=False, absolute="mean_corruption_accuracy"),
        Objective(name="compression_ratio", maximised=True, absolute="deflated_size"),
        Objective(name="size", maximised=False),
        Objective(name="deflated_size", maximised=False),
        Objective(name="latency", maximised=False),
        Objective(name="memory", maximised=False),
    )
}
"""`robust_accuracy` is that under the worst of all attacks; `mce_rounded` is the mCE as arXiv 2512.24971 prints it."""

USUAL = ("accuracy", "mean_corruption_accuracy", "robust_accuracy", "compression_ratio")


@dataclass(frozen=True, kw_only=True)
class Field:
    """All candidates, and the policies that judged them; `complete` says that nothing is left to be judged.

    `usual` names the objectives that are taken where none are asked for.
    """

    candidates: tuple[Candidate, ...]
    usual: tuple[str, ...]
    policies: tuple[str, ...] = ()
    complete: bool = True


def from_results(results: Results) -> Field:
    """Return the variants of a run."""
    records = {record.name: record for record in results.variants}
    rows: dict[tuple[str, str, str], list[CaseResult]] = {}
    for row in results.cases:
        rows.setdefault((row.model, row.source, row.compression), []).append(row)
    candidates = []
    for overall in results.overall:
        own = rows.get((overall.model, overall.source, overall.compression), [])
        candidates.append(
            Candidate(
                name=overall.name,
                model=overall.model,
                source=overall.source,
                compression=overall.compression,
                is_compressed=overall.compression != REFERENCE and not is_control(overall.compression),
                figures=comparable({**_outcomes(overall, own), **_costs(records.get(overall.name))}),
                green=_green(results, overall.name, own),
            )
        )
    return Field(
        candidates=tuple(candidates),
        usual=tuple(name for name in USUAL if any(one.figures[name] is not None for one in candidates)),
        policies=tuple(policy.name for policy in results.run.policies),
        complete=results.run.complete,
    )


def comparable(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return a figure for each objective, without the last bits that sums of the same numbers differ in: ties tie."""
    known = {name: figures.get(name) for name in OBJECTIVES}
    return {name: None if value is None else float(f"{value:.12g}") for name, value in known.items()}


def _outcomes(overall: OverallRecord, rows: Sequence[CaseResult]) -> dict[str, float | None]:
    attacked = [row for row in rows if row.shift.kind == "adversarial"]
    held = [row.value for row in attacked if row.value is not None and row.n == row.n_total]
    return {
        "accuracy": overall.clean,
        "mean_corruption_accuracy": overall.mean_corruption_accuracy,
        "mean_domain_accuracy": overall.mean_domain_accuracy,
        "robust_accuracy": min(held) if held and len(held) == len(attacked) else None,
        "mce": overall.mce,
        "mce_rounded": None if overall.mce is None else _mce_of_rows(rows),
    }


def _costs(record: VariantRecord | None) -> dict[str, float | None]:
    if record is None:
        return {}
    return {
        "compression_ratio": record.compression_ratio,
        "size": record.size_bytes,
        "deflated_size": record.deflated_bytes,
        "latency": record.latency_ms,
        "memory": record.memory_bytes,
    }


def _mce_of_rows(rows: Sequence[CaseResult]) -> float | None:
    """Return the rounded mCE of a variant that has an mCE: all its cells are then measured in full."""
    own: dict[Cell, float] = {}
    base: dict[Cell, float] = {}
    for row in rows:
        cell = row.shift.corruption, row.shift.severity
        value = row.value if row.compression == REFERENCE else row.reference_value
        if cell in CELLS and row.value is not None and value is not None:
            own[cell], base[cell] = 1 - row.value, 1 - value
    return mean_corruption_error(own, base, rounded_mean)


def rounded_mean(errors: NDArray[np.float64]) -> float:
    """Return the mean of corruption errors, each in whole percent, to a tenth of one, as arXiv 2512.24971 has it."""
    return float(np.round(np.round(100 * errors).mean(), 1)) / 100


def mean_corruption_error(
    own: Mapping[Cell, float], base: Mapping[Cell, float], mean: Callable[[NDArray[np.float64]], float]
) -> float | None:
    """Return the mean corruption error; None where a cell of the benchmark is missing, or it divides by zero."""
    if not (own.keys() >= set(CELLS) and base.keys() >= set(CELLS)):
        return None
    errors, bases = (np.reshape([one[cell] for cell in CELLS], (-1, len(SEVERITIES))) for one in (own, base))
    found = mean(corruption_errors(errors, bases))
    return found if isfinite(found) else None


def _green(results: Results, name: str, rows: Sequence[CaseResult]) -> tuple[str, ...]:
    """Return the policies all of whose rules on a variant hold; one without a rule on it says nothing of it."""
    if any(row.value is None or row.verdict == "error" for row in rows):
        return ()
    about = [finding for row in rows for finding in row.findings]
    about += [finding for finding in results.findings if finding.subject == name]
    green = []
    for policy in results.run.policies:
        passing = {"pass", "waived"} | ({"undecided"} if policy.on_undecided == "pass" else set())
        verdicts = {finding.verdict for finding in about if finding.policy == policy.name}
        if verdicts and verdicts <= passing:
            green.append(policy.name)
    return tuple(green)
