"""The study's report, made of what is kept: nothing in it is written by hand but what the claims say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from claims import ADAPTED, ADAPTED_FROM, ATTACKED, CLAIMS, CLEAN, CORRUPTED, SHARPENED, Claim
from evidence import CONFIDENCE, Evidence, Network, Verdict, together, weigh
from matplotlib.figure import Figure
from measuring import Results, Task

from robustgate.core.files import write_whole
from robustgate.reports.marks import FONT, Mark, place_labels

SIZES = (50, 100, 150, 200, 300, 500, 1000)
COLOURS = {"supported": "#1a7f37", "contradicted": "#b42318", "undecided": "#667085"}
HEAD = f"""# The study

What papers claim of compressed networks, put to the test with this tool: each claim against the control that its paper
lacks, on the artifact that ships. Made by `make study` from `plugins/studies/results.json`; how, says
`plugins/studies/study.py`.

An effect is a difference of accuracies on the same images, in points. Its interval, at {CONFIDENCE:.0%} (Bonferroni
over the contrasts of a claim), is over images, for these very networks; what another training would have changed shows
in the effects of the single seeds. A contrast is *supported* where the whole interval and every seed are on the side
that is claimed, *contradicted* where they are on the other, else *undecided*. A claim is supported where all its
contrasts are, and contradicted where one is; claims 8 and 9 speak of some compressions, and one suffices. What is in
brackets is told beside a claim and decides nothing. Corruptions are the fifteen of the benchmark at severity 3. PGD is
at 1/255, Square, which asks for no gradient, at 2/255 with 300 queries.
"""


def write_report(results: Results, seeds: Sequence[int], folder: Path) -> None:
    """Write study.md and its pictures into a folder."""
    judged = [(claim, *_judged(claim, results, seeds)) for claim in CLAIMS]
    parts = [HEAD, _machine(results), _summary(judged), "![All contrasts](study-contrasts.svg)\n"]
    parts += [_section(*one) for one in judged]
    parts += [_adapted(results, seeds), _sharpness(results, seeds), _masking(results), _networks(results, seeds)]
    text = "\n".join(part for part in parts if part)
    _contrasts(judged, folder / "study-contrasts.svg")
    _tradeoff(results, seeds, folder / "study-tradeoff.svg")
    write_whole(folder / "study.md", text)


def _judged(
    claim: Claim, results: Results, seeds: Sequence[int]
) -> tuple[Verdict | None, list[Evidence], list[Evidence]]:
    """Return a claim's verdict, what decides it, and what is told beside it; no verdict where nothing is measured."""
    deciding = claim.all_of or claim.any_of
    found = [one for one in (weigh(contrast, results, seeds, len(deciding)) for contrast in deciding) if one]
    beside = [one for one in (weigh(contrast, results, seeds) for contrast in claim.beside) if one]
    if len(found) < len(deciding):
        return None, found, beside
    return together(found, one_suffices=bool(claim.any_of)), found, beside


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _interval(one: Evidence) -> str:
    return f"{_points(one.effect)} [{_points(one.low)}, {_points(one.high)}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _summary(judged: Sequence[tuple[Claim, Verdict | None, list[Evidence], list[Evidence]]]) -> str:
    rows = []
    for claim, verdict, found, _ in judged:
        effects = "<br>".join(f"{one.contrast.name}: {_interval(one)}" for one in found)
        seeds = {len(one.by_seed) for one in found}
        counts = "/".join(map(str, sorted(seeds))) or "0"
        rows.append([str(claim.number), claim.title, f"**{verdict or 'not measured'}**", effects, counts])
    return "## Verdicts\n\n" + _table(["", "claim", "verdict", "effect, points", "seeds"], rows)


def _section(claim: Claim, verdict: Verdict | None, found: list[Evidence], beside: list[Evidence]) -> str:
    lines = [
        f"## {claim.number}. {claim.title}",
        "",
        f"{claim.paper}. Control: {claim.control}.",
        "",
        f"**{(verdict or 'not measured').capitalize()}.** What would change it: {_change(claim, verdict, found)}.",
        "",
        _table(
            ["contrast", "effect", "each seed", "images", "claimed", "verdict"],
            [_row(one, decides=True) for one in found] + [_row(one, decides=False) for one in beside],
        ),
    ]
    return "\n".join(lines)


