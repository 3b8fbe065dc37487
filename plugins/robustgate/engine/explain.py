"""A judged case in words: what a person reads whose CI turned red."""

from __future__ import annotations

from robustgate.core.records import MASKED_SHARE, CaseResult, Finding, Verdict

PREFIX: dict[Verdict, str] = {
    "pass": "",
    "fail": "",
    "undecided": "undecided at this confidence: ",
    "waived": "waived: ",
    "incomplete": "not measured: ",
    "error": "error: ",
}


def explain(result: CaseResult) -> str:
    """Return the case, its figures, every rule that did not pass, the classes that lost most, how to run it again."""
    heading = f"{result.model} / {result.compression} / {result.source} {result.shift.phrase}"
    lines = [heading]
    if result.value is None:
        lines.append(f"  {result.message}")
    else:
        lines.append(f"  {_figures(result)}")
    lines += [f"  {told(finding)}" for finding in result.findings if finding.verdict != "pass"]
    if result.most_lost:
        losses = (f"{loss.name} {100 * loss.reference:.0f} → {100 * loss.value:.0f} %" for loss in result.most_lost)
        lines.append(f"  most lost: {', '.join(losses)}")
    if result.reproduce:
        lines.append(f"  {result.reproduce}")
    return "\n".join(lines)


def _figures(result: CaseResult) -> str:
    value, low, high = (100 * (figure or 0.0) for figure in (result.value, result.low, result.high))
    if result.shift.kind == "masking":
        stand = f"{result.correct:,} of {result.n:,} images, all right without attack, stand under all attacks together"
        return f"{stand}: {value:.1f} % [{low:.1f}, {high:.1f}]"
    if result.shift.kind == "stability":
        return f"{result.correct:,} of {result.n:,} predictions stay as they are: {value:.1f} % [{low:.1f}, {high:.1f}]"
    interval = "" if low == value == high else f" [{low:.1f}, {high:.1f}]"
    images = f"{result.n:,}" if result.n == result.n_total else f"{result.n:,} of {result.n_total:,}"
    text = f"accuracy {value:.1f} %{interval} on {images} images"
    if result.reference_value is not None and result.compression != "none":
        text += f"; the reference holds {100 * result.reference_value:.1f} %"
    return text


def told(finding: Finding) -> str:
    """Return a rule that did not pass, with its figures."""
    waiver = f" ({finding.waiver})" if finding.waiver else ""
    if finding.metric == MASKED_SHARE:
        return f"{PREFIX[finding.verdict]}{finding.rule}: {finding.message}{waiver}"
    return f'{PREFIX[finding.verdict]}rule "{finding.rule}" of policy {finding.policy}: {finding.message}{waiver}'
