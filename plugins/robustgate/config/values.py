"""robustgate.toml as frozen values: each dataclass is a table, each field a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from robustgate.core.benchmark import SEVERITIES
from robustgate.core.catalog import is_part
from robustgate.core.components import (
    Attack,
    Compression,
    Corruption,
    Domain,
    OutcomeRule,
    Recipe,
    StabilityRule,
    Union,
    VariantRule,
)
from robustgate.core.records import EarlyStop, Familywise, IntervalMethod, OnUndecided, Proof, Scope, Verdict, is_red


@dataclass(frozen=True, kw_only=True)
class Gate:
    """`[gate]`: what holds for the whole run.

    `threads` is the number of processor threads of each process. Thread counts change floating-point sums, and so,
    rarely, a prediction: it is fixed, so that every machine and every number of workers gives the same outcomes.
    `cache` keeps artifacts and measurements by content hash; `baseline` is the file of the accuracies that
    ``max_drop_from = "baseline"`` compares with. `policy` may name several, with commas between: one run, each judging.
    `history` adds each run's figures up, for `robustgate trend`: in history.sqlite in the cache, or in a file of one's
    own; false keeps none.

    Under attack: `batch` images go through a variant at once, by default as many as their size allows.
    `attack_seconds` of a case and `attack_queries` about a sample are caps: what exceeds one is an error, not a
    figure. `gradient_free_queries` is what may be asked about each sample of an artifact that has no gradient of its
    own. With `mixed_precision`, gradients on a GPU are computed in bfloat16; what has fallen is counted in float32.
    """

    seed: int = 0
    policy: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    cache: Path = Path(".robustgate")
    baseline: Path = Path("robustgate-baseline.json")
    history: bool | Path = True
    batch: int | None = None
    attack_seconds: float = 3600.0
    attack_queries: int = 100_000
    gradient_free_queries: int = 200
    mixed_precision: bool = False

    @property
    def history_file(self) -> Path | None:
        """Where the figures of the runs are added up, or None."""
        if isinstance(self.history, Path):
            return self.history
        return self.cache / "history.sqlite" if self.history else None

    def __post_init__(self) -> None:
        for key, least in (("threads", 1), ("batch", 1), ("attack_queries", 1), ("gradient_free_queries", 2)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"{key} must be at least {least}, got {value}")
        if not self.attack_seconds > 0:
            raise ValueError(f"attack_seconds must be above 0, got {self.attack_seconds:g}")
        if self.gradient_free_queries > self.attack_queries:
            raise ValueError(
                f"gradient_free_queries must be at most attack_queries, the cap, which is {self.attack_queries:,}, "
                f"got {self.gradient_free_queries:,}"
            )


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """`normalize` of a model: subtracted from and divided into images in [0, 1], channel by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError("mean and std must hold 3 numbers each, for R, G and B")
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {list(self.std)}")
        if max(self.mean) > 1:
            raise ValueError(f"mean must be in [0, 1] units, as images are, got {list(self.mean)}: divide by 255")


