"""The baseline: the outcomes of an accepted run, sample by sample, that a later run's cases are compared with."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from robustgate.core.errors import BaselineError, nearest
from robustgate.core.files import write_whole
from robustgate.core.records import Case, CaseResult, Results
from robustgate.engine.packed import unpack
from robustgate.engine.results import key, shown_path

BASELINE_SCHEMA = "robustgate/baseline/1"
# A masking case asks each variant about samples of its own, a stability case about its own answers.
WITHOUT_STANDARD = ("masking", "stability")
VERSIONS = ("robustgate", "torch")
MOST_PROBLEMS = 10
HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The run that was accepted."""

    id: str
    started: str
    seed: int
    config_sha256: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Standard:
    """An accepted case, as in its row of results.json: `right` holds the outcomes of its first `n` samples drawn.

    `detail` is its shift's: an attack of another budget asks another question.
    """

    data: str
    detail: str | None
    n: int
    n_total: int
    correct: int
    right: str

    @cached_property
    def outcomes(self) -> NDArray[np.bool_]:
        """Which samples (n,) came out right, in the order of the draw. Raises ValueError where the text is damaged."""
        outcomes = unpack(self.right, self.n)
        if (count := int(outcomes.sum())) != self.correct or not 0 < self.n <= self.n_total:
            raise ValueError(
                f"expected {self.correct:,} right of the first {self.n:,} of {self.n_total:,} samples, got {count:,}"
            )
        return outcomes


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The standards of a run, by ``<shift kind>/<case's name>``."""

    run: Origin
    cases: dict[str, Standard]

    @classmethod
    def of(cls, results: Results) -> Baseline:
        """Return the baseline that a run makes, of the cases that it measured. Raises BaselineError."""
        rows = [row for row in results.cases if row.value is not None and row.shift.kind not in WITHOUT_STANDARD]
        run = results.run
        origin = Origin(
            id=run.id,
            started=run.started,
            seed=run.seed,
            config_sha256=run.config_sha256,
            versions={name: run.versions[name] for name in VERSIONS if name in run.versions},
        )
        return cls(run=origin, cases={place(row): standard_of(row) for row in rows})

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read a baseline. Raises BaselineError where the file is missing, damaged or of another schema."""
        shown = shown_path(path)
        try:
            content = json.loads(path.read_bytes(), object_pairs_hook=_once)
        except FileNotFoundError as error:
            raise BaselineError(
                f"no baseline at {shown}: accept one with `robustgate baseline accept robustgate-report/results.json`"
            ) from error
        except OSError as error:
            raise BaselineError(f"{shown}: expected a baseline, cannot read it: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise BaselineError(f"{shown}: expected a whole baseline, the file is damaged: {error}") from error
        found = content.pop("schema", None) if isinstance(content, dict) else None
        if found != BASELINE_SCHEMA:
            raise BaselineError(f"{shown}: schema: expected {BASELINE_SCHEMA!r}, got {found!r}")
        try:
            baseline = _ADAPTER.validate_json(json.dumps([content]))[0]
        except ValidationError as error:
            raise BaselineError(_message(shown, [_problem(one) for one in error.errors(include_url=False)])) from error
        if problems := [problem for name, case in baseline.cases.items() if (problem := _damage(name, case))]:
            raise BaselineError(_message(shown, problems))
        return baseline

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all; a line for each case, in the order of their names, for git's sake."""
        cases = [f"  {json.dumps(name)}: {json.dumps(asdict(self.cases[name]))}" for name in sorted(self.cases)]
        lines = [
            "{",
            f' "schema": {json.dumps(BASELINE_SCHEMA)},',
            f' "run": {json.dumps(asdict(self.run))},',
            ' "cases": {',
            ",\n".join(cases),
            " }",
            "}",
        ]
        write_whole(path, "\n".join(lines) + "\n")

    def unused(self, planned: Collection[tuple[str, str]]) -> list[str]:
        """Return the cases that are no longer among those planned, which are given by shift kind and name."""
        return sorted(self.cases.keys() - {f"{kind}/{name}" for kind, name in planned})

    def standard(self, case: Case, data: str, seed: int, planned: Collection[tuple[str, str]]) -> Standard:
        """Return what a case is compared with: the same case on the same data, drawn in the same order.

        `data` is the hash of the case's data, `seed` the run's. Raises BaselineError, which says what differs.
        """
        standard = self.cases.get(place(case))
        if standard is None:
            raise BaselineError(self._unknown(case, data, planned))
        compared = (
            ("on other data", data, standard.data),
            ("under another shift", case.shift.detail, standard.detail),
            ("in the order of another seed", seed, self.run.seed),
        )
        for what, expected, got in compared:
            if expected != got:
                raise BaselineError(
                    f"the baseline, of run {self.run.id}, was measured {what}: expected {_brief(expected)}, "
                    f"got {_brief(got)}; accept a new one"
                )
        return standard

    def _unknown(self, case: Case, data: str, planned: Collection[tuple[str, str]]) -> str:
        """Return the message for a case that the baseline does not hold, and what it may have been called there."""
        text = f"the baseline, of run {self.run.id}, holds no case {place(case)!r}"
        gone = [name for name in self.unused(planned) if name.startswith(f"{case.shift.kind}/")]
        same = [name for name in gone if self.cases[name].data == data and self.cases[name].detail == case.shift.detail]
        if len(same) == 1:
            return f"{text}: was it renamed from {same[0]!r}? Accept a new one"
        return f"{text}{nearest(place(case), same or gone)}: accept a new one"


