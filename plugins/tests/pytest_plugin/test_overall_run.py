"""Real runs of the suite with rules on outcomes: one test a variant, closed forms, nothing measured twice."""

from __future__ import annotations

import numpy as np
import pytest
from own_process import findings, results, suite
from typer.testing import CliRunner

from robustgate.cli import app

RULES = """
[[policies.edge.rules]]
name = "bears corruption"
rule = "mean_corruption_accuracy"
min = 0.5
[[policies.edge.rules]]
name = "keeps its answers"
where = { compression = "fp25" }
rule = "agreement"
min = %s
[[policies.edge.rules]]
name = "bears the night"
where = { compression = "fp25" }
rule = "worst_domain"
min = 0.1
"""
MCE = """
[[policies.edge.rules]]
name = "no worse than it was"
where = { compression = "fp25" }
rule = "mce"
max = 9.0
partial = true
"""
FP25 = "tiny-fp25-day"
# Without its weakest filter (0.1 of 3.1) the network sees an image as darker: the threshold moves up.
PRUNED_THRESHOLD = 127.5 * 3.1 / 3.0


@pytest.mark.parametrize("workers", ["0", "2"])
def test_every_rule_is_judged_once_a_variant_and_reported(tiny, workers: str) -> None:
    tiny.configure(extra=RULES % "0.5")
    done = suite(tiny.folder, "-n", workers)
    assert "14 passed" in done.stdout, done.stdout
    found, run = findings(tiny.folder), results(tiny.folder)
    assert {place: one["verdict"] for place, one in found.items()} == {
        ("tiny-none-day", "bears corruption"): "pass",
        (FP25, "bears corruption"): "pass",
        (FP25, "keeps its answers"): "pass",
        (FP25, "bears the night"): "pass",
    }
    assert (run["run"]["verdict"], run["run"]["complete"]) == ("pass", True)
    # Each of the twelve cases once, whoever asked about it first.
    assert len(list((tiny.folder / "cache" / "measurements").glob("*/0-*/outcomes.npz"))) == 12
    days, nights = (tiny.correct(levels, PRUNED_THRESHOLD) for levels in (tiny.day, tiny.night))
    kept = days / len(tiny.day)
    assert 0.5 < kept < 1
    assert found[FP25, "keeps its answers"]["value"] == pytest.approx(kept)
    assert found[FP25, "bears the night"]["value"] == pytest.approx(nights / len(tiny.night))
    cases = {case["name"]: case for case in run["cases"]}
    contrast = np.mean([cases[f"{FP25}-contrast_s{severity}"]["value"] for severity in (1, 5)])
    assert found[FP25, "bears corruption"]["value"] == pytest.approx(contrast)
    clean = cases[FP25]
    assert (clean["agreement"], clean["lost"], clean["gained"]) == pytest.approx((kept, 1 - kept, 0))
    assert [cases[f"{name}"]["agreement"] for name in (f"{FP25}-pgd", "tiny-none-day")] == [None, None]
    none, fp25 = run["overall"]
    assert (none["name"], none["clean"], none["agreement"]) == ("tiny-none-day", 1.0, None)
    assert (fp25["clean"], fp25["agreement"], fp25["worst_domain"]) == (
        pytest.approx(kept),
        clean["agreement"],
        "night",
    )
    assert fp25["mean_corruption_accuracy"] == pytest.approx(contrast)
    for report in ("report.md", "report.html"):
        text = (tiny.folder / "robustgate-report" / report).read_text()
        assert "Over all shifts" in text
        assert "bears corruption" in text


def test_what_breaks_or_cannot_be_measured_is_red_and_says_why(tiny) -> None:
    tiny.configure(extra=RULES % "0.99" + MCE)
    (tiny.folder / "night.npz").write_bytes(b"no archive")
    done = suite(tiny.folder, "-m", "overall")
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert 'rule "keeps its answers" of policy edge: min 99.0 %; the agreement is 97.2 %, on 144 images' in done.stdout
    assert "; right→wrong 2.8 %, wrong→right 0.0 %, wrong→other wrong 0.0 %" in done.stdout
    # Contrast leaves images of one grey as they are, and the reference knows them all.
    assert "max 900.0; mce_partial has no value: the reference makes no error at any severity" in done.stdout
    assert "min 10.0 %; worst_domain was not measured: domains.night: " in done.stdout
    assert '-k "test_overall[tiny-fp25-day]"' in done.stdout
    assert {rule: one["verdict"] for (subject, rule), one in findings(tiny.folder).items() if subject == FP25} == {
        "bears corruption": "pass",
        "keeps its answers": "fail",
        "bears the night": "incomplete",
        "no worse than it was": "incomplete",
    }
    run = results(tiny.folder)["run"]
    assert (run["complete"], run["verdict"], run["measured"]) == (False, "fail", 0)


def test_the_plan_names_what_will_be_judged(tiny) -> None:
    tiny.configure(extra=RULES % "0.5")
    told = CliRunner().invoke(app, ["plan", "--names"]).stdout
    assert "'bears corruption' judges 2 variants" in told
    assert "'keeps its answers' judges 1 variant" in told
    assert [line for line in told.splitlines() if line.startswith("test_overall")] == [
        "test_overall[tiny-none-day]",
        "test_overall[tiny-fp25-day]",
    ]


def test_a_figure_that_the_data_cannot_tell_says_so(tiny) -> None:
    population = ("[policies.edge]\n", '[policies.edge]\nscope = "population"\n')
    tiny.configure(population, extra=RULES % 0.95)
    done = suite(tiny.folder, "-m", "overall", "-k", FP25)
    (low, high) = (findings(tiny.folder)[FP25, "keeps its answers"][key] for key in ("low", "high"))
    limit = (low + high) / 2
    tiny.configure(population, extra=RULES % f"{limit:.4f}")
    done = suite(tiny.folder, "-m", "overall", "-k", FP25)
    assert done.returncode == 1
    assert 'undecided at this confidence: rule "keeps its answers" of policy edge: min ' in done.stdout
