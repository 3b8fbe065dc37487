"""What a plan says that a run costs: never less than it takes, told by runs before, and nothing guessed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustgate.config import load
from robustgate.core.components import Passes
from robustgate.core.records import Case
from robustgate.engine import cost as costs
from robustgate.engine import masking
from robustgate.engine.cost import case_passes, cost
from robustgate.engine.gate import Gate
from robustgate.engine.plan import Plan, make_plan
from robustgate.engine.stock import extents
from robustgate.engine.subjects import OnnxSubject
from robustgate.engine.subjects.swift import swift
from robustgate.reports.history import History, Point, Run, Series

SIDE = 8  # of the tiny project's images
FULL = '[compressions.int8]\nsteps = [{ method = "static_quantization" }]\n[shifts]'
STABILITY = '[[policies.edge.rules]]\nname = "steady"\nrule = "stability"\nmax = 0.9\nexamples = 5\nsamples = 40\n'


@dataclass
class Count:
    """What passed through every artifact and every twin."""

    forward: int = 0
    backward: int = 0


@contextmanager
def watched(gate: Gate, case: Case) -> Iterator[Count]:
    """Count what a case passes through its own variant: the artifact's questions, and its twin."""
    count, subject = Count(), gate.foundry.subject(case.variant)
    inner = subject.logits

    def logits(images: Tensor) -> Tensor:
        count.forward += len(images)
        return inner(images)

    def passed(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        count.forward += len(inputs[0])
        if output.requires_grad:
            output.register_hook(lambda gradient: setattr(count, "backward", count.backward + len(gradient)))

    subject.logits = logits  # type: ignore[method-assign]
    handle = flows_through(subject).register_forward_hook(passed)
    try:
        yield count
    finally:
        handle.remove()
        del subject.logits  # type: ignore[method-assign]


def flows_through(subject: Any) -> nn.Module:
    """Return what gradients are taken through: the file's twin, or the network's copy."""
    module: nn.Module = subject.differentiable()
    if not subject.has_own_gradient:
        return module
    copy = swift(module, torch.rand(2, 3, SIDE, SIDE))
    assert copy is not module  # or its passes would be counted twice
    return copy


def test_a_real_run_takes_no_more_passes_than_its_plan_says(tiny) -> None:
    tiny.configure(
        ("enabled = false", "samples = 20\nsteps = 3\nqueries = 12"),
        ("[shifts]", FULL),
        ('cache = "cache"', 'cache = "cache"\ngradient_free_queries = 10'),
        extra=STABILITY,
    )
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    known, gate = extents(plan), Gate(plan, today=date(2026, 1, 1), device="cpu")
    kinds = set()
    for case in plan.cases:
        gate.measurements.key(case)  # what is asked to know an artifact again is no measurement
        if (reference := plan.opponents(case).get("reference")) is not None:
            gate.measurements.of(reference)
        with watched(gate, case) as count:
            gate.measurements.of(case)
        said = case_passes(plan, case, known)
        assert said is not None
        assert count.forward <= said.forward, case
        assert count.backward <= said.backward, case
        if case.shift.kind in ("clean", "domain_shift", "corruption"):
            assert Passes(forward=count.forward) == said
        if case.shift.kind == "masking":
            assert count.backward > said.backward / 4  # the bound is no idle one
        kinds.add((case.shift.kind, gate.foundry.subject(case.variant).has_own_gradient))
    assert {("masking", True), ("masking", False), ("adversarial", False), ("stability", False)} <= kinds
    assert isinstance(gate.foundry.subject(plan.cases[-1].variant), OnnxSubject)


def test_the_walks_of_the_masking_checks_are_those_that_are_counted() -> None:
    # Of the plain walks one is on DLR, one without a bound, and one on rescaled logits.
    assert len(masking.FACTORS) + 3 == costs.PLAIN_WALKS
    assert (masking.MORE, len(masking.GRADIENT_FREE)) == (costs.LONGER, costs.SQUARES)
    assert masking.WALKS == costs.PLAIN_WALKS - 1 + costs.LONG_WALKS + costs.SQUARES


def test_attacks_of_one_budget_share_the_figure_without_gradients(tiny) -> None:
    tiny.configure(("[shifts]", FULL), ("eps = 0.02\nsteps = 4", "eps = 0.05\nsteps = 4"))
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    known = extents(plan)
    apart = [case_passes(plan, case, known) for case in plan.cases]
    shared = 1 + 200 + 1
    assert sum((one for one in apart if one is not None), Passes()) == cost(plan, known).passes + Passes(
        forward=shared * len(tiny.day)
    )


# What nobody can tell is said aloud.


def test_a_librarys_attack_is_not_counted_and_said_so(tiny) -> None:
    pytest.importorskip("foolbox")
    tiny.configure(extra='[attacks.theirs]\nmethod = "foolbox:LinfPGD"\neps = 0.1\n')
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    found = cost(plan, extents(plan))
    assert found.unknown == 2
    assert found.remarks == (
        "not counted, for they do not say what they ask: theirs; "
        "the engine stops them at 100,000 queries a sample and 3600 s a case",
    )


def test_what_a_domain_cannot_tell_is_not_guessed(tiny) -> None:
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    found = cost(plan, {})
    assert (found.passes, found.unknown, found.minutes) == (Passes(), len(plan.cases), None)
    assert found.remarks == ("how many images there are is not known before a run: day, night",)


# Runs before.


def run_before(number: int, seconds: float) -> Run:
    return Run(
        number=number,
        name=f"r{number}",
        started=f"2026-01-0{number}T00:00:00+00:00",
        seconds=seconds,
        seed=0,
        device="cpu",
        processor="x86_64",
        policy="edge",
        config="robustgate.toml",
        config_sha256="",
        version="0",
        planned=12,
        measured=12,
        verdict="pass",
    )


def history(plan: Plan, seconds: dict[int, float], *, kinds: set[str], n_total: int) -> History:
    runs = tuple(run_before(number, each) for number, each in seconds.items())
    series = [
        Series(
            kind=case.shift.kind,
            name=case.name,
            policy="",
            rule="",
            metric="accuracy",
            points=tuple(
                Point(run=run.number, value=0.5, low=0.4, high=0.6, n=9, n_total=n_total, verdict="pass")
                for run in runs
            ),
        )
        for case in plan.cases
        if case.shift.kind in kinds
    ]
    return History(runs=runs, series=tuple(series))


def test_the_longest_run_tells_the_minutes_scaled_by_the_passes(tiny) -> None:
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    known = extents(plan)
    natural = history(plan, {1: 60.0, 2: 3.0}, kinds={"clean", "corruption"}, n_total=len(tiny.day))
    found = cost(plan, known, natural)
    assert found.minutes is not None
    everything = found.passes.forward + found.passes.backward
    assert found.minutes.minutes == pytest.approx(everything / (6 * len(tiny.day)))
    assert (found.minutes.run.number, found.minutes.cases) == (1, 6)


def test_without_a_run_there_are_no_minutes(tiny) -> None:
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    assert cost(plan, extents(plan)).minutes is None
    strange = replace(history(plan, {1: 5.0}, kinds={"clean"}, n_total=7), series=())
    assert cost(plan, extents(plan), strange).minutes is None


def test_the_last_run_tells_how_many_samples_there_are(tiny) -> None:
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    found = cost(plan, {}, history(plan, {1: 5.0}, kinds={"clean"}, n_total=7))
    # Those of the clean cases are those of all others, but for the other domain's.
    assert found.remarks == ("how many images there are is not known before a run: night",)
    assert {one.kind: one.passes.forward for one in found.kinds}["corruption"] == 4 * 7
