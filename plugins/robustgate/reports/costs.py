"""What each variant costs on a device, against its reference."""

from __future__ import annotations

from dataclasses import dataclass

from robustgate.core.records import REFERENCE, Results, VariantRecord
from robustgate.reports import figures
from robustgate.reports.view import variant_label

UNKNOWN = "not measured"
# The columns of a table of costs, in order: the field of a `Cost`, and its heading.
COLUMNS = {
    "size": "size",
    "share": "of reference",
    "deflated": "deflated",
    "ratio": "compression (deflated)",
    "parameters": "parameters",
    "nonzero": "nonzero",
    "bits": "bits a parameter (deflated)",
    "macs": "MACs",
    "latency": "latency",
    "memory": "peak memory",
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a variant costs, each figure as it is printed.

    `share` is its size against its reference's, `ratio` its reference's deflated bytes against its own; `latency` is
    one image's, with its ratio to the reference's.
    """

    title: str
    format: str
    size: str
    share: str
    deflated: str
    ratio: str
    parameters: str
    nonzero: str
    bits: str
    macs: str
    latency: str
    memory: str
    build: str

    @property
    def cells(self) -> list[str]:
        """The figures under COLUMNS."""
        return [str(getattr(self, name)) for name in COLUMNS]


def costs(results: Results) -> list[Cost]:
    """Return the costs of every variant that was built."""
    references = {
        (record.model, record.source): record for record in results.variants if record.compression == REFERENCE
    }
    return [_cost(record, references.get((record.model, record.source))) for record in results.variants]


def _cost(record: VariantRecord, reference: VariantRecord | None) -> Cost:
    share = record.size_bytes / reference.size_bytes if reference and reference.size_bytes else None
    return Cost(
        title=variant_label(record),
        format=record.format,
        size=figures.size(record.size_bytes),
        share=figures.NOTHING if share is None else figures.percent(share),
        deflated=figures.size(record.deflated_bytes),
        ratio=UNKNOWN if record.compression_ratio is None else f"{record.compression_ratio:.3g}x",
        parameters=UNKNOWN if record.parameters is None else figures.count(record.parameters),
        nonzero=_nonzero(record),
        bits=UNKNOWN if record.effective_bits is None else f"{record.effective_bits:.3g}",
        macs=UNKNOWN if record.macs is None else figures.scaled(record.macs),
        latency=_latency(record),
        memory=UNKNOWN if record.memory_bytes is None else figures.size(record.memory_bytes),
        build=figures.duration(record.seconds_to_build),
    )


def _nonzero(record: VariantRecord) -> str:
    if record.nonzero_parameters is None or record.parameters is None:
        return UNKNOWN
    return figures.percent(record.nonzero_parameters / record.parameters) if record.parameters else figures.NOTHING


def _latency(record: VariantRecord) -> str:
    if record.latency_ms is None:
        return UNKNOWN
    single = next((timing for timing in record.timings if timing.batch == 1), None)
    ratio = (
        "" if single is None else f", {single.ratio:.3g} [{single.ratio_low:.3g}, {single.ratio_high:.3g}] of reference"
    )
    return f"{record.latency_ms:.3g} ms{ratio}"
