"""Every error that robustgate raises on purpose.

    RobustgateError
    ├── ConfigurationError     robustgate.toml or an option says something impossible
    ├── DomainError            a data set does not hold what it should
    ├── ModelError             weights, factory or artifact do not fit
    ├── CompressionError       a step cannot do what it was asked
    ├── MeasurementError       a case cannot be measured
    ├── ResultsError           a results file is damaged or of another kind
    └── BaselineError          there is no accepted outcome that a case can be compared with

A message says where, what was expected, what was found and, for a name, the nearest one that exists.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MOST_LISTED = 20


class RobustgateError(Exception):
    """Root of all: catch this one to catch them all."""


class ConfigurationError(RobustgateError):
    """The configuration is wrong; `problems` holds every mistake found, one line each."""

    def __init__(self, problems: Sequence[str], *, source: str | None = None) -> None:
        self.problems = tuple(problems)
        self.source = source
        count = len(self.problems)
        heading = f"{source}: {count} mistake{'s' if count != 1 else ''}" if source else None
        lines = [f"  {problem}" for problem in self.problems] if heading else list(self.problems)
        super().__init__("\n".join([heading, *lines] if heading else lines))


class DomainError(RobustgateError):
    """A data set cannot be read, or does not hold what its configuration says."""


class ModelError(RobustgateError):
    """A factory, a weight file or an artifact does not give the network that was asked for."""


class CompressionError(RobustgateError):
    """A compression step cannot be applied to this network."""


class MeasurementError(RobustgateError):
    """A case cannot be measured: NaN logits, no gradient where one is needed, a wrong shape."""


class ResultsError(RobustgateError):
    """A results file is damaged, or not of the schema that this version reads."""


class BaselineError(RobustgateError):
    """A baseline is missing, damaged or of another schema, or holds nothing that a case can be compared with."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known name closest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def listing(names: Iterable[str]) -> str:
    """Return names as they appear in a message: sorted, comma-separated, the first 20 of many, or ``(none)``."""
    known = sorted(names)
    shown = ", ".join(known[:MOST_LISTED]) or "(none)"
    return shown if len(known) <= MOST_LISTED else f"{shown} and {len(known) - MOST_LISTED:,} more"