def _row(one: Evidence, *, decides: bool) -> list[str]:
    each = ", ".join(_points(effect) for effect in one.by_seed)
    limit = f"{'below' if one.contrast.below else 'above'} {100 * one.contrast.limit:g}"
    return [
        one.contrast.name,
        _interval(one),
        each,
        f"{one.n:,}",
        limit,
        one.verdict if decides else f"({one.verdict})",
    ]


def _change(claim: Claim, verdict: Verdict | None, found: Sequence[Evidence]) -> str:
    if verdict != "undecided":
        return claim.would_change
    unsure = [one for one in found if one.verdict == "undecided"]
    counts = [count for one in unsure if (count := one.images_to_decide) is not None]
    more = f"about {max(counts):,} images, if effects are what they seem; " if counts else ""
    seeds = "seeds that agree; " if len(counts) < len(unsure) else ""
    return f"{more}{seeds}{claim.would_change}"


def _adapted(results: Results, seeds: Sequence[int]) -> str:
    rows = []
    for contrast, from_original in zip(ADAPTED, ADAPTED_FROM, strict=True):
        one, before = weigh(contrast, results, seeds), weigh(from_original, results, seeds)
        if one is None or before is None:
            continue
        adapted, original = contrast.terms[0], from_original.terms[1]
        measured = [seed for seed in seeds if results.has(adapted.network.task(seed, "whole"))]
        was, now = (
            np.mean([results.right(term.network.task(seed, "whole"), term.shifts[0]).mean() for seed in measured])
            for term in (original, adapted)
        )
        rows.append(
            [contrast.name, f"{was:.1%}", f"{now:.1%}", _interval(before), _interval(one), f"{one.n:,}", one.verdict]
        )
    if not rows:
        return ""
    head = ["", "before", "after", "gain", "gain over the same training without the target", "images", "a gain?"]
    return (
        "## Deep CORAL\n\nAccuracy on the target's test split; its other images were looked at, without labels.\n\n"
        + _table(head, rows)
    )


def _sharpness(results: Results, seeds: Sequence[int]) -> str:
    rows = []
    for contrast in SHARPENED:
        pruned, control = (term.network for term in contrast.terms)
        cells = [pruned.compression]
        for network in (control, pruned):
            tasks = [network.task(seed, "whole") for seed in seeds]
            found = [results.facts(task)["sharpness"] for task in tasks if results.has(task)]
            cells.append(", ".join(f"{one:.3f}" for one in found) or "not measured")
        rows.append(cells)
    return (
        "## Sharpness\n\nHow much the loss on 500 training images rises at most within 0.05 of the weights (l2, five "
        "steps of projected ascent), each seed: the same training without pruning, and with it.\n\n"
        + _table(["", "without pruning", "pruned"], rows)
    )


def _masking(results: Results) -> str:
    rows = []
    for name, found in sorted(results.tasks.items()):
        for norm, told in sorted(found.get("masking", {}).items()):
            if told["verdict"] != "pass":
                why = "; ".join(told["failing"]).replace("|", "/").replace("\n", " ") or "nothing could be decided"
                rows.append([name, norm, told["verdict"], why])
    checked = sum("masking" in found for found in results.tasks.values())
    head = f"## Masking\n\n{checked} attacked networks were checked for gradient masking, 50 images each.\n\n"
    return head + (_table(["network", "norm", "verdict", "why"], rows) if rows else "None of them shows any.\n")


def _networks(results: Results, seeds: Sequence[int]) -> str:
    rows = []
    for network in _all(results):
        tasks = [task for seed in seeds if results.has(task := network.task(seed, "whole"))]
        attacked = [task for seed in seeds if results.has(task := network.task(seed, "attacked"))]
        if not tasks:
            continue
        facts = results.facts(tasks[0])
        cells = [
            network.setting,
            network.source,
            network.model,
            f"`{network.compression}`",
            f"{facts['bytes'] / 1000:,.0f}",
        ]
        cells += [_mean(results, tasks, shifts) for shifts in (CLEAN, CORRUPTED)]
        cells += [_mean(results, attacked, (shift,)) for shift in ATTACKED]
        rows.append([*cells, str(len(tasks))])
    head = ["", "source", "model", "compression", "kB", "clean", "corrupted", *ATTACKED, "seeds"]
    picture = "![Size and accuracy](study-tradeoff.svg)\n\n"
    return "## The networks\n\nAccuracies in %, sizes deflated.\n\n" + picture + _table(head, rows)


