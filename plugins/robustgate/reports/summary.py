"""The run's verdict for the terminal."""

from __future__ import annotations

from collections import Counter

from robustgate.core.records import Results
from robustgate.reports import policies


def summarize(results: Results) -> list[str]:
    """Return the lines of the closing summary, the verdict first."""
    run = results.run
    counts = Counter(row.verdict for row in results.cases if row.selected)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in counts)
    kept = sum(row.cached for row in results.cases)
    lines = [
        f"{run.verdict}: {run.measured:,} of {run.planned:,} planned cases measured ({kept:,} kept from before)"
        + (f": {told}" if told else "")
    ]
    if len(run.policies) > 1:
        lines += [
            f"policy {one.name}, {policies.SCOPES[one.scope]}: {one.verdict}: {policies.tally(one.findings)}"
            for one in run.policies
        ]
    seen, whole = (sum(counted) for counted in zip(*((row.n, row.n_total) for row in results.cases), strict=True))
    if seen < whole:
        lines.append(f"{seen:,} of the {whole:,} samples of these cases were enough for their verdicts")
    costs = Counter(finding.verdict for finding in results.findings)
    if costs:
        lines.append("rules on variants: " + ", ".join(f"{count} {verdict}" for verdict, count in costs.items()))
    if run.selected < run.planned:
        left = run.planned - run.selected
        lines.append(f"{left:,} cases were not selected: this run certifies nothing as a whole")
    unruled = sum(not row.findings for row in results.cases if row.value is not None)
    if unruled:
        lines.append(f"{unruled:,} cases were measured under no rule of {policies.the_policies(results)}")
    return lines + [line for expired in (True, False) for line in policies.warnings(results, expired=expired)]
