"""Whether gradients can be trusted: the checks for masking, and how files without a gradient were attacked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robustgate.core.records import MASKED_SHARE, CaseResult, Finding, Results
from robustgate.reports import figures
from robustgate.reports.details import FIGURES, accuracies
from robustgate.reports.view import STANDING, STANDINGS, Standing, shift_label, standing, variant_label

PREFIX = "masking: "  # of the rule that a check's finding names
# What each check asks. A sound gradient makes it a small share.
ASKED = {
    "unbounded budget": "samples that stand at a budget that holds every image",
    "more steps": "samples that stand under more steps, and fell under fewer",
    "gradient-free": "samples that an attack without gradients fells, and PGD does not",
    "monotone": "samples that stand at a budget, and fell at a smaller one",
    "loss scale": "samples that fall once the scale of the logits is out of the loss",
    "zero gradient": "samples at which the gradient is exactly zero",
}


@dataclass(frozen=True, kw_only=True)
class Check:
    """How a check came out; `told` is its finding in words."""

    standing: Standing
    share: str
    told: str


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A case of checks, of that `index` among the results': a check under each heading, or why there is none."""

    variant: str
    budget: str
    index: int
    standing: Standing
    checks: tuple[Check | None, ...]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """A case in which a file without a gradient of its own was attacked: accuracies under FIGURES, and the case's."""

    variant: str
    shift: str
    index: int
    cells: tuple[str, ...]
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class MaskingChecks:
    """All of a run's: `names` head the checks, `limits` are the shares above which a check fails."""

    names: tuple[str, ...]
    limits: tuple[str, ...]
    rows: tuple[Checked, ...]
    files: tuple[Attacked, ...]

    @property
    def was_looked_for(self) -> bool:
        """Whether anything was checked."""
        return any(row.checks for row in self.rows)


def masking_checks(results: Results) -> MaskingChecks | None:
    """Return what there is to say of gradients; None of a run without attacks."""
    kinds = {case.shift.kind for case in results.cases}
    if not kinds & {"adversarial", "masking"}:
        return None
    cases = [(index, case) for index, case in enumerate(results.cases) if case.shift.kind == "masking"]
    findings = [finding for _, case in cases for finding in _checks(case)]
    names = tuple(dict.fromkeys(_name(finding) for finding in findings))
    return MaskingChecks(
        names=names,
        limits=tuple(dict.fromkeys(figures.percent(finding.limit) for finding in findings)),
        rows=tuple(_checked(index, case, names) for index, case in cases),
        files=tuple(_attacked(index, case) for index, case in enumerate(results.cases) if accuracies(case, "figures")),
    )


def _checks(case: CaseResult) -> list[Finding]:
    return [finding for finding in case.findings if finding.metric == MASKED_SHARE]


def _name(finding: Finding) -> str:
    return finding.rule.removeprefix(PREFIX)


def _checked(index: int, case: CaseResult, names: Sequence[str]) -> Checked:
    findings = _checks(case)
    by_name = {name: [finding for finding in findings if _name(finding) == name] for name in names}
    return Checked(
        variant=variant_label(case),
        budget=case.shift.detail or case.shift.name,
        index=index,
        standing=standing(case),
        checks=tuple(_worst(by_name[name]) for name in names) if findings else (),
        reason="" if findings else _reason(case),
    )


def _worst(findings: Iterable[Finding]) -> Check | None:
    """Return a check that several policies may have judged, as the hardest of them does."""
    kinds = [(STANDING[finding.verdict], finding) for finding in findings]
    if not kinds:
        return None
    kind, finding = min(kinds, key=lambda pair: STANDINGS.index(pair[0]))
    share = figures.NOTHING if finding.value is None else figures.percent(finding.value)
    return Check(standing=kind, share=share, told=finding.message)


def _reason(case: CaseResult) -> str:
    reason = case.details.get("no_gradient")
    if isinstance(reason, str):
        return f"no gradient that could be masked: {reason}"
    return case.message or ("no check was judged" if case.selected else STANDING["not selected"].meaning)


def _attacked(index: int, case: CaseResult) -> Attacked:
    found, reason = accuracies(case, "figures"), case.details.get("no_gradient")
    return Attacked(
        variant=variant_label(case),
        shift=shift_label(case.shift),
        index=index,
        cells=tuple(figures.percent(found[name]) if name in found else figures.NOTHING for name in FIGURES),
        value=figures.NOTHING if case.value is None else figures.percent(case.value),
        reason=reason if isinstance(reason, str) else "",
    )
