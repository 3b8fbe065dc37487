"""Which cases' pictures a run keeps, whole or in shards."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustgate.core.records import Case, CaseResult, Picture, Results, Shift, Variant, Verdict
from robustgate.reports import pictures

VERDICTS: tuple[Verdict, ...] = ("pass", "undecided", "fail")
LARGEST, MOST = 100, 8


def row(index: int, verdict: Verdict, size: int) -> CaseResult:
    """An attacked case whose pictures take so many characters; none where it is 0."""
    shift = Shift(kind="adversarial", name=f"attack{index}", attack="pgd")
    case = Case(variant=Variant(model="m", source="s", compression="c"), shift=shift)
    base = Picture(
        name="", label="", prediction="", norm=None, original="A" * size, perturbed="", difference="", magnification=1
    )
    return replace(CaseResult.of(case, verdict=verdict), value=0.5, pictures=(base,) if size else ())


def kept(rows: Collection[CaseResult]) -> tuple[CaseResult, ...]:
    results = Results(run=cast("Any", None), variants=(), cases=tuple(rows), findings=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "LARGEST", LARGEST)
        patch.setattr(pictures, "MOST", MOST)
        return pictures.limited(results).cases


def test_the_last_case_kept_may_go_beyond_the_limit() -> None:
    sizes = [60, 30, 30, 1]
    cases = kept([row(index, "fail", size) for index, size in enumerate(sizes)])
    assert [bool(case.pictures) for case in cases] == [True, True, True, False]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(VERDICTS), st.integers(1, 60)), min_size=1, max_size=30))
def test_shards_keep_between_them_what_the_run_keeps(cases: list[tuple[int, Verdict, int]]) -> None:
    """Each case by the shard that measured it, how it stands, and the size of its pictures."""
    whole = kept([row(index, verdict, size) for index, (_, verdict, size) in enumerate(cases)])
    shards = [
        kept([row(index, verdict, size if held == shard else 0) for index, (held, verdict, size) in enumerate(cases)])
        for shard in range(3)
    ]
    union = [max(same, key=lambda one: len(one.pictures)) for same in zip(*shards, strict=True)]
    assert kept(union) == whole
    assert kept(whole) == whole
