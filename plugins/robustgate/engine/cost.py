"""What measuring a plan costs, told before anything runs: passes through the networks, minutes, artifacts.

Pure: no torch, no data, no clock. `engine.stock` says what there is to know of the data and the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from robustgate.attacks.gradient_free import GradientFree
from robustgate.attacks.pgd import Pgd
from robustgate.attacks.square import Square
from robustgate.compression.artifact import Artifact, runtime_of
from robustgate.core.components import Attack, Extent, Passes
from robustgate.core.errors import listing
from robustgate.core.records import Case, Variant
from robustgate.engine.plan import WITHOUT_GRADIENT, Plan
from robustgate.engine.results import key
from robustgate.reports.history import History, Run

AT_ONCE = ("masking", "stability")
# What the engine asks about a sample beside a walk's own queries: the artifact confirms what fell, or is asked once
# about a point projected to the budget. Of a minimum-norm attack it confirms the nearest point, in four tries, and
# then its projection. Where most samples fall they are looked at before their gradients are taken (`engine.arena`):
# what falls then spares more passes than the looks cost.
CONFIRMED, NEAREST_CONFIRMED = 1, 5
# The walks of the masking checks (`engine.masking`), each about every sample that is checked: PGD of so many steps at
# five budgets, without one, on DLR and on smaller logits; one of four times as many steps; Square at two budgets.
PLAIN_WALKS, LONG_WALKS, LONGER, SQUARES = 8, 1, 4, 2

Data = tuple[str, str | None, str | None, int | None]
"""What tells the samples of a case from those of others: source, target, and of a stored corruption its severity."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The passes of the cases of one kind, at most; of `unknown` of them nobody can tell."""

    kind: str
    cases: int
    passes: Passes
    unknown: int


@dataclass(frozen=True, kw_only=True)
class Minutes:
    """How long all of it takes, by a run that measured so many of its cases."""

    minutes: float
    run: Run
    cases: int


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run costs that finds no measurement kept. `remarks` say aloud what the figures leave out."""

    kinds: tuple[Spent, ...]
    minutes: Minutes | None
    remarks: tuple[str, ...]

    @property
    def passes(self) -> Passes:
        """Those of all cases of which they are known."""
        return sum((one.passes for one in self.kinds), Passes())

    @property
    def unknown(self) -> int:
        """Of how many cases they are not."""
        return sum(one.unknown for one in self.kinds)


def data_of(plan: Plan, case: Case) -> Data:
    """Return what tells the samples of a case from those of others."""
    is_stored = case.variant.source in plan.configuration.stored and case.shift.corruption is not None
    stored = (case.shift.corruption, case.shift.severity) if is_stored else (None, None)
    return (case.variant.source, case.shift.target, *stored)


def cost(plan: Plan, extents: Mapping[Data, Extent], history: History | None = None) -> Cost:
    """Return what a run of a plan costs, of what is known of its data, and of the runs before.

    The longest of these runs tells the minutes: in the others more was kept. Its seconds are scaled by the passes of
    its cases and of all, both taken in full.
    """
    extents = {**(_measured(plan, history) if history else {}), **extents}
    passes = {key(case): found for case, found in _of_cases(plan, extents)}
    kinds = Counter(case.shift.kind for case in plan.cases)
    spent = []
    for kind, count in kinds.items():
        found = [one for (of, _), one in passes.items() if of == kind]
        known = [one for one in found if one is not None]
        spent.append(Spent(kind=kind, cases=count, passes=sum(known, Passes()), unknown=count - len(known)))
    remarks = tuple(_remarks(plan, extents))
    return Cost(kinds=tuple(spent), minutes=_minutes(passes, history), remarks=remarks)


def case_passes(plan: Plan, case: Case, extents: Mapping[Data, Extent], *, gradient_free: bool = True) -> Passes | None:
    """Return the most that measuring a case takes, on all of its samples; None where nobody can tell.

    `gradient_free` says whether that figure of a file is measured with it: attacks of one budget share it.
    """
    extent = extents.get(data_of(plan, case))
    if extent is None:
        return None
    kind = case.shift.kind
    if kind == "masking":
        return _masking(plan, case, extent)
    if kind == "stability":
        return _stability(plan.stability_rules[case.name].component, extent)
    if kind != "adversarial":
        return Passes(forward=extent.samples)
    if case.shift.attack in plan.configuration.unions:
        return Passes()
    attack = plan.configuration.attacks[case.shift.attack or ""]
    each = _attacked(plan, case.variant, attack, extent, gradient_free=gradient_free)
    return None if each is None else each * extent.samples


def _of_cases(plan: Plan, extents: Mapping[Data, Extent]) -> Iterable[tuple[Case, Passes | None]]:
    """Yield each case with what it adds to the others."""
    seen: set[tuple[Variant, str, float]] = set()
    for case in plan.cases:
        attack = plan.configuration.attacks.get(case.shift.attack or "")
        budgets = {(case.variant, attack.norm, attack.eps)} if attack is not None and attack.needs_gradient else set()
        yield case, case_passes(plan, case, extents, gradient_free=not budgets <= seen)
        seen |= budgets


def _attacked(plan: Plan, variant: Variant, attack: Attack, extent: Extent, *, gradient_free: bool) -> Passes | None:
    """Return the most that attacking one sample takes, the question whether it is right as it is among it.

    An artifact whose gradient is not its own is attacked through its twin, whose answer to the clean image is compared
    with its own; by the reference's examples, as they are and at the edge of the budget; and without gradients.
    """
    asked = _asked(attack, extent.values)
    if asked is None:
        return None
    walk = _walk(plan, variant, asked, minimizes=attack.minimizes)
    if not attack.needs_gradient or not _is_file(plan, variant):
        return Passes(forward=1) + walk
    transferred = Passes(forward=3)
    twin = Passes(forward=2) + walk if _has_twin(plan, variant) else Passes()
    return transferred + twin + (_gradient_free(plan, attack) if gradient_free else Passes())


def _gradient_free(plan: Plan, attack: Attack) -> Passes:
    queries = plan.configuration.gate.gradient_free_queries
    asked = GradientFree(eps=attack.eps, norm=attack.norm, queries=queries).passes(None)
    return Passes(forward=1 + CONFIRMED) + asked


def _walk(plan: Plan, variant: Variant, asked: Passes, *, minimizes: bool = False) -> Passes:
    """Return what a walk takes that asks so much; of a file each gradient is its twin's, beside its own answer."""
    gate = plan.configuration.gate
    beside = NEAREST_CONFIRMED if minimizes else CONFIRMED
    if gate.mixed_precision and gate.device != "cpu":
        beside += asked.forward  # in bfloat16 anything may seem to have fallen
    if _is_file(plan, variant):
        beside += min(asked.forward, asked.backward)
    return asked + Passes(forward=beside)


