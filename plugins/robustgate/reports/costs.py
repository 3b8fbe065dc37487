"""What each variant costs on a device, against its reference."""

from __future__ import annotations

from dataclasses import dataclass

from robustgate.core.records import REFERENCE, Results, VariantRecord
from robustgate.reports import figures
from robustgate.reports.view import variant_label


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a variant costs, each figure as it is printed; `share` is its size against its reference's."""

    title: str
    format: str
    size: str
    share: str
    deflated: str
    parameters: str
    nonzero: str
    macs: str
    latency: str
    build: str


def costs(results: Results) -> list[Cost]:
    """Return the costs of every variant that was built."""
    references = {
        (record.model, record.source): record for record in results.variants if record.compression == REFERENCE
    }
    return [_cost(record, references.get((record.model, record.source))) for record in results.variants]


def _cost(record: VariantRecord, reference: VariantRecord | None) -> Cost:
    nonzero = record.nonzero_parameters / record.parameters if record.parameters else None
    share = record.size_bytes / reference.size_bytes if reference and reference.size_bytes else None
    return Cost(
        title=variant_label(record),
        format=record.format,
        size=figures.size(record.size_bytes),
        share=figures.NOTHING if share is None else figures.percent(share),
        deflated=figures.size(record.deflated_bytes),
        parameters=figures.count(record.parameters),
        nonzero=figures.NOTHING if nonzero is None else figures.percent(nonzero),
        macs="not measured" if record.macs is None else figures.scaled(record.macs),
        latency="not measured" if record.latency_ms is None else f"{record.latency_ms:.3g} ms",
        build=figures.duration(record.seconds_to_build),
    )
