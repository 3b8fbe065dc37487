"""report.html: one file that asks nobody for anything."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from robustgate.core.records import Results
from robustgate.reports import (
    assessments,
    details,
    figures,
    losses,
    masking_checks,
    policies,
    provenance,
    severities,
    view,
)
from robustgate.reports.budgets import families
from robustgate.reports.costs import COLUMNS, costs
from robustgate.reports.curves import charts
from robustgate.reports.lines import FAINT
from robustgate.reports.marks import SHAPES
from robustgate.reports.matrix import matrices
from robustgate.reports.overall import EXPLANATION as OVER_ALL_SHIFTS
from robustgate.reports.overall import overall_table
from robustgate.reports.pictures import OPEN as OPEN_CASES
from robustgate.reports.pictures import gallery
from robustgate.reports.supplement import NOTHING, Supplement
from robustgate.reports.tradeoff import legend, trades
from robustgate.reports.trends import trends
from robustgate.reports.troubles import OPEN, troubles


def render(results: Results, supplement: Supplement = NOTHING) -> str:
    """Return the report as a self-contained HTML page. Text from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("robustgate.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = troubles(results)
    pictured = trades(supplement.assessment)
    return environment.get_template("report.html.j2").render(
        results=results,
        run=results.run,
        supplement=supplement,
        assessments=assessments,
        trades=pictured,
        trade_legend=legend(pictured),
        history=trends(supplement.history, results) if supplement.history else None,
        shapes=SHAPES,
        view=view,
        figures=figures,
        details=details,
        policies=policies,
        verdict=view.STANDING[results.run.verdict],
        troubles=found[:OPEN],
        more_troubles=found[OPEN:],
        matrices=matrices(results),
        charts=charts(results),
        families=families(results),
        severity_groups=severities.groups(results),
        open_groups=severities.OPEN,
        faint=FAINT,
        gallery=gallery(results),
        open_cases=OPEN_CASES,
        groups=view.groups(results),
        losses=losses,
        loss_tables=losses.loss_tables(results),
        masking_checks=masking_checks,
        masking=masking_checks.masking_checks(results),
        overall=overall_table(results),
        over_all_shifts=OVER_ALL_SHIFTS,
        costs=costs(results),
        cost_heads=COLUMNS.values(),
        subjects=view.subjects(results),
        provenance=provenance,
        waived=view.waived(results),
    )
