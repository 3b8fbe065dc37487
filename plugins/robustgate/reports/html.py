"""report.html: one file that asks nobody for anything."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from robustgate.core.records import Results
from robustgate.reports import details, figures, policies, view
from robustgate.reports.costs import COLUMNS, costs
from robustgate.reports.curves import charts
from robustgate.reports.matrix import matrices
from robustgate.reports.overall import EXPLANATION as OVER_ALL_SHIFTS
from robustgate.reports.overall import overall_table
from robustgate.reports.pictures import OPEN as OPEN_CASES
from robustgate.reports.pictures import gallery
from robustgate.reports.supplement import NOTHING, Supplement
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
    return environment.get_template("report.html.j2").render(
        results=results,
        run=results.run,
        supplement=supplement,
        view=view,
        figures=figures,
        details=details,
        policies=policies,
        verdict=view.STANDING[results.run.verdict],
        troubles=found[:OPEN],
        more_troubles=found[OPEN:],
        matrices=matrices(results),
        charts=charts(results),
        gallery=gallery(results),
        open_cases=OPEN_CASES,
        groups=view.groups(results),
        overall=overall_table(results),
        over_all_shifts=OVER_ALL_SHIFTS,
        costs=costs(results),
        cost_heads=COLUMNS.values(),
        subjects=view.subjects(results),
        waived=view.waived(results),
    )