@dataclass(frozen=True, kw_only=True)
class Model:
    """`[models.<name>]`: a factory, and one weight file for each source domain."""

    build: str
    normalize: Normalize | Literal["inside"]
    weights: dict[str, Path]
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Corruptions:
    """`corruptions` of `[shifts]`: names, "benchmark" for the fifteen published ones, or "all" on the shelf.

    Images are corrupted here, unless `stored` names for their domain one that holds them corrupted, as published:
    ``stored = { cifar10 = "cifar10_c" }``.
    """

    names: tuple[str, ...] | Literal["benchmark", "all"]
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    stored: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.severities or set(self.severities) - set(SEVERITIES):
            raise ValueError(f"severities must be some of 1, 2, 3, 4, 5, got {list(self.severities)}")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A domain pair whose classes are matched by name, `classes` giving ours for theirs where they differ.

    Theirs are the target's, ours the source's; several of theirs may be one of ours. Where one side has a class that
    the other lacks, that is an error; with `missing = "drop"`, samples of the target whose class the source does not
    know are left out, and classes of the source may have no samples.
    """

    source: str
    target: str
    classes: dict[str, str] = field(default_factory=dict)
    missing: Literal["error", "drop"] = "error"


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """`[shifts]`: domain pairs and corruptions. Every variant is measured on clean images too."""

    pairs: tuple[tuple[str, str] | Pair, ...] | Literal["all"] = ()
    corruptions: Corruptions | None = None


@dataclass(frozen=True, kw_only=True)
class Masking:
    """`[masking]`: how every variant that has gradients is searched for gradient masking, where attacks use them.

    `samples` are attacked, of those classified right; `steps` is the gradient attack's, `queries` those of the attack
    without gradients about each sample. A check fails where more than a share `tolerance` of the samples speaks of
    masking. The smallest share that n samples can tell from none is 1/n: below 1/`samples`, no sample may.
    """

    enabled: bool = True
    samples: int = 100
    steps: int = 20
    queries: int = 200
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        for key, value in (("samples", self.samples), ("steps", self.steps), ("queries", self.queries)):
            if value < 1:
                raise ValueError(f"{key} must be at least 1, got {value}; enabled = false switches the checks off")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be a fraction in [0, 1), got {self.tolerance:g}")


@dataclass(frozen=True, kw_only=True)
class CaseRule:
    """A rule of a policy on a case's metric: an absolute floor, a paired drop, or both. Fractions in [0, 1]."""

    name: str
    where: dict[str, str] = field(default_factory=dict)
    metric: Literal["accuracy"] = "accuracy"
    min: float | None = None
    max_drop: float | None = None
    max_drop_from: Literal["reference", "control", "baseline"] = "reference"

    def __post_init__(self) -> None:
        if self.min is None and self.max_drop is None:
            raise ValueError('a rule needs a limit: min, max_drop, or rule = "<component of rules/>"')
        for key, value in (("min", self.min), ("max_drop", self.max_drop)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{key} must be a fraction in [0, 1], got {value:g}")


@dataclass(frozen=True, kw_only=True)
class RunRule:
    """A rule of a policy that a component of rules/ applies to each variant that `where` selects."""

    name: str
    component: VariantRule | OutcomeRule | StabilityRule
    where: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """A dated excuse for failing findings: until the day `until`, that day included."""

    where: dict[str, str]
    until: date
    reason: str

    def is_current(self, today: date) -> bool:
        """Say whether the waiver still holds; it does on its last day."""
        return self.days_left(today) >= 0

    def days_left(self, today: date) -> int:
        """Return how many days are left after today: 0 on its last day, below once it has expired."""
        return (self.until - today).days

    def __post_init__(self) -> None:
        if not self.where:
            raise ValueError("where must name what is waived; a waiver of everything is no gate")
        if not self.reason.strip():
            raise ValueError("reason must say why")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The rules of one deployment. Intervals are two-sided, at `confidence`.

    `scope` says what the figures speak of: the test set itself, of which a figure measured in full is a fact, or the
    population that it is a sample of. `early_stop` ends a case before all its samples are measured: once the rest
    cannot turn the verdict ("certain"), or once a sequence of intervals that holds at every look is decided
    ("confident"). `familywise` says whether `confidence` is that of all findings together (Holm) or of each.
    `prove` says what must be proven: "good" fails all that is not proven good, "bad" passes all that is not proven
    bad. Without it both must be proven, the rest is undecided, and `on_undecided` decides. `interval` is that of an
    accuracy. A policy that `extends` another has all that it does not say itself from there.
    """

    name: str
    case_rules: tuple[CaseRule, ...]
    run_rules: tuple[RunRule, ...]
    waivers: tuple[Waiver, ...] = ()
    extends: str | None = None
    confidence: float = 0.99
    scope: Scope = "test_set"
    early_stop: EarlyStop = False
    familywise: Familywise = "holm"
    prove: Proof | None = None
    on_undecided: OnUndecided = "fail"
    interval: IntervalMethod = "clopper_pearson"

    def is_red(self, verdict: Verdict) -> bool:
        """Say whether a verdict fails its test."""
        return is_red(verdict, self.on_undecided)

    def __post_init__(self) -> None:
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence must be a fraction above 0.5 and below 1, got {self.confidence:g}")
        if self.interval != "clopper_pearson" and self.scope == "test_set":
            raise ValueError(
                f'interval = "{self.interval}" needs scope = "population": an accuracy on the test set itself is a fact'
            )


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a compression: a method, a fine-tuning after it, or a training alone."""

    method: str | None
    component: Compression | None
    finetune: Recipe | None

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that it needs beside the one that it changes."""
        return self._asked("models")

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the domains at whose train split it looks beside the source."""
        return self._asked("domains")

    def _asked(self, for_what: str) -> tuple[str, ...]:
        own: list[Any] = [one for one in (self.component, self.finetune) if is_dataclass(one)]
        values = [getattr(one, field.name) for one in own for field in fields(one)]
        parts = [value for value in values if is_part(value)]  # as a distillation's own recipe
        return tuple(dict.fromkeys(name for one in (*own, *parts) for name in getattr(one, for_what, ())))


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A whole, checked robustgate.toml, with every component built and every path absolute."""

    source: Path
    sha256: str
    gate: Gate
    domains: Mapping[str, Domain]
    models: Mapping[str, Model]
    compressions: Mapping[str, tuple[Step, ...]]
    pairs: tuple[tuple[str, str], ...]
    matchings: Mapping[tuple[str, str], Pair]
    corruptions: Mapping[str, Corruption]
    severities: tuple[int, ...]
    stored: Mapping[str, str]
    attacks: Mapping[str, Attack]
    unions: Mapping[str, Union]
    masking: Masking
    policies: Mapping[str, Policy]

    def judging_split(self, target: str) -> Literal["test", "whole"]:
        """Return the split of a pair's target that variants are measured on: of one that a training looks at, the test.

        The same for every variant, so that each stays paired with its reference.
        """
        return "test" if target in self._looked_at else "whole"

    @cached_property
    def _looked_at(self) -> frozenset[str]:
        """The domains that a training looks at: asked for with every case, so found once."""
        return frozenset(name for chain in self.compressions.values() for step in chain for name in step.domains)
