"""Values that cross processes and fill reports: frozen, of the standard library, and they survive JSON.

The dataclasses below `Results` are the layout of results.json, key by key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

ShiftKind = Literal["clean", "domain_shift", "corruption", "adversarial", "masking", "stability"]
LimitKind = Literal["min", "max", "max_drop"]
Verdict = Literal["pass", "fail", "undecided", "incomplete", "waived", "error"]
# The settings of a policy, as the configuration and the results have them.
Scope = Literal["test_set", "population"]
EarlyStop = Literal["certain", "confident", False]
Familywise = Literal["holm", "none"]
Proof = Literal["good", "bad"]
OnUndecided = Literal["fail", "pass"]
IntervalMethod = Literal["clopper_pearson", "wilson", "stratified_wilson"]

REFERENCE = "none"
CONTROL = "control"
MASKED_SHARE = "masked share"  # the metric of a check for gradient masking, which no policy names
RESULTS_SCHEMA = "robustgate/results/1"


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
        """What a `where` may name."""
        return {"model": self.model, "source": self.source, "compression": self.compression}


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What is done to the input distribution. `detail` is for the reader: ``linf, eps 0.004, 40 steps``."""

    kind: ShiftKind
    name: str
    target: str | None = None
    corruption: str | None = None
    severity: int | None = None
    attack: str | None = None
    norm: str | None = None
    eps: float | None = None
    detail: str | None = None

    @property
    def phrase(self) -> str:
        """How a sentence names it: ``under pgd (linf, eps 0.004, 40 steps)``."""
        if self.kind == "domain_shift":
            return f"on {self.target}"
        if self.kind == "corruption":
            return f"under {self.corruption}, severity {self.severity}" + (f" ({self.detail})" if self.detail else "")
        if self.kind == "adversarial":
            return f"under {self.attack} ({self.detail})"
        if self.kind == "masking":
            return f"checked for gradient masking ({self.detail})"
        if self.kind == "stability":
            return f"under mild transformations ({self.detail})"
        return "on clean images"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A variant under a shift: one measurement, one pytest item, one row in every report."""

    variant: Variant
    shift: Shift

    @property
    def name(self) -> str:
        """As in test ids: ``resnet18-fp60-amazon-pgd``, ``resnet18-fp60-amazon_to_webcam``."""
        if self.shift.kind == "clean":
            return self.variant.name
        if self.shift.kind == "domain_shift":
            return f"{self.variant.model}-{self.variant.compression}-{self.shift.name}"
        return f"{self.variant.name}-{self.shift.name}"

    @property
    def fields(self) -> dict[str, str]:
        """What a `where` may name; a field that a case does not have is left out, so no pattern matches it."""
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
            **self.variant.fields,
            **{key: str(value) for key, value in optional.items() if value is not None},
        }


WHERE_VARIANT = ("model", "source", "compression")
WHERE_CASE = ("name", "kind", *WHERE_VARIANT, "target", "corruption", "severity", "attack", "norm")


def matches(where: Mapping[str, str], fields: Mapping[str, str]) -> bool:
    """Say whether every pattern (fnmatch) of `where` matches its field; a missing field matches nothing."""
    return all(key in fields and fnmatchcase(fields[key], pattern) for key, pattern in where.items())


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One rule of a policy applied to one case or variant.

    Accuracies and drops are fractions in [0, 1], sizes are bytes, times milliseconds. `low` and `high` are the interval
    at the policy's confidence; for a figure that is known exactly they equal `value`. All three are None where the
    figure was not measured: the finding is then ``incomplete``. `waiver` tells the waiver that is or was about it, and
    `waiver_index` its place, from 0, among the waivers of the policy.
    """

    policy: str
    rule: str
    subject: str
    metric: str
    limit_kind: LimitKind
    limit: float
    value: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    against: str | None = None
    waiver: str | None = None
    waiver_index: int | None = None
    message: str


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """A rule on a variant without a figure in this run; `selected` says whether a test was there to judge it."""

    policy: str
    rule: str
    subject: str
    selected: bool


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """Accuracy of one class, under the reference and under the variant, on the same samples."""

    name: str
    n: int
    reference: float
    value: float


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A sample that fell: before, after, and what was changed, each as the base64 text of a PNG.

    `label` is the class that it is and was taken for, `prediction` what it is taken for now. `norm` is the size of the
    change, None where attacks of several norms are joined. In `difference` no change is mid grey, and a change is
    shown `magnification` times as large.
    """

    name: str
    label: str
    prediction: str
    norm: float | None
    original: str
    perturbed: str
    difference: str
    magnification: float


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """A case, measured and judged. A case that was not measured has no `value` and says why in `message`.

    Where several policies judge, `findings` are those of all of them and `verdict` is the worst; the intervals of the
    case itself are at the first one's confidence.

    `agreement` is the share of its samples on which it predicts the class that the reference predicts; `lost` are those
    that only the reference has right, `gained` those that only it has, and what is left to 1 both have wrong in
    different ways. None under attack, where the two see different images, and for the reference itself.

    `data` is the hash of the data that it was measured on, and `right` says which of its samples came out right: a bit
    for each, in the order in which they were drawn, deflated, in base64. None for a check of masking or stability.
    """

    name: str
    model: str
    source: str
    compression: str
    shift: Shift
    metric: str
    verdict: Verdict
    selected: bool = True
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
    agreement: float | None = None
    lost: float | None = None
    gained: float | None = None
    findings: tuple[Finding, ...] = ()
    most_lost: tuple[ClassAccuracy, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    measurement: str | None = None
    data: str | None = None
    right: str | None = None
    message: str = ""
    reproduce: str = ""
    seconds: float = 0.0
    cached: bool = False

    @classmethod
    def of(cls, case: Case, *, verdict: Verdict, message: str = "", selected: bool = True) -> CaseResult:
        """Return the row of a case without any figure."""
        variant = case.variant
        return cls(
            name=case.name,
            model=variant.model,
            source=variant.source,
            compression=variant.compression,
            shift=case.shift,
            metric="accuracy",
            verdict=verdict,
            message=message,
            selected=selected,
        )


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long a batch of images takes a variant, timed in turn with its reference, with nothing else running.

    Medians over `rounds`, with their intervals at the first policy's confidence; `ratio` is the median over the rounds
    of the variant's time against the reference's.
    """

    batch: int
    rounds: int
    median_ms: float
    low_ms: float
    high_ms: float
    reference_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


