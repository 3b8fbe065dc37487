"""What a report shows beside a run's results."""

from __future__ import annotations

from dataclasses import dataclass

from robustgate.core.assessments import Assessment
from robustgate.reports.history import History


@dataclass(frozen=True, kw_only=True)
class Supplement:
    """An assessment of the run's variants, and the runs before. Of each, where there is none, why, if that is known."""

    assessment: Assessment | None = None
    unassessed: str = ""
    history: History | None = None
    unread: str = ""


NOTHING = Supplement()
