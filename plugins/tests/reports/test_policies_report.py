"""What reports say of the policies that judged a run, and of waivers that are about to expire."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from robustgate.core.records import PolicyRecord, Results
from robustgate.reports import html, markdown, policies
from robustgate.reports.results_json import dumps, load
from robustgate.reports.view import again, cautions, facts, sentence


def two(results: Results) -> Results:
    """The run, judged by a second policy that asks of the test set and passes."""
    first = results.run.policies[0]
    second = replace(
        first,
        name="cloud",
        confidence=0.95,
        scope="test_set",
        early_stop="certain",
        familywise="none",
        prove="good",
        findings={"pass": 2_000, "waived": 1},
        verdict="waived",
    )
    return replace(results, run=replace(results.run, policy="digits, cloud", policies=(first, second)))


def test_one_policy_says_what_was_asked(results: Results) -> None:
    assert (policies.named(results), policies.asked(results)) == ("policy digits", "on new data")
    assert sentence(results) == "A rule of the policy is broken."
    page = markdown.render(results)
    assert "Policy **digits**, on new data, intervals at 99 % confidence" in page
    assert "| asked |" not in page
    assert '<th scope="col">asked</th>' not in html.render(results)


def test_several_policies_each_have_their_verdict_and_their_question(results: Results) -> None:
    both = two(results)
    assert (policies.named(both), policies.asked(both)) == (
        "policies digits, cloud",
        "digits on new data, cloud on this test set",
    )
    assert sentence(both) == "A rule of the policies is broken."
    page = markdown.render(both)
    assert "Policies **digits, cloud**, digits on new data, cloud on this test set, intervals" in page
    assert "| digits | ✗ fail | on new data | 99 % | 1 fail, 1 pass |" in page
    assert "| cloud | ~ waived | on this test set | 95 % | 1 waived, 2,000 pass |" in page
    source = html.render(both)
    assert "robustgate report · policies digits, cloud" in source
    assert '<th scope="row">cloud</th>' in source
    assert "1 waived, 2,000 pass" in source


def test_policies_that_ask_the_same_are_not_told_apart(results: Results) -> None:
    first = results.run.policies[0]
    same = replace(results, run=replace(results.run, policies=(first, replace(first, name="cloud"))))
    assert policies.asked(same) == "on new data"


def test_the_run_is_made_again_with_all_of_them(results: Results) -> None:
    assert again(two(results)).endswith(" --robustgate-policy digits,cloud")


def test_provenance_tells_what_each_was_set_to(results: Results) -> None:
    told = dict(facts(two(results)))
    assert told["policy digits"] == (
        "confidence 0.99, scope population, early_stop false, familywise holm, on_undecided fail, interval "
        "clopper_pearson"
    )
    assert told["policy cloud"] == (
        "confidence 0.95, scope test_set, early_stop certain, familywise none, prove good, interval clopper_pearson"
    )


@pytest.mark.parametrize("early_stop", [False, "certain", "confident"])
def test_a_policys_record_survives_json(results: Results, tmp_path, early_stop) -> None:
    both = two(results)
    run = replace(both.run, policies=tuple(replace(one, early_stop=early_stop) for one in both.run.policies))
    path = tmp_path / "results.json"
    path.write_text(dumps(replace(both, run=run)))
    again = load(path)
    assert [asdict(one) for one in again.run.policies] == [asdict(one) for one in run.policies]
    assert all(isinstance(one, PolicyRecord) and one.early_stop is not True for one in again.run.policies)


@pytest.mark.parametrize(
    ("days", "expired", "state"),
    [
        (15, False, "in force"),
        (14, False, "expires in 14 days"),
        (1, False, "expires in 1 day"),
        (0, False, "expires today"),
        (-1, True, "expired"),
    ],
)
def test_a_waiver_warns_in_its_last_days(results: Results, days: int, expired: bool, state: str) -> None:
    waiver = replace(results.waivers[0], days_left=days, expired=expired)
    found = replace(results, waivers=(waiver,))
    assert policies.state(waiver) == state
    told = f"waiver of policy digits {state}, on 2026-12-31: retraining, ticket 4711"
    soon = [told] if 0 <= days <= 14 else []
    assert policies.warnings(found, expired=False) == soon
    assert policies.warnings(found, expired=True) == ([told.replace(", on", " on")] if expired else [])
    assert [note for note in cautions(found) if note.startswith("Waiver")] == [
        line.replace("w", "W", 1) for line in soon
    ]
    assert ("> **Waiver of policy digits" in markdown.render(found)) == bool(soon)
    assert ('<p class="caution" role="note">Waiver of policy digits' in html.render(found)) == bool(soon)
