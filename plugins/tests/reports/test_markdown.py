from __future__ import annotations

import re
from dataclasses import replace

import pytest

from robustgate.core.records import CaseResult, Results, Shift
from robustgate.reports import markdown, view
from robustgate.reports.troubles import troubles

HOSTILE = '</details></summary><img src=x onerror=alert(1)> a|b `code` ``` [x](http://e) *b* __c__ \\ &amp; "q"\n# head\n- item'


def section(text: str, heading: str) -> str:
    """What stands under a second-level heading."""
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_verdict_comes_first_then_failures(results: Results) -> None:
    text = markdown.render(results)
    assert text.startswith("# robustgate: ✗ fail\n\nA rule of the policy is broken. Policy **digits**, on new data, ")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == [
        "What did not pass, and why",
        "Accuracy",
        "Costs",
        "Rules on variants",
        "Waivers",
        "Provenance",
    ]


def test_every_trouble_is_told_worst_first_with_its_reproduce_line(results: Results) -> None:
    text = section(markdown.render(results), "What did not pass, and why")
    told = re.findall(r"^### . (\w+): ", text, re.MULTILINE)
    bad = [case for case in results.cases if case.verdict in ("fail", "undecided")]
    assert told == sorted(told, key=["fail", "undecided"].index)
    assert len(told) == len(bad) > 20
    for case in bad:
        assert f"```sh\n{case.reproduce}\n```" in text
    assert text.index("<details>") > text.index("undecided")


def test_a_failure_tells_what_the_terminal_tells(single: Results) -> None:
    text = section(markdown.render(single), "What did not pass, and why")
    assert "### ✗ fail: resnet20 / filter_pruning / handwritten under gaussian_noise, severity 5" in text
    assert "- accuracy 41.2 % \\[39.6, 42.8\\] on 2,000 images; the reference holds 50.3 %" in text
    assert (
        '- rule "holds under attack" of policy digits: max_drop 10.0 points; the drop is 12.9 \\[11.1, 14.6\\]\n'
        in text
    )
    assert "- most lost: 3: 50.0 → 21.0 %, 8: 54.5 → 24.0 %" in text


def test_a_message_that_repeats_the_findings_is_not_told_twice(single: Results) -> None:
    case = single.cases[0]
    message = "\n".join(["resnet20 ...", f"  {case.findings[0].message}", f"  {case.reproduce}"])
    repeated = markdown.render(replace(single, cases=(replace(case, message=message),)))
    assert repeated == markdown.render(single)


def test_counts(results: Results) -> None:
    counts = {row[0]: row[1] for row in rows(markdown.render(results).split("## ")[0])[2:]}
    verdicts = [case.verdict for case in results.cases if case.findings]
    bare = sum(not case.findings for case in results.cases)
    assert counts == {
        "✗ fail": str(verdicts.count("fail")),
        "? undecided": str(verdicts.count("undecided")),
        "~ waived": str(verdicts.count("waived")),
        "∅ no rule": str(bare),
        "✓ pass": str(verdicts.count("pass")),
    }


def test_the_matrix_gives_means_over_severities(results: Results) -> None:
    table = rows(section(markdown.render(results), "Accuracy").split("### ")[1])
    row = dict(zip(table[0], next(row for row in table if row[0] == "filter_pruning"), strict=True))
    severities = [
        case.value
        for case in results.cases
        if case.source == "handwritten" and case.compression == "filter_pruning" and case.shift.corruption == "fog"
        if case.value is not None
    ]
    assert len(severities) == 3
    assert row["fog"] == f"**{sum(severities) / 3 * 100:.1f} ({severities[2] * 100:.1f} at 5) ?**"
    assert row["clean"] == "93.8 ∅"
    assert row["pgd linf, eps 0.004, 40 steps"] == "**40.1 ✗**"
    assert all(len(row) == len(table[0]) == 13 for row in table)


def test_a_selection_certifies_nothing(selection: Results) -> None:
    text = markdown.render(selection)
    assert "> **315 of 360 planned cases were not selected: this run certifies nothing as a whole.**" in text
    table = rows(section(text, "Accuracy").split("### ")[1])
    assert table[2][1:10] == ["not selected —"] * 9
    assert not any(cell.startswith("0.0") for row in table for cell in row)


def test_a_whole_run_has_no_such_note(results: Results) -> None:
    assert "certifies nothing" not in markdown.render(results)


def test_no_mean_is_taken_over_a_part_of_the_severities(single: Results) -> None:
    case = single.cases[0]
    other = replace(case.shift, severity=3, name="gaussian_noise_s3")
    missing = CaseResult(
        name="other", model=case.model, source=case.source, compression=case.compression, shift=other,
        metric="accuracy", verdict="incomplete",
    )  # fmt: skip
    text = markdown.render(replace(single, cases=(case, missing)))
    assert rows(section(text, "Accuracy"))[2][1] == "**not measured (1 of 2) ✗**"


