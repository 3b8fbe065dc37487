"""What every report shows, in words and figures, before it is HTML or Markdown."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass

from robustgate.core.records import (
    REFERENCE,
    CaseResult,
    Finding,
    OverallRecord,
    Results,
    Shift,
    VariantRecord,
    Verdict,
)
from robustgate.reports import details, figures, policies


@dataclass(frozen=True)
class Standing:
    """How a case or finding stands. A verdict, or one of the two that say why there is none worth the name."""

    word: str
    mark: str
    meaning: str

    @property
    def slug(self) -> str:
        """The word as a CSS class."""
        return self.word.replace(" ", "-")


# From worst to best.
STANDINGS = (
    Standing("error", "!", "could not be measured or judged"),
    Standing("fail", "✗", "a rule is broken"),
    Standing("incomplete", "…", "planned and not measured"),
    Standing("undecided", "?", "the data cannot tell at the confidence asked"),
    Standing("waived", "~", "a rule is broken, under a waiver that has not expired"),
    Standing("not selected", "—", "left out by the selection of this run"),
    Standing("no rule", "∅", "measured, and no rule is about it"),
    Standing("pass", "✓", "every rule on it holds"),
)
STANDING = {standing.word: standing for standing in STANDINGS}

SOURCE = "source"  # among the versions, the hash of robustgate's own source code

SENTENCES: dict[Verdict, str] = {
    "pass": "every rule of {policies} holds.",
    "fail": "a rule of {policies} is broken.",
    "undecided": "no rule is broken for certain, and the data cannot tell whether all of them hold.",
    "incomplete": "not everything that was planned has been measured and judged.",
    "waived": "what breaks a rule of {policies} is under a waiver that has not expired.",
    "error": "something could not be measured or judged.",
}


def standing(case: CaseResult) -> Standing:
    """Return how a case stands; measured under no rule is ``no rule``, never a pass."""
    if not case.selected:
        return STANDING["not selected"]
    if case.value is not None and not case.findings and case.verdict in ("pass", "incomplete"):
        return STANDING["no rule"]
    return STANDING[case.verdict]


def counts(results: Results) -> list[tuple[Standing, int]]:
    """Return how many cases stand how, worst first, without zeros."""
    found = Counter(standing(case) for case in results.cases)
    return [(kind, found[kind]) for kind in STANDINGS if found[kind]]


def is_partial(results: Results) -> bool:
    """Say whether a case stopped before all its samples were measured."""
    return any(case.n < case.n_total for case in results.cases)


def figure(case: CaseResult) -> str:
    """Return a case's accuracy in percent without unit, or words that say why there is none; ``≈`` from a part."""
    if case.value is not None:
        return ("" if case.n == case.n_total else "≈ ") + figures.tenths(case.value)
    return "not measured" if case.selected else "not selected"


def shift_label(shift: Shift) -> str:
    """Return a shift as a table names it: ``→ webcam``, ``fog, severity 3``, ``pgd (linf, eps 0.004)``, ``masking``."""
    if shift.kind == "clean":
        return "clean"
    if shift.kind == "domain_shift":
        return f"→\u00a0{shift.target}"
    if shift.kind == "corruption":
        return f"{shift.corruption}, severity\u00a0{shift.severity}"
    if shift.kind == "masking":
        return f"masking, {shift.name}"
    if shift.kind == "stability":
        return "mild transformations"
    return f"{shift.attack} ({shift.detail})" if shift.detail else str(shift.attack)


def variant_label(subject: CaseResult | VariantRecord | OverallRecord) -> str:
    """Return ``resnet18 / fp60 / amazon``."""
    return f"{subject.model} / {subject.compression} / {subject.source}"


def subjects(results: Results) -> dict[str, str]:
    """Return for each variant's name, which findings of the whole run are about, its label."""
    overall = {record.name: variant_label(record) for record in results.overall}
    return overall | {record.name: variant_label(record) for record in results.variants}


def loss(case: CaseResult) -> str:
    """Return which classes lost most: ``cat: 50.0 → 21.0 %``, or nothing."""
    return ", ".join(
        f"{lost.name}: {figures.tenths(lost.reference)} → {figures.percent(lost.value)}" for lost in case.most_lost
    )


def rule_text(finding: Finding) -> str:
    """Return a finding in one line: its rule and policy, limit against figure, the waiver that is or was about it."""
    waiver = f" ({finding.waiver})" if finding.waiver else ""
    return f'rule "{finding.rule}" of policy {finding.policy}: {finding.message}{waiver}'


def reference_value(case: CaseResult) -> float | None:
    """Return what the reference holds, None where there is none or the case is the reference's own."""
    return None if case.compression == REFERENCE else case.reference_value


def sample_count(case: CaseResult) -> str:
    """Return ``2,000``, or ``500 of 2,000`` where measuring stopped early."""
    if case.value is None and not case.n:
        return figures.NOTHING
    whole = case.n == case.n_total
    return figures.count(case.n) if whole else f"{figures.count(case.n)} of {figures.count(case.n_total)}"