ArtifactFormat = Literal["torch", "onnx", "torchscript", "exported", "litert", "executorch"]


@dataclass(frozen=True, kw_only=True)
class VariantRecord:
    """What is known of an artifact; None means not measured.

    `size_bytes` is its file's, `deflated_bytes` that file's after zlib at level 6. `effective_bits` is what a parameter
    takes in the deflated file, `compression_ratio` the reference's deflated bytes by the artifact's. `macs` is for one
    image. `latency_ms` is the median time of one image, and `timings` tell it in full; `memory_bytes` is the peak of
    loading the artifact and running one image.
    """

    name: str
    model: str
    source: str
    compression: str
    format: ArtifactFormat
    artifact_sha256: str
    parameters: int | None
    nonzero_parameters: int | None
    size_bytes: int
    deflated_bytes: int
    effective_bits: float | None = None
    compression_ratio: float | None = None
    macs: int | None = None
    latency_ms: float | None = None
    timings: tuple[Timing, ...] = ()
    memory_bytes: int | None = None
    seconds_to_build: float


@dataclass(frozen=True, kw_only=True)
class OverallRecord:
    """A variant over all its shifts, from the accuracies of its cases; see the rules of the same names.

    None where a case that a figure needs was not planned or not measured, or where it divides by zero. Of the mCE
    against the reference, only one of the two is there: over the whole benchmark, or over the part of it that is
    planned. `agreement`, `lost` and `gained` are those on clean images.
    """

    name: str
    model: str
    source: str
    compression: str
    clean: float | None = None
    mean_corruption_accuracy: float | None = None
    mce: float | None = None
    mce_partial: float | None = None
    relative_mce: float | None = None
    relative_mce_partial: float | None = None
    corruption_retention: float | None = None
    corruption_relative_robustness: float | None = None
    worst_corruption: str | None = None
    worst_corruption_accuracy: float | None = None
    mean_domain_accuracy: float | None = None
    domain_retention: float | None = None
    domain_relative_robustness: float | None = None
    worst_domain: str | None = None
    worst_domain_accuracy: float | None = None
    agreement: float | None = None
    lost: float | None = None
    gained: float | None = None


@dataclass(frozen=True, kw_only=True)
class PolicyRecord:
    """A policy that judged the run: its settings, how many of its findings came out how, and its verdict of the run.

    `scope` is what was asked: of the test set itself, or of new data.
    """

    name: str
    confidence: float
    scope: Scope
    early_stop: EarlyStop
    familywise: Familywise
    prove: Proof | None
    on_undecided: OnUndecided
    interval: IntervalMethod
    findings: dict[Verdict, int]
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The run as a whole. `complete` says that every planned case was selected and measured.

    `policy` names the policies that judged it, with commas between, and `confidence` is the first one's.
    """

    id: str
    started: str
    seconds: float
    seed: int
    device: str
    processor: str
    policy: str
    confidence: float
    policies: tuple[PolicyRecord, ...]
    versions: dict[str, str]
    config: str
    config_sha256: str
    planned: int
    selected: int
    measured: int
    complete: bool
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class WaiverRecord:
    """A waiver, and how many findings it covers in this run; `index` is its place, from 0, among its policy's.

    `days_left` counts from the day of the run to the last on which it holds: 0 on that day, below when it has expired.
    """

    policy: str
    index: int
    where: dict[str, str]
    until: str
    reason: str
    days_left: int
    expired: bool
    findings: int


@dataclass(frozen=True, kw_only=True)
class Results:
    """A results.json. `findings` are those on variants; `unjudged` is None where an older robustgate wrote it."""

    schema: str = RESULTS_SCHEMA
    run: RunRecord
    variants: tuple[VariantRecord, ...]
    cases: tuple[CaseResult, ...]
    findings: tuple[Finding, ...]
    waivers: tuple[WaiverRecord, ...] = ()
    overall: tuple[OverallRecord, ...] = ()
    unjudged: tuple[Unjudged, ...] | None = None


# From best to worst.
VERDICTS: tuple[Verdict, ...] = ("pass", "waived", "undecided", "incomplete", "fail", "error")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst verdict; of none at all, ``incomplete``: nothing measured is never green."""
    return max(verdicts, key=VERDICTS.index, default="incomplete")


def is_control(compression: str) -> bool:
    """Say whether a compression is a control; the configuration keeps their names for them."""
    return compression.startswith(CONTROL)


def is_red(verdict: Verdict, on_undecided: OnUndecided) -> bool:
    """Say whether a verdict fails its test, under a policy that decides so of what is undecided."""
    return verdict not in ("pass", "waived") and not (verdict == "undecided" and on_undecided == "pass")
