"""Where a run comes from: the hashes of what went into it, and what makes it again."""

from __future__ import annotations

import shlex

from robustgate.core.records import CaseResult, Results
from robustgate.reports.view import variant_label, versions

# Versions that are none of a package to install: the interpreter's, and that of what was not there.
PYTHON, ABSENT = "python", "absent"


def install(results: Results) -> str:
    """Return the command that installs the versions of this run; of a local one (``2.10.0+cpu``), the public part."""
    packages = [
        f"{name}=={version.partition('+')[0]}"
        for name, version in versions(results)
        if name != PYTHON and version != ABSENT
    ]
    return shlex.join(["python", "-m", "pip", "install", *packages])


def artifacts(results: Results) -> list[tuple[str, str]]:
    """Return each variant and the SHA-256 of its artifact."""
    return [(variant_label(record), record.artifact_sha256) for record in results.variants]


def data(results: Results) -> list[tuple[str, str]]:
    """Return the data that cases were measured on, and its SHA-256; what is the same is told once."""
    found: dict[str, dict[str, None]] = {}
    for case in results.cases:
        if case.data is not None:
            found.setdefault(case.data, {})[_samples(case)] = None
    return [(", ".join(names), digest) for digest, names in found.items()]


def _samples(case: CaseResult) -> str:
    return f"{case.source} → {case.shift.target}" if case.shift.kind == "domain_shift" else case.source
