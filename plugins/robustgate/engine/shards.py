"""The shards of one run, each of which measured some of its cases, put together again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from robustgate.core.errors import ResultsError, listing
from robustgate.core.records import CaseResult, Finding, Results, Unjudged, VariantRecord
from robustgate.engine.judge import decided
from robustgate.engine.results import finding_key, key, merged, rules_left, tallied

T = TypeVar("T", CaseResult, Finding, VariantRecord)

# What the shards of one run have in common, beside their versions.
COMMON = ("config_sha256", "seed", "policy", "device")
# What two shards may tell otherwise of the same: how long it took, how to do it again, and what not all cases show.
FREE = ("seconds", "cached", "reproduce", "pictures", "seconds_to_build", "latency_ms", "timings", "memory_bytes")
# What comes out anew each time that it is measured: of two figures the one that is worse for the variant counts.
MEASURED_ANEW = ("latency_ms", "latency_ratio", "memory_bytes")
NOT_SELECTED, NO_FIGURE, FIGURE = range(3)
MOST_PROBLEMS = 10


def merge(shards: Mapping[str, Results]) -> Results:
    """Return the run that shards were parts of, each given by the name that a message calls it by.

    It equals the single run, except for times: `id` and `started` are those of the shard that started first, `seconds`
    are those of all shards together, a case that several measured has the first one's `seconds` and `cached`, and the
    days of waivers are counted from the start of the last. `processor` names those of all shards. A latency or memory
    that several measured is the largest of theirs: chance turns no merged run green, and no measured matrix is lost.
    What `left_open` tells may be decided in the single run.

    Raises ResultsError where there are no shards, where they are not of one run, or where two tell differently what a
    case, a variant or a rule on one came to.
    """
    if not shards:
        raise ResultsError("no shards to merge: name the results.json of each")
    ordered = dict(sorted(shards.items(), key=lambda shard: (shard[1].run.started, shard[1].run.id, shard[0])))
    parts = list(ordered.values())
    first = parts[0]
    _refuse("these are not shards of one run", _strangers(ordered))
    rows, differing = _united(ordered, lambda part: part.cases, lambda row: "/".join(key(row)))
    findings, disputed = _united(ordered, lambda part: part.findings, _called)
    _, unlike = _united(ordered, lambda part: part.variants, lambda record: f"variant {record.name}")
    _refuse("shards disagree", [*differing, *disputed, *unlike])
    variants = _largest([record for part in parts for record in part.variants])
    shown = {key(row): row.pictures for part in reversed(parts) for row in part.cases if row.pictures}
    results = replace(
        first,
        run=replace(
            first.run,
            seconds=round(sum(part.run.seconds for part in parts), 1),
            processor="; ".join(dict.fromkeys(part.run.processor for part in parts)),
        ),
        variants=tuple(variants[record.name] for record in first.overall if record.name in variants),
        cases=tuple(replace(row, pictures=shown.get(key(row), ())) for row in rows),
        findings=tuple(sorted(findings, key=finding_key)),
        waivers=parts[-1].waivers,
        unjudged=_unjudged(parts, findings),
    )
    return tallied(results)


def left_open(results: Results) -> list[str]:
    """Return a line for each policy whose findings a single run might decide where shards, merged, could not.

    Where a policy's error rate is that of all findings together, what its samples leave undecided is judged beside the
    other cases of the run (see `engine.family`), of which a shard has seen its own alone. So it decides nothing that
    the single run does not, and some things less.
    """
    lines = []
    for policy in results.run.policies:
        inferred = policy.scope == "population" or policy.early_stop == "confident"
        found = [
            finding
            for row in results.cases
            if row.shift.kind not in ("masking", "stability")
            for finding in row.findings
            if finding.policy == policy.name
            and decided(finding.limit_kind, finding.limit, finding.low, finding.high) == "undecided"
        ]
        if found and inferred and policy.familywise != "none":
            lines.append(
                f'policy {policy.name} has familywise = "{policy.familywise}": a single run may decide some of the '
                f"{len(found):,} findings that no shard could, {_called(found[0])} among them"
            )
    return lines


def measured_again(shards: Mapping[str, Results]) -> list[str]:
    """Return a line for each rule on a latency or memory that several shards have different figures for."""
    found: dict[str, dict[str, Finding]] = {}
    for name, part in shards.items():
        for finding in part.findings:
            if finding.metric.startswith(MEASURED_ANEW) and finding.value is not None:
                found.setdefault(_called(finding), {})[name] = finding
    lines = []
    for called, by_shard in found.items():
        if len({finding.value for finding in by_shard.values()}) > 1:
            largest = max(by_shard, key=lambda name: by_shard[name].value or 0.0)
            lines.append(f"{called} was measured by {listing(by_shard)}: the largest figure counts, that of {largest}")
    return lines


def _strangers(shards: Mapping[str, Results]) -> Iterator[str]:
    """Yield what each shard has otherwise than the first, and each that does not tell all."""
    (reference, first), *_ = shards.items()
    for name, part in shards.items():
        expected, got = _common(first), _common(part)
        for field in {**expected, **got}:
            if expected.get(field) != got.get(field):
                yield f"{name}: {field}: expected {_show(expected, field)}, as in {reference}, got {_show(got, field)}"
        if expected == got and _planned(part) != _planned(first):
            yield f"{name}: cases: expected the same planned cases as in {reference}"
        try:
            rules_left(part)
        except ResultsError as error:
            yield f"{name}: {error}"


def _common(part: Results) -> dict[str, Any]:
    versions = {f"versions.{package}": version for package, version in part.run.versions.items()}
    return {**{field: getattr(part.run, field) for field in COMMON}, **versions}


def _planned(part: Results) -> list[Any]:
    return [(row.name, row.model, row.source, row.compression, row.shift) for row in part.cases]


def _united(
    shards: Mapping[str, Results], records: Callable[[Results], Iterable[T]], called: Callable[[T], str]
) -> tuple[list[T], list[str]]:
    """Return each record of the shards once, in their order, and where two with a figure differ.

    One with a figure takes the place of one without, and one that was selected that of one that was not.
    """
    found: dict[str, tuple[str, T]] = {}
    problems = []
    for name, part in shards.items():
        for record in records(part):
            held, before = found.setdefault(called(record), (name, record))
            if _rank(record) > _rank(before) or _is_worse(record, before):
                found[called(record)] = name, record
            elif (
                _rank(record) == _rank(before) == FIGURE
                and not _is_worse(before, record)
                and (difference := _difference(before, record))
            ):
                problems.append(f"{called(record)}: {held} and {name} differ in {difference}")
    return [record for _, record in found.values()], problems


def _is_worse(one: T, other: T) -> bool:
    """Say whether a finding on what is measured anew has the larger figure; all limits on these are upper ones."""
    if not isinstance(one, Finding) or not isinstance(other, Finding) or not one.metric.startswith(MEASURED_ANEW):
        return False
    return one.value is not None and other.value is not None and one.value > other.value


def _largest(records: Sequence[VariantRecord]) -> dict[str, VariantRecord]:
    """Return one record a variant, by its name, with the slowest of its timings and the largest of its memories."""
    found = merged(sorted(records, key=lambda record: record.latency_ms or 0.0))
    memories: dict[str, list[int]] = {}
    for record in records:
        if record.memory_bytes is not None:
            memories.setdefault(record.name, []).append(record.memory_bytes)
    return {
        name: replace(record, memory_bytes=max(memories[name])) if name in memories else record
        for name, record in found.items()
    }


def _rank(record: CaseResult | Finding | VariantRecord) -> int:
    if isinstance(record, VariantRecord) or record.value is not None or record.verdict != "incomplete":
        return FIGURE
    return NO_FIGURE if isinstance(record, Finding) or record.selected else NOT_SELECTED


def _difference(ours: T, theirs: T) -> str:
    """Return the first field in which two records of the same differ, with both values, or an empty text."""
    one, other = asdict(ours), asdict(theirs)
    field = next((field for field in one if field not in FREE and one[field] != other[field]), None)
    return "" if field is None else f"{field}: {_show(one, field)} and {_show(other, field)}"


def _unjudged(parts: Sequence[Results], findings: Iterable[Finding]) -> tuple[Unjudged, ...]:
    """Return the rules on variants that no shard has a figure for."""
    known = {finding_key(finding) for finding in findings if finding.value is not None}
    selected = {finding_key(rule) for part in parts for rule in rules_left(part) if rule.selected}
    return tuple(
        replace(rule, selected=finding_key(rule) in selected)
        for rule in rules_left(parts[0])
        if finding_key(rule) not in known
    )


def _called(finding: Finding) -> str:
    return f"rule {finding.rule!r} of policy {finding.policy} on {finding.subject}"


def _show(fields: Mapping[str, Any], field: str) -> str:
    text = json.dumps(fields.get(field), ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(heading: str, found: Iterable[str]) -> None:
    problems = list(found)
    if problems:
        rest = [f"and {len(problems) - MOST_PROBLEMS:,} more"] if len(problems) > MOST_PROBLEMS else []
        raise ResultsError("\n  ".join([f"{heading}:", *problems[:MOST_PROBLEMS], *rest]))