class Standards:
    """What a run's cases are compared with; the file is read once, when the first case asks for it."""

    def __init__(self, path: Path, seed: int, planned: Collection[tuple[str, str]]) -> None:
        self.path = path
        self.seed = seed
        self.planned = planned

    def of(self, case: Case, data: str) -> NDArray[np.bool_]:
        """Return which of a case's samples (n,) were right in the baseline, in the order of the draw.

        They may be fewer than the case has, or more. Raises BaselineError where there is nothing to compare with.
        """
        return self._baseline.standard(case, data, self.seed, self.planned).outcomes

    @cached_property
    def _baseline(self) -> Baseline:
        return Baseline.load(self.path)


def place(case: Case | CaseResult) -> str:
    """Return what a case is called in a baseline."""
    return "/".join(key(case))


def unused(path: Path, results: Results) -> str:
    """Return a warning of what a baseline holds that a run did not plan; nothing where there is none, or no file."""
    if not path.exists():
        return ""
    try:
        left = Baseline.load(path).unused({key(row) for row in results.cases})
    except BaselineError as error:
        return str(error)
    cases = "1 case that is" if len(left) == 1 else f"{len(left):,} cases that are"
    return f"{shown_path(path)} holds {cases} no longer planned, {left[0]} among them" if left else ""


def standard_of(row: CaseResult) -> Standard:
    """Return the outcomes of a case that was measured. Raises BaselineError where they are damaged, or not there."""
    if row.data is None or row.right is None:
        raise BaselineError(
            f"cases: {place(row)}: expected `data` and `right`, its outcomes, got none: the run is of an "
            "older robustgate; run it again"
        )
    standard = Standard(
        data=row.data, detail=row.shift.detail, n=row.n, n_total=row.n_total, correct=row.correct, right=row.right
    )
    if problem := _damage(place(row), standard):
        raise BaselineError(problem)
    return standard


def _brief(value: str | int | None) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:8]}..." if HASH.fullmatch(text) else text


def _damage(name: str, standard: Standard) -> str:
    try:
        _ = standard.outcomes
    except ValueError as error:
        return f"cases: {name}: {error}"
    return ""


# Pydantic takes no configuration for a bare standard dataclass, but hands a container's down to those within.
_ADAPTER = TypeAdapter(tuple[Baseline], config=ConfigDict(extra="forbid", strict=True))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys stand there once: a merge in git may leave a case twice."""
    counts = Counter(name for name, _ in pairs)
    if len(counts) < len(pairs):
        raise ValueError(f"key {counts.most_common(1)[0][0]!r} stands twice")
    return dict(pairs)


def _problem(detail: Any) -> str:
    where = ": ".join(str(part) for part in detail["loc"][1:]) or "top level"
    got = json.dumps(detail["input"])
    return f"{where}: {detail['msg']}, got {got if len(got) <= 60 else f'{got[:57]}...'}"


def _message(heading: str, problems: list[str]) -> str:
    count = len(problems)
    rest = [f"and {count - MOST_PROBLEMS:,} more"] if count > MOST_PROBLEMS else []
    lines = [f"{heading}: {count:,} mistake{'s' if count != 1 else ''}", *problems[:MOST_PROBLEMS], *rest]
    return "\n  ".join(lines)