def test_no_rule_at_all_is_not_a_pass(single: Results) -> None:
    case = replace(single.cases[0], findings=(), verdict="pass")
    text = markdown.render(replace(single, cases=(case,), run=replace(single.run, verdict="pass")))
    assert "No rule was applied to anything." in text
    assert "1 case was measured under no rule." in text
    assert "✓ pass |" not in text


def test_an_expired_waiver_is_seen(results: Results) -> None:
    expired = replace(results, waivers=(replace(results.waivers[0], expired=True),))
    assert "> **1 waiver of the policy has expired.**" in markdown.render(expired)
    assert rows(section(markdown.render(expired), "Waivers"))[2] == [
        "digits", "source = scene, compression = filter_pruning", "2026-12-31", "expired", "2",
        "retraining, ticket 4711",
    ]  # fmt: skip


def test_a_failure_whose_waiver_expired_says_so(single: Results) -> None:
    case = single.cases[0]
    finding = replace(case.findings[0], waiver="expired on 2026-01-31: retraining")
    text = section(
        markdown.render(replace(single, cases=(replace(case, findings=(finding,)),))), "What did not pass, and why"
    )
    assert "(expired on 2026-01-31: retraining)\n" in text


def test_costs(results: Results) -> None:
    table = rows(section(markdown.render(results), "Costs"))
    assert table[0] == [
        "variant", "format", "size", "of reference", "deflated", "compression (deflated)", "parameters", "nonzero",
        "bits a parameter (deflated)", "MACs", "latency", "peak memory",
    ]  # fmt: skip
    assert table[2] == [
        "resnet20 / none / handwritten", "torch", "320.4 kB", "100.0 %", "292.2 kB", "1x", "78,042", "100.0 %", "30",
        "40.6 M", "not measured", "not measured",
    ]  # fmt: skip
    assert table[4][5] == "not measured"
    assert table[6][2:] == [
        "104.6 kB", "32.6 %", "81.2 kB", "3.6x", "78,042", "100.0 %", "8.32", "not measured",
        "0.412 ms, 0.666 [0.65, 0.68] of reference", "1.25 MB",
    ]  # fmt: skip


def test_what_cannot_be_counted_is_not_measured(results: Results) -> None:
    unknown = {"format": "litert", "parameters": None, "nonzero_parameters": None, "effective_bits": None}
    first = replace(results.variants[0], **unknown)
    table = rows(section(markdown.render(replace(results, variants=(first,))), "Costs"))
    assert (table[2][1], table[2][6:9]) == ("litert", ["not measured"] * 3)


