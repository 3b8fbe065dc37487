from __future__ import annotations

import re
from dataclasses import replace

import pytest

from robustgate.core.records import Finding, Results
from robustgate.reports.github import SHOWN, Source, commands, line_of

HOSTILE = (
    "x\n::add-mask::secret\r\n##[stop-commands]now\x85::error::\u2028::debug::,title=other:: 100 %0A::set-env name=A::b"
)
CONFIGURATION = """
[policies.digits]
confidence = 0.99
[[policies.digits.rules]]
name = "fits the device"
rule = "size"
[[policies.digits.rules]]
where = { attack = "*" }
name = 'holds under attack'  # of all attacks
[[policies.other.rules]]
name = "holds under attack"
"""
SOURCE = Source(file="gate/robustgate.toml", text=CONFIGURATION)


def read(output: str) -> list[tuple[str, dict[str, str], str]]:
    """The commands in a step's output, as GitHub's runner reads them: a line's newer form, or else its older one."""
    found = []
    for line in re.split(r"\r\n|\r|\n", output):
        new = re.match(r"\s*::([^ :]+)(?: (.*?))?::(.*)$", line)
        old = re.search(r"##\[([^] ]+)(?: ([^]]*))?\](.*)", line)
        if new:
            pairs = [pair.split("=", 1) for pair in (new[2] or "").split(",") if "=" in pair]
            found.append((new[1], {key: plain(value, more=True) for key, value in pairs}, plain(new[3])))
        elif old:
            found.append((old[1], {}, old[3]))
    return found


def plain(text: str, *, more: bool = False) -> str:
    for code, character in (
        ("%0D", "\r"),
        ("%0A", "\n"),
        *((("%3A", ":"), ("%2C", ",")) if more else ()),
        ("%25", "%"),
    ):
        text = text.replace(code, character)
    return text


def test_what_failed_is_an_error_in_its_rules_place(single: Results) -> None:
    ((command, named, message),) = read("\n".join(commands(single, SOURCE)))
    assert command == "error"
    assert named == {
        "file": "gate/robustgate.toml",
        "line": "9",
        "title": "robustgate: fail: resnet20 / filter_pruning / handwritten under gaussian_noise, severity 5",
    }
    assert message.splitlines() == [
        "accuracy 41.2 % [39.6, 42.8] on 2,000 images; the reference holds 50.3 %",
        'rule "holds under attack" of policy digits: max_drop 10.0 points; the drop is 12.9 [11.1, 14.6]',
        "most lost: 3: 50.0 → 21.0 %, 8: 54.5 → 24.0 %",
        single.cases[0].reproduce,
    ]


def test_a_configuration_outside_of_the_repository_is_not_named(single: Results) -> None:
    ((_, named, _),) = read("\n".join(commands(single, Source(file=None, text=CONFIGURATION))))
    assert named.keys() == {"title"}


def test_at_most_ten_of_each_are_shown_worst_first_and_the_last_counts_the_rest(results: Results) -> None:
    broken = tuple(replace(case, verdict="error", message="no file") for case in results.cases[-4:])
    large = replace(results, cases=(*results.cases * 4, *broken))
    failed = sum(case.verdict in ("fail", "error") for case in large.cases)
    undecided = sum(case.verdict == "undecided" for case in large.cases)
    found = read("\n".join(commands(large, SOURCE)))
    assert [command for command, _, _ in found] == ["error"] * SHOWN + ["warning"] * SHOWN
    kinds = [named["title"].split(": ")[1] for _, named, _ in found if ": " in named["title"]]
    assert kinds == ["error"] * 4 + ["fail"] * 5 + ["undecided"] * 9
    assert found[SHOWN - 1][2].startswith(f"{failed - 9} more errors: ")
    assert found[-1][2].startswith(f"{undecided - 9} more warnings: ")


