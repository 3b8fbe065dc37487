"""What the details of a case say, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from robustgate.core.records import CaseResult
from robustgate.reports import figures
from robustgate.reports.curves import curve_of

# The three figures of an artifact whose gradient is not its own.
FIGURES = {
    "twin": "through its twin",
    "transferred": "by transfer",
    "gradient_free": "gradient-free",
}
# What a sentence lists of many classes.
MOST_CLASSES = 8


def notes(case: CaseResult) -> tuple[str, ...]:
    """Return what a reader of the case must know of its attack or its data, each in a sentence."""
    return tuple(note for _, note in _told(case, NOTES))


def details(case: CaseResult) -> list[tuple[str, str]]:
    """Return what else a case's `details` and its bookkeeping say, as name and text."""
    noted = {key for key, _ in _told(case, NOTES)}
    lists = dict(_told(case, LISTS))
    named = [
        (key.replace("_", " "), lists.get(key) or figures.detail(value))
        for key, value in case.details.items()
        if key not in noted and key != "together"  # which is the case's own value
    ]
    if case.measurement:
        named.append(("measurement", figures.brief(case.measurement)))
    if case.value is not None:
        named.append(("time", "kept from an earlier run" if case.cached else figures.duration(case.seconds)))
    return named


def accuracies(case: CaseResult, key: str) -> dict[str, float]:
    """Return the accuracies that stand under `key` of a case's details, without those that are null."""
    found = case.details.get(key)
    if not isinstance(found, dict):
        return {}
    return {str(name): float(value) for name, value in found.items() if isinstance(value, int | float)}


def is_without_twin(case: CaseResult) -> bool:
    """Say whether an artifact was attacked by transfer and without gradient only, having no gradient and no twin."""
    found = case.details.get("figures")
    return isinstance(found, dict) and found.get("twin") is None


def _told(case: CaseResult, tellers: Mapping[str, Callable[[CaseResult], str]]) -> list[tuple[str, str]]:
    """Return the details that `tellers` know, with what they say; one of another form they say nothing of."""
    return [(key, text) for key, tell in tellers.items() if key in case.details and (text := tell(case))]


def _classes(case: CaseResult) -> str:
    found = case.details["classes"]
    dropped, without = (found.get(key) for key in ("dropped", "without_samples")) if isinstance(found, dict) else (0, 0)
    told = []
    if isinstance(dropped, dict) and dropped and all(isinstance(count, int) for count in dropped.values()):
        images = figures.counted(sum(dropped.values()), "image")
        classes = _some(f"{name} ({count:,})" for name, count in dropped.items())
        told.append(f"left out {images} of classes that {case.source} does not have: {classes}")
    if isinstance(without, list) and without:
        told.append(f"there are no images of {_some(without)}")
    return "; ".join(told)


def _some(names: Iterable[object]) -> str:
    known = [str(name) for name in names]
    more = f" and {len(known) - MOST_CLASSES:,} more" if len(known) > MOST_CLASSES else ""
    return ", ".join(known[:MOST_CLASSES]) + more


def _figures(case: CaseResult) -> str:
    found = accuracies(case, "figures")
    told = [f"{words} {figures.percent(found[name])}" for name, words in FIGURES.items() if name in found]
    return f"attacked {', '.join(told)}; the case counts the worst per sample" if told else ""


def _no_gradient(case: CaseResult) -> str:
    reason = case.details["no_gradient"]
    return f"it has no gradient, so that no attack through one was run: {reason}" if isinstance(reason, str) else ""


def _alone(case: CaseResult) -> str:
    told = [f"{name} {figures.percent(value)}" for name, value in accuracies(case, "alone").items()]
    return f"the worst of {', '.join(told)}, sample by sample" if told else ""


def _median_norm(case: CaseResult) -> str:
    curve = curve_of(case)
    if curve is None:
        return ""
    of, norm = "what was right without attack", case.shift.norm or "a norm of"
    if curve.half is None:
        return f"less than half of {of} fell, the farthest at {norm} {curve.eps[-1]:.3g}"
    return f"half of {of} has fallen at {norm} {curve.half:.3g}"


def _walks(case: CaseResult) -> str:
    return _listed(case.details["walks"], "{stood} of {attacked} stand")


def _checks(case: CaseResult) -> str:
    return _listed(case.details["checks"], "{lost} speak of masking, {gained} against it, of {n}")


def _listed(found: Any, form: str) -> str:
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        return ""
    try:
        return "; ".join(f"{name}: {form.format(**entry)}" for name, entry in found.items())
    except (KeyError, TypeError):  # of another form
        return ""


def _caution(case: CaseResult) -> str:
    caution = case.details["caution"]
    return caution if isinstance(caution, str) else ""


NOTES = {
    "caution": _caution,
    "classes": _classes,
    "figures": _figures,
    "no_gradient": _no_gradient,
    "alone": _alone,
    "curve": _median_norm,
}
LISTS = {"walks": _walks, "checks": _checks}
