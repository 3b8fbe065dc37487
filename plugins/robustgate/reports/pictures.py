"""The adversarial examples that a report shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

from robustgate.core.records import CaseResult, Picture, Results
from robustgate.reports.view import STANDINGS, standing

# Cases of a run whose pictures are kept, and the characters after which no further case's are: those of a case of
# 32 x 32 pixels are some 25,000, of a case of photographs 230,000, and a run may have thousands of cases.
MOST, LARGEST = 40, 4_000_000
# Reports fold what comes after these.
OPEN = 6


def limited(results: Results) -> Results:
    """Return the results with the pictures of at most 40 cases: those that stand worst, and of these the first.

    The last one kept may go beyond what they may take together. What is dropped has then enough before it in any part
    of the run that holds these cases: the parts, limited, merged and limited again, keep what the whole keeps.
    """
    order = _order(results)[:MOST]
    before = accumulate((sum(map(_size, results.cases[index].pictures)) for index in order), initial=0)
    kept = {index for index, size in zip(order, before, strict=False) if size < LARGEST}
    cases = (
        case if index in kept or not case.pictures else replace(case, pictures=())
        for index, case in enumerate(results.cases)
    )
    return replace(results, cases=tuple(cases))


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The cases with pictures, as index and case, worst first; in `without` cases something fell unseen."""

    cases: tuple[tuple[int, CaseResult], ...]
    without: int


def gallery(results: Results) -> Gallery:
    """Return what there is to see of the attacks."""
    fallen = [case.details.get("fallen") for case in results.cases if not case.pictures and _is_attacked(case)]
    return Gallery(
        cases=tuple((index, results.cases[index]) for index in _order(results)),
        without=sum(isinstance(count, int) and count > 0 for count in fallen),
    )


def _order(results: Results) -> list[int]:
    shown = [index for index, case in enumerate(results.cases) if case.pictures]
    return sorted(shown, key=lambda index: STANDINGS.index(standing(results.cases[index])))


def _size(picture: Picture) -> int:
    return len(picture.original) + len(picture.perturbed) + len(picture.difference)


def _is_attacked(case: CaseResult) -> bool:
    return case.shift.kind == "adversarial"
