"""Values that cross processes and fill reports: frozen, of the standard library, and they survive JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

ShiftKind = Literal["clean", "domain_shift", "corruption", "adversarial"]
Verdict = Literal["pass", "fail", "undecided", "incomplete", "waived", "error"]

REFERENCE = "none"
CONTROL = "control"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model, trained on a source domain, under a compression: the artifact under test."""

    model: str
    source: str
    compression: str

    @property
    def name(self) -> str:
        """As in test ids: ``resnet18-fp60-amazon``."""
        return f"{self.model}-{self.compression}-{self.source}"

    @property
    def fields(self) -> dict[str, str]:
        """What a rule's `where` may name."""
        return {"model": self.model, "source": self.source, "compression": self.compression}


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What is done to the input distribution."""

    kind: ShiftKind
    name: str
    source: str
    target: str | None = None
    corruption: str | None = None
    severity: int | None = None
    attack: str | None = None
    norm: str | None = None
    eps: float | None = None

    @property
    def phrase(self) -> str:
        """How a sentence names it: ``under pgd (linf, eps 0.004)``."""
        if self.kind == "domain_shift":
            return f"on {self.target}"
        if self.kind == "corruption":
            return f"under {self.corruption}, severity {self.severity}"
        if self.kind == "adversarial":
            return f"under {self.attack} ({self.norm}, eps {self.eps:g})"
        return "on clean images"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A variant under a shift: one measurement, one pytest item, one row in every report."""

    variant: Variant
    shift: Shift

    @property
    def name(self) -> str:
        """Unique in a run: ``resnet18-fp60-amazon-pgd``, ``resnet18-fp60-amazon_to_webcam``."""
        if self.shift.kind == "clean":
            return self.variant.name
        if self.shift.kind == "domain_shift":
            return f"{self.variant.model}-{self.variant.compression}-{self.shift.name}"
        return f"{self.variant.name}-{self.shift.name}"

    @property
    def fields(self) -> dict[str, str]:
        """What a rule's `where` may name; a field that a case does not have is left out, so it never matches."""
        shift = self.shift
        optional = {
            "target": shift.target,
            "corruption": shift.corruption,
            "severity": shift.severity,
            "attack": shift.attack,
            "norm": shift.norm,
        }
        return {
            "name": self.name,
            "kind": shift.kind,
            "shift": shift.name,
            **self.variant.fields,
            **{key: str(value) for key, value in optional.items() if value is not None},
        }


WHERE_VARIANT = ("model", "source", "compression")
WHERE_CASE = ("name", "kind", "shift", *WHERE_VARIANT, "target", "corruption", "severity", "attack", "norm")


def matches(where: Mapping[str, str], fields: Mapping[str, str]) -> bool:
    """Say whether every pattern (fnmatch) of `where` matches its field; a missing field matches nothing."""
    return all(key in fields and fnmatchcase(fields[key], pattern) for key, pattern in where.items())


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One rule applied to one case or variant. Fractions in [0, 1] for accuracies, bytes for sizes."""

    rule: str
    subject: str
    metric: str
    verdict: Verdict
    value: float
    low: float
    high: float
    limit: float
    limit_kind: Literal["min", "max", "max_drop"]
    against: str | None = None
    waiver: str | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """A case, measured and judged: the row of results.json."""

    case: Case
    metric: str
    verdict: Verdict
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    n_total: int = 0
    correct: int = 0
    reference_value: float | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    findings: tuple[Finding, ...] = ()
    most_lost: tuple[tuple[str, float, float], ...] = ()
    details: Mapping[str, Any] | None = None
    message: str = ""
    seconds: float = 0.0
    cached: bool = False


SEVERITY_OF_VERDICTS: tuple[Verdict, ...] = ("pass", "waived", "undecided", "incomplete", "fail", "error")


def worst(verdicts: list[Verdict]) -> Verdict:
    """Return the worst verdict; of none at all, ``incomplete``: nothing measured is never green."""
    return max(verdicts, key=SEVERITY_OF_VERDICTS.index, default="incomplete")