def test_exactly_ten_are_all_shown(results: Results) -> None:
    failed = [case for case in results.cases if case.verdict == "fail"] * 3
    found = read("\n".join(commands(replace(results, cases=tuple(failed[:10]), findings=(), waivers=()), SOURCE)))
    assert len(found) == 10
    assert all(named["title"].startswith("robustgate: fail: ") for _, named, _ in found)


def test_waivers_that_expire_and_what_makes_a_run_red_are_told(results: Results) -> None:
    soon = replace(results.waivers[0], days_left=3)
    gone = replace(soon, expired=True, days_left=-2)
    passed = tuple(case for case in results.cases if case.verdict == "pass")
    run = replace(results, cases=passed, findings=(), waivers=(results.waivers[0], soon, gone))
    found = read("\n".join(commands(run, SOURCE, "4 cases were not measured")))
    assert [(command, message.split(":")[0]) for command, _, message in found] == [
        ("error", "4 cases were not measured"),
        ("warning", "waiver of policy digits expired on 2026-12-31"),
        ("warning", "waiver of policy digits expires in 3 days, on 2026-12-31"),
    ]
    assert commands(replace(run, waivers=()), SOURCE) == []


def test_no_text_from_outside_starts_another_command(single: Results, results: Results) -> None:
    case = single.cases[0]
    hostile = replace(
        case,
        name=HOSTILE,
        model=HOSTILE,
        compression=HOSTILE,
        reproduce=HOSTILE,
        findings=(replace(case.findings[0], message=HOSTILE, rule=HOSTILE),),
        most_lost=(replace(case.most_lost[0], name=HOSTILE),),
    )
    waiver = replace(results.waivers[0], reason=HOSTILE, days_left=0)
    run = replace(single, cases=(hostile,), waivers=(waiver,))
    lines = commands(run, Source(file="a:b,c%\n::d", text=""), HOSTILE)
    assert len(lines) == 3
    found = read("\n".join(lines))
    assert [command for command, _, _ in found] == ["error", "error", "warning"]
    assert {tuple(named) for _, named, _ in found} == {("file", "title")}
    assert {named["file"] for _, named, _ in found} == {"a:b,c%\n::d"}
    assert all("100 %0A::set-env" in message for _, _, message in found)
    assert "##[stop-commands]now" in found[0][2]


@pytest.mark.parametrize("size", [199, 200, 10_000])
def test_what_is_long_is_cut_before_it_is_escaped(single: Results, size: int) -> None:
    case = replace(
        single.cases[0], model="%" * size, message="%" * size, findings=(), most_lost=(), value=None, verdict="error"
    )
    ((_, named, message),) = read("\n".join(commands(replace(single, cases=(case,)), SOURCE)))
    assert len(named["title"]) <= 200
    assert set(message.removesuffix("…").split("\n")[0]) == {"%"}


def finding(single: Results, policy: str, rule: str) -> Finding:
    return replace(single.cases[0].findings[0], policy=policy, rule=rule)


def test_a_place_is_named_only_where_it_is_certain(single: Results) -> None:
    held = finding(single, "digits", "holds under attack")
    assert line_of(held, CONFIGURATION) == 9
    assert line_of(finding(single, "digits", "fits the device"), CONFIGURATION) == 5
    assert line_of(finding(single, "other", "holds under attack"), CONFIGURATION) == 11
    assert line_of(finding(single, "other", "fits the device"), CONFIGURATION) is None
    assert line_of(held, CONFIGURATION * 2) is None
    assert line_of(held, 'rules = [{ name = "holds under attack" }]') is None
    nested = CONFIGURATION.replace("[[policies.", "[[tool.robustgate.policies.")
    assert line_of(held, nested) == 9
    dotted = '[[ policies . "a.b" . rules ]]\nname = "x\\ty"\n'
    assert line_of(finding(single, "a.b", "x\ty"), dotted) == 2
    assert (
        line_of(held, '[[policies.digits.rules]]\n[policies.digits.rules.where]\nname = "holds under attack"') is None
    )