def _masking(plan: Plan, case: Case, extent: Extent) -> Passes:
    """Return what the checks take: samples are asked until enough are right, then each is walked with."""
    settings, shift = plan.configuration.masking, case.shift
    budget: dict[str, Any] = {"eps": shift.eps, "norm": shift.norm}
    plain, long = (Pgd(**budget, steps=steps).passes(None) for steps in (settings.steps, LONGER * settings.steps))
    square = Square(**budget, queries=settings.queries).passes(None)
    walks = (plain, PLAIN_WALKS), (long, LONG_WALKS), (square, SQUARES)
    each = sum((_walk(plan, case.variant, asked) * count for asked, count in walks), Passes(forward=1, backward=1))
    return Passes(forward=extent.samples) + each * min(settings.samples, extent.samples)


def _stability(component: Any, extent: Extent) -> Passes:
    """Return what the search takes: each transformation alone, all together, and the untouched images."""
    tried = 1 + component.examples * (len(component.transformations) + 1)
    return Passes(forward=tried * min(component.samples, extent.samples))


def _asked(attack: Attack, values: int | None) -> Passes | None:
    """Return what an attack says of itself, None where it does not."""
    passes = getattr(attack, "passes", None)
    found: Passes | None = passes(values) if passes is not None else None
    return found


def _is_file(plan: Plan, variant: Variant) -> bool:
    steps = plan.chains[variant.compression]
    return bool(steps) and getattr(steps[-1].component, "product", None) == "file"


def _has_twin(plan: Plan, variant: Variant) -> bool:
    component = plan.chains[variant.compression][-1].component
    if not isinstance(component, Artifact):
        return True
    return runtime_of(component.files[variant.model][variant.source]) not in WITHOUT_GRADIENT


def _measured(plan: Plan, history: History) -> dict[Data, Extent]:
    """Return how many samples the cases had in the last run that measured them."""
    named = {key(case): case for case in plan.cases if case.shift.kind not in AT_ONCE}
    found: dict[Data, tuple[int, int]] = {}
    for series in history.series:
        case, last = named.get((series.kind, series.name)), series.points[-1]
        if case is not None and last.n_total is not None:
            place = data_of(plan, case)
            found[place] = max(found.get(place, (0, 0)), (last.run, last.n_total))
    return {place: Extent(samples=samples) for place, (_, samples) in found.items()}


def _minutes(passes: Mapping[tuple[str, str], Passes | None], history: History | None) -> Minutes | None:
    if history is None:
        return None
    measured: dict[int, list[Passes]] = {}
    for series in history.series:
        found = passes.get((series.kind, series.name))
        if found is not None:
            for point in series.points:
                measured.setdefault(point.run, []).append(found)
    runs = [run for run in history.runs if sum(map(_work, measured.get(run.number, ())))]
    if not runs:
        return None
    run = max(runs, key=lambda run: run.seconds)
    whole = sum(_work(one) for one in passes.values() if one is not None)
    part = sum(map(_work, measured[run.number]))
    return Minutes(minutes=run.seconds / 60 * whole / part, run=run, cases=len(measured[run.number]))


def _work(passes: Passes) -> int:
    return passes.forward + passes.backward


def _remarks(plan: Plan, extents: Mapping[Data, Extent]) -> Iterable[str]:
    """Yield what the figures leave out, and why."""
    places = dict.fromkeys(data_of(plan, case) for case in plan.cases)
    unknown = [_told(plan, place) for place in places if place not in extents]
    if unknown:
        yield f"how many images there are is not known before a run: {listing(dict.fromkeys(unknown))}"
    gate = plan.configuration.gate
    silent = [name for name, attack in plan.configuration.attacks.items() if _asked(attack, 1) is None]
    if silent:
        caps = f"{gate.attack_queries:,} queries a sample and {gate.attack_seconds:g} s a case"
        yield f"not counted, for they do not say what they ask: {listing(silent)}; the engine stops them at {caps}"
    sized = [name for name, attack in plan.configuration.attacks.items() if _is_silent_without_size(attack)]
    if sized and any(extent.values is None for extent in extents.values()):
        yield f"not counted where the images' size is not known before a run: {listing(sized)}"
    if any(case.shift.kind == "stability" for case in plan.cases):
        yield "stability: what breaks a rule is made milder in further tries, which are not counted"


def _is_silent_without_size(attack: Attack) -> bool:
    return _asked(attack, None) is None and _asked(attack, 1) is not None


def _told(plan: Plan, place: Data) -> str:
    source, target, corruption, _ = place
    return target or (plan.configuration.stored[source] if corruption else source)