def cautions(results: Results) -> list[str]:
    """Return what a reader of the verdict must know besides: what the run leaves open."""
    run, found = results.run, Counter(standing(case).word for case in results.cases)
    left_out = max(found["not selected"], run.planned - run.selected)
    unmeasured = max(sum(case.selected and case.value is None for case in results.cases), run.selected - run.measured)
    notes = []
    if left_out:
        share = f"{figures.count(left_out)} of {figures.counted(run.planned, 'planned case')}"
        notes.append(f"{share} {_were(left_out)} not selected: this run certifies nothing as a whole.")
    if unmeasured:
        notes.append(f"{figures.counted(unmeasured, 'selected case')} {_were(unmeasured)} not measured.")
    if not run.complete and not notes:
        notes.append("The run is not complete: it certifies nothing as a whole.")
    if found["no rule"]:
        notes.append(f"{figures.counted(found['no rule'], 'case')} {_were(found['no rule'])} measured under no rule.")
    expired = sum(waiver.expired for waiver in results.waivers)
    if expired:
        whose = f"of {policies.the_policies(results)} {'has' if expired == 1 else 'have'}"
        notes.append(f"{figures.counted(expired, 'waiver')} {whose} expired.")
    notes += [f"{line[0].upper()}{line[1:]}" for line in policies.warnings(results, expired=False)]
    return notes + _attack_cautions(results)


def _attack_cautions(results: Results) -> list[str]:
    measured = [case for case in results.cases if case.value is not None]
    kinds = {case.shift.kind for case in measured}
    blind = sum(details.is_without_twin(case) for case in measured)
    notes = []
    if blind:
        cases = f"{figures.counted(blind, 'case')} had no gradient and {_were(blind)}"
        notes.append(f"{cases} attacked by transfer and gradient-free only.")
    if "adversarial" in kinds and "masking" not in kinds:
        notes.append("Gradient masking was not looked for.")
    return notes


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def sentence(results: Results) -> str:
    """Return the verdict in one sentence, for what was measured."""
    run = results.run
    lead = "" if run.complete or run.verdict != "pass" else "of what was measured, "
    judged = results.findings or any(case.findings for case in results.cases)
    told = SENTENCES[run.verdict].format(policies=policies.the_policies(results))
    text = f"{lead}{told}" if judged or run.verdict != "pass" else "no rule was applied to anything."
    return text[0].upper() + text[1:]


def again(results: Results) -> str:
    """Return the command that makes the run once more."""
    names = ",".join(policy.name for policy in results.run.policies)
    words = ["--robustgate-config", results.run.config, "--robustgate-policy", names]
    return shlex.join(["pytest", "--pyargs", "robustness_tests", *words])


@dataclass(frozen=True, kw_only=True)
class Group:
    """The cases of one variant, with their indices into the results' cases."""

    title: str
    cases: tuple[tuple[int, CaseResult], ...]

    @property
    def tally(self) -> str:
        """How many stand how, worst first: ``2 fail, 22 pass``."""
        found = Counter(standing(case) for _, case in self.cases)
        return ", ".join(f"{found[kind]} {kind.word}" for kind in STANDINGS if found[kind])

    @property
    def metric(self) -> str:
        """What the group's values are: ``accuracy``."""
        return ", ".join(dict.fromkeys(case.metric for _, case in self.cases))


def groups(results: Results) -> list[Group]:
    """Return the cases by variant, both in the order of the results."""
    found: dict[str, list[tuple[int, CaseResult]]] = {}
    for index, case in enumerate(results.cases):
        found.setdefault(variant_label(case), []).append((index, case))
    return [Group(title=title, cases=tuple(cases)) for title, cases in found.items()]


def waived(results: Results) -> list[tuple[str, Finding]]:
    """Return the findings under a waiver, each with the title of its case or variant."""
    found = [
        (f"{variant_label(case)} {case.shift.phrase}", finding) for case in results.cases for finding in case.findings
    ]
    labels = subjects(results)
    found += [(labels.get(finding.subject, finding.subject), finding) for finding in results.findings]
    return [(title, finding) for title, finding in found if finding.verdict == "waived"]


def where_text(where: dict[str, str]) -> str:
    """Return the pattern of a waiver: ``compression = fp60, attack = pgd``."""
    return ", ".join(f"{key} = {pattern}" for key, pattern in where.items())


def facts(results: Results) -> list[tuple[str, str]]:
    """Return where a run comes from, as name and text, but for the versions."""
    run = results.run
    source = run.versions.get(SOURCE)
    return [
        ("run", run.id),
        ("started", run.started),
        ("took", figures.duration(run.seconds)),
        ("device", run.device),
        ("processor", run.processor),
        ("seed", str(run.seed)),
        *((f"policy {policy.name}", policies.settings(policy)) for policy in run.policies),
        ("configuration", run.config),
        ("configuration SHA-256", run.config_sha256),
        *([("robustgate's source SHA-256", source)] if source else []),
    ]


def versions(results: Results) -> list[tuple[str, str]]:
    """Return the name and version of what computed the results."""
    return [(name, version) for name, version in results.run.versions.items() if name != SOURCE]