def test_provenance_tells_how_to_run_it_again(results: Results) -> None:
    odd = replace(results, run=replace(results.run, config="my configs/a$b.toml"))
    text = section(markdown.render(odd), "Provenance")
    assert (
        "```sh\npytest --pyargs robustness_tests --robustgate-config 'my configs/a$b.toml' --robustgate-policy digits\n"
        in text
    )
    assert f"- configuration SHA-256: {results.run.config_sha256}" in text
    assert "- seed: 0" in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("`x`", "\\`x\\`"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("filter_pruning", "filter_pruning"),
        ("__init__", "\\_\\_init\\_\\_"),
        ("a\n# b", "a # b"),
        ("# b", "\\# b"),
        ("- b", "\\- b"),
        ("1. b", "1\\. b"),
        ("1.5 - b", "1\\.5 - b"),
        ("[x](y)", "\\[x\\](y)"),
        ("@team, see #12", "@&#8203;team, see #&#8203;12"),
        ("#12", "\\#&#8203;12"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert markdown.escape(text) == escaped


def test_no_code_can_close_its_fence() -> None:
    assert markdown.fenced("a ```` b") == "`````sh\na ```` b\n`````"


def test_hostile_text_stays_text(single: Results) -> None:
    case = single.cases[0]
    hostile = replace(
        single,
        run=replace(single.run, policy=HOSTILE, config=HOSTILE, versions={HOSTILE: HOSTILE}),
        variants=(replace(single.variants[0], model=HOSTILE, compression=HOSTILE),),
        cases=(
            replace(
                case,
                name=HOSTILE,
                model=HOSTILE,
                source=HOSTILE,
                compression=HOSTILE,
                reproduce=HOSTILE,
                shift=Shift(kind="adversarial", name=HOSTILE, attack=HOSTILE, detail=HOSTILE),
                findings=(replace(case.findings[0], message=HOSTILE, rule=HOSTILE),),
                most_lost=(replace(case.most_lost[0], name=HOSTILE),),
            ),
        ),
        findings=(replace(case.findings[0], subject=HOSTILE, message=HOSTILE, rule=HOSTILE),),
    )
    folds(markdown.render(hostile))
    text = re.sub(r"^(`{3,})sh\n.*?^\1$", "", markdown.render(hostile), flags=re.DOTALL | re.MULTILINE)
    assert "<img" not in text
    assert "onerror" in text
    assert not re.search(r"(?<!\\)`", text)
    assert not re.search(r"^(# head|- item)", text, re.MULTILINE)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    for part in text.split("\n\n"):
        widths = {len(row) for row in rows(part)}
        assert len(widths) <= 1, part


# A comment on GitHub has 65,536 characters.


def folds(text: str) -> list[str]:
    """The summaries of all folds, each of which is closed, and has an empty line on both sides of what is in it."""
    plain = re.sub(r"^(`{3,})sh\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(
        r"^<details><summary>([^\n]*)</summary>\n\n(?:(?!<details>).)*?\n\n</details>$", plain, re.DOTALL | re.M
    )
    assert len(found) == plain.count("<details>") == plain.count("</details>")
    return found


def grown(results: Results, times: int) -> Results:
    """The run with every case several times, each under a model of its own."""
    cases = [replace(case, model=f"{case.model}_{n}") for n in range(times) for case in results.cases]
    built = [replace(one, model=f"{one.model}_{n}") for n in range(times) for one in results.variants]
    run = replace(results.run, planned=len(cases), selected=len(cases), measured=len(cases))
    return replace(results, run=run, cases=tuple(cases), variants=tuple(built))


def test_what_is_not_a_failure_is_folded(results: Results) -> None:
    text = markdown.render(results)
    more = len(troubles(results)) - 10
    assert folds(text) == [
        f"{more} more", "3 tables", "15 variants", "6 findings", "1 waiver", "2 waived findings",
        "how it was run, and how to run it again",
    ]  # fmt: skip
    opened = text.split("<details>")[0]
    assert re.findall(r"^### . (\w+): ", opened, re.MULTILINE) == ["fail"] * 4 + ["undecided"] * 6
    assert len(opened) < 8_000
    assert "A comment must be short" not in text


def test_two_thousand_cases_fit_a_comment_and_what_was_left_out_is_said(results: Results) -> None:
    large = grown(results, 6)
    assert len(large.cases) > 2_000
    text = markdown.render(large)
    assert len(text.encode()) < 65_536
    failed = sum(case.verdict == "fail" for case in large.cases)
    assert failed > 20
    assert ["✗ fail", str(failed)] == rows(text.split("## ")[0])[2][:2]
    assert text.startswith("# robustgate: ✗ fail\n")
    more = f"{len(troubles(large)) - 10} more"
    note = next(line for line in text.splitlines() if line.startswith("> A comment must be short. "))
    assert note.endswith("This run's report.html has all of it.")
    left_out = re.search(r"Left out: (.*?)\.", note)
    kept = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert left_out
    assert not set(left_out[1].split(", ")) & {"what did not pass", *kept}
    told = {
        "what did not pass",
        f"{more} that did not pass",
        "Accuracy",
        "Rules on variants",
        "Costs",
        "Waivers",
        "Provenance",
    }
    told.add("cautions and policies")
    assert {*left_out[1].split(", ")} <= told
    assert "Provenance" in kept
    folds(text)


def test_the_least_important_goes_first_and_the_rest_is_shortened_before_it_goes(results: Results) -> None:
    texts = {times: markdown.render(grown(results, times)) for times in range(1, 9)}
    assert all(len(text.encode()) < 65_536 for text in texts.values())
    kept = {times: "## Costs" in text for times, text in texts.items()}
    assert kept[1]
    assert not kept[8]
    assert all("## Accuracy" in text for times, text in texts.items() if kept[times])
    shortened = next(text for text in texts.values() if "Shortened: " in text)
    line = next(line for line in shortened.splitlines() if line.startswith("- ✗ fail: resnet20"))
    assert "; the reference holds " in line


def test_no_name_is_long_enough_to_break_the_limit(results: Results) -> None:
    endless = "<@a" * 60_000
    case = replace(results.cases[0], verdict="error", value=None, model=endless, message=endless, reproduce=endless)
    policies = tuple(replace(results.run.policies[0], name=endless) for _ in range(2))
    waiver = replace(results.waivers[0], reason=endless, days_left=1)
    large = replace(
        results,
        cases=(case,) * 30,
        run=replace(results.run, policy=endless, policies=policies, config=endless),
        waivers=(waiver,),
        findings=tuple(replace(one, message=endless) for one in results.findings),
    )
    text = markdown.render(large)
    assert len(text.encode()) < 65_536
    assert "| ! error | 30 |" in text
    assert text.count("- ! error: &lt;@&#8203;a") == 30
    assert "> **cautions: " in text
    assert "Shortened: cautions and policies, what did not pass, 20 more that did not pass." in text
    assert [view.STANDING["error"]] == [kind for kind, _ in view.counts(large)]
    folds(text)