def _all(results: Results) -> list[Network]:
    found = (name.split("/") for name in sorted(results.tasks))
    return list(dict.fromkeys(Network(setting, *rest) for setting, _, _, *rest in found))


def _mean(results: Results, tasks: Sequence[Task], shifts: Sequence[str]) -> str:
    there = [task for task in tasks if all(shift in results.facts(task)["shifts"] for shift in shifts)]
    if not there:
        return ""
    return f"{100 * float(np.mean([results.right(task, shift).mean() for task in there for shift in shifts])):.1f}"


def _machine(results: Results) -> str:
    told = ", ".join(f"{key} {value}" for key, value in sorted(results.machine.items()))
    hours = sum(found["seconds"] for found in results.tasks.values()) / 3600
    return f"{len(results.tasks)} networks measured in {hours:.1f} hours of one process ({told}).\n"


def _contrasts(judged: Sequence[tuple[Claim, Verdict | None, list[Evidence], list[Evidence]]], file: Path) -> None:
    rows = [(f"{claim.number}  {one.contrast.name}", one) for claim, _, found, _ in judged for one in found]
    figure = Figure(figsize=(9, 0.5 + 0.28 * max(1, len(rows))), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, one) in enumerate(rows):
        colour = COLOURS[one.verdict]
        axes.plot([100 * one.low, 100 * one.high], [place, place], color=colour, linewidth=2)
        axes.plot([100 * effect for effect in one.by_seed], [place] * len(one.by_seed), "|", color=colour, markersize=8)
        axes.plot(100 * one.effect, place, "<" if one.contrast.below else ">", color=colour, markersize=6)
        if one.contrast.limit:
            limit = 100 * one.contrast.limit
            axes.plot([limit, limit], [place - 0.5, place + 0.5], ":", color="#98a2b3", zorder=0)
    axes.axvline(0, color="#98a2b3", linewidth=1, zorder=0)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(
        "points; a triangle points to where the claim says it lies, ticks are seeds, dotted lines limits other than 0\n"
        "green: supported, red: contradicted, grey: undecided",
        fontsize=8,
    )
    _save(figure, file)


def _tradeoff(results: Results, seeds: Sequence[int], file: Path) -> None:
    figure = Figure(figsize=(9, 5), dpi=72, layout="constrained")  # a pixel is a point, as in an SVG
    axes = figure.add_subplot()
    points = []
    for network in _all(results):
        tasks = [task for seed in seeds if results.has(task := network.task(seed, "whole"))]
        if network.setting != "cifar10" or network.model != "resnet20" or not tasks or "control" in network.compression:
            continue
        told = _mean(results, tasks, CORRUPTED)
        if told:
            points.append((float(told), results.facts(tasks[0])["bytes"] / 1000, network.compression))
    axes.plot([size for _, size, _ in points], [mean for mean, _, _ in points], "o", color="#1570ef")
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.set_xticks([size for size in SIZES if points and size >= min(point[1] for point in points) / 1.2])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlabel("kB, deflated")
    axes.set_ylabel("accuracy over fifteen corruptions, %")
    axes.set_title("ResNet-20 on CIFAR-10", fontsize=10)
    # Where things lie is known once the axes are laid out. Marks count from the upper edge, matplotlib from the lower.
    figure.draw_without_rendering()
    tall, (left, low, right, high) = figure.bbox.height, axes.bbox.extents
    marks = []
    for mean, size, name in points:
        x, y = axes.transData.transform((size, mean))
        marks.append(Mark(x=x, y=tall - y, shape="circle", kind="", title=name))
    wishes = [(place, [mark.title]) for place, mark in enumerate(marks)]
    for label in place_labels(marks, wishes, (left, tall - high, right, tall - low)):
        x, y = label.leader or (label.x, label.y)
        axes.annotate(
            label.text,
            (x, tall - y),
            xycoords="figure points",
            xytext=(label.x, tall - label.y),
            textcoords="figure points",
            arrowprops={"arrowstyle": "-", "color": "#98a2b3"} if label.leader else None,
            fontsize=FONT,
            ha={"start": "left", "middle": "center", "end": "right"}[label.anchor],
            va="center",
        )
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    # The same results make the same file: names of parts are hashes, and no date is in it.
    with mpl.rc_context({"svg.hashsalt": "robustgate", "svg.fonttype": "none"}):
        figure.savefig(file, metadata={"Date": None})
