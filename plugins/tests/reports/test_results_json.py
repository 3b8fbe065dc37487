from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from robustgate.core.errors import ResultsError
from robustgate.core.records import CaseResult, Results, RunRecord
from robustgate.reports import results_json

UNJUDGED = {"policy": "edge", "rule": "fits", "subject": "tiny", "selected": True}


@pytest.fixture
def content(single: Results) -> dict[str, Any]:
    return json.loads(results_json.dumps(single))


def refusal(content: object, folder: Path) -> str:
    """The message with which a file of this content is refused."""
    path = folder / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ResultsError) as caught:
        results_json.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_run_comes_back_as_it_was(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "report" / "results.json"
    results_json.write(results, path)
    assert results_json.load(path) == results
    assert results_json.dumps(results_json.load(path)) == path.read_text()


def test_floats_come_back_to_the_last_bit(single: Results, tmp_path: Path) -> None:
    source = random.Random(4)  # noqa: S311
    case = single.cases[0]
    numbers = [source.random() * 10.0 ** source.randint(-300, 300) for _ in range(500)] + [5e-324, 0.1 + 0.2, 1 / 3]
    many = replace(single, cases=tuple(replace(case, value=number) for number in numbers))
    results_json.write(many, tmp_path / "results.json")
    assert [item.value for item in results_json.load(tmp_path / "results.json").cases] == numbers


def test_what_could_not_be_read_back_is_not_written(single: Results, tmp_path: Path) -> None:
    broken = replace(single, cases=(replace(single.cases[0], n="2000"),))  # type: ignore[arg-type]
    with pytest.raises(ResultsError, match=r'1 mistake\n  cases\[0\]\.n: expected a whole number, got "2000"'):
        results_json.write(broken, tmp_path / "results.json")
    assert not list(tmp_path.iterdir())


def test_text_of_any_script_survives(single: Results, tmp_path: Path) -> None:
    named = replace(single, cases=(replace(single.cases[0], message='猫 "\\ \n <b> \u2028 🐈'),))
    results_json.write(named, tmp_path / "results.json")
    assert results_json.load(tmp_path / "results.json") == named
    assert "猫" in (tmp_path / "results.json").read_text(encoding="utf-8")


def test_keys_stand_in_the_order_of_the_records(content: dict[str, Any]) -> None:
    assert list(content) == [field.name for field in fields(Results)]
    assert list(content["run"]) == [field.name for field in fields(RunRecord)]
    assert list(content["cases"][0]) == [field.name for field in fields(CaseResult)]


@pytest.mark.parametrize(
    ("details", "place"),
    [
        ({"share": math.nan}, "cases[0].details.share: expected a JSON value, got the number nan"),
        ({"shares": [0.5, math.inf]}, "cases[0].details.shares[1]: expected a JSON value, got the number inf"),
        ({"classes": {"cat"}}, "cases[0].details.classes: expected a JSON value, got {'cat'} (set)"),
        ({"classes": {3: "cat"}}, "cases[0].details.classes: expected a JSON value, got the key 3"),
        ({"path": "\udcff"}, "cases[0].details.path: expected a JSON value, got the text '\\udcff', which UTF-8"),
    ],
)
def test_what_json_cannot_hold_is_refused(single: Results, tmp_path: Path, details: dict[str, Any], place: str) -> None:
    broken = replace(single, cases=(replace(single.cases[0], details=details),))
    with pytest.raises(ResultsError, match="results cannot be written: 1 mistake") as caught:
        results_json.write(broken, tmp_path / "results.json")
    assert place in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_value_that_is_not_a_number_is_refused(single: Results) -> None:
    broken = replace(single, cases=(replace(single.cases[0], value=math.nan),))
    with pytest.raises(ResultsError, match=r"cases\[0\]\.value: expected a JSON value, got the number nan"):
        results_json.dumps(broken)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("run", "seed"), "0", 'run.seed: expected a whole number, got "0"'),
        (("run", "seed"), 1.5, "run.seed: expected a whole number, got 1.5"),
        (("run", "device"), 3, "run.device: expected a text, got 3"),
        (("run", "complete"), 1, "run.complete: expected true or false, got 1"),
        (("run", "seconds"), math.nan, "run.seconds: expected a JSON value, got the number nan"),
        (("run", "versions"), [], "run.versions: expected an object, got []"),
        (("run",), [1], "run: expected an object, got [1]"),
        (("cases",), {}, "cases: expected a list, got {}"),
        (("cases", 0, "value"), "41 %", 'cases[0].value: expected a number, got "41 %"'),
        (
            ("cases", 0, "shift", "kind"),
            "corrupton",
            "'masking' or 'stability', got \"corrupton\" (did you mean 'corruption'?)",
        ),
        (("cases", 0, "verdict"), 1, "cases[0].verdict: expected 'pass', 'fail',"),
        (("cases", 0, "findings", 0, "limit_king"), 1, "cases[0].findings[0]: unknown key 'limit_king' (did you mean"),
        (("run", "seeed"), 0, "run: unknown key 'seeed' (did you mean 'seed'?); known: complete, confidence,"),
        (("extra",), 0, "top level: unknown key 'extra'"),
        (("unjudged",), [UNJUDGED | {"rul": "fits"}], "unjudged[0]: unknown key 'rul' (did you mean 'rule'?); known:"),
        (("cases", 0, "message"), ["x" * 99], 'cases[0].message: expected a text, got ["xxx'),
    ],
)
def test_a_wrong_value_is_one_clear_message(
    content: dict[str, Any], tmp_path: Path, keys: tuple[str | int, ...], value: object, message: str
) -> None:
    at: Any = content
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    refused = refusal(content, tmp_path)
    assert ": 1 mistake\n" in refused
    assert message in refused
    assert max(map(len, refused.splitlines())) < 400


def test_a_missing_key_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    del content["run"]["verdict"]
    assert "  run.verdict: expected a value, got no such key" in refusal(content, tmp_path)


def test_a_key_with_a_default_may_be_missing(content: dict[str, Any], single: Results, tmp_path: Path) -> None:
    del content["cases"][0]["cached"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert results_json.load(tmp_path / "results.json") == single


def test_all_mistakes_are_told_at_once_and_no_flood(content: dict[str, Any], tmp_path: Path) -> None:
    content["run"] |= {"seed": "0", "device": 1}
    content["cases"] = [{**content["cases"][0], "n": "many"} for _ in range(30)]
    refused = refusal(content, tmp_path)
    assert "32 mistakes" in refused
    assert "run.seed" in refused
    assert "run.device" in refused
    assert refused.endswith("and 22 more")


@pytest.mark.parametrize(
    ("schema", "got"), [("robustgate/results/2", '"robustgate/results/2"'), (None, "no such key"), (1, "1")]
)
def test_another_schema_is_refused(content: dict[str, Any], tmp_path: Path, schema: object, got: str) -> None:
    content["schema"] = schema
    assert f"schema: expected 'robustgate/results/1', got {got}" in refusal(content, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\x00", "[" * 100_000, '{"schema": "a", "schema": "b"}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    assert "expected a whole results.json, the file is damaged" in refusal(text, tmp_path)


def test_every_cut_of_a_file_is_refused(single: Results, tmp_path: Path) -> None:
    text = results_json.dumps(single).rstrip()
    for end in range(0, len(text), 97):
        assert "damaged" in refusal(text[:end], tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', "{}"])
def test_other_json_is_refused(tmp_path: Path, content: str) -> None:
    assert "schema: expected 'robustgate/results/1', got no such key" in refusal(content, tmp_path)


def test_a_key_twice_is_refused(single: Results, tmp_path: Path) -> None:
    text = results_json.dumps(single).replace('"verdict": "fail"', '"verdict": "fail", "verdict": "pass"', 1)
    assert "key 'verdict' stands twice" in refusal(text, tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(b'{"schema": "\xff"}')
    with pytest.raises(ResultsError, match="damaged"):
        results_json.load(tmp_path / "results.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"results\.json: expected a results\.json, cannot read it: No such file"):
        results_json.load(tmp_path / "results.json")


class TestSchema:
    def test_it_is_a_schema(self) -> None:
        schema = results_json.json_schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"]
        assert "robustgate/results/1" in schema["title"]

    @pytest.mark.parametrize("name", ["results", "selection", "single"])
    def test_what_is_written_is_valid(self, name: str, request: pytest.FixtureRequest) -> None:
        written = json.loads(results_json.dumps(request.getfixturevalue(name)))
        jsonschema.Draft202012Validator(results_json.json_schema()).validate(written)

    @pytest.mark.parametrize(
        "keys",
        [
            *(("extra",), ("run", "extra"), ("cases", 0, "extra"), ("cases", 0, "shift", "extra"), ("schema",)),
            *(("cases", 0, "findings", 0, "extra"), ("variants", 0, "extra"), ("run", "verdict"), ("run", "seed")),
        ],
    )
    def test_what_is_wrong_is_invalid(self, content: dict[str, Any], keys: tuple[str | int, ...]) -> None:
        at: Any = content
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = "green"
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(results_json.json_schema()).validate(content)

    def test_every_key_of_every_record_stands_in_it(self, single: Results) -> None:
        schema = results_json.json_schema()
        definitions = {"Results": schema, **schema["$defs"]}
        assert list(definitions["CaseResult"]["properties"]) == list(asdict(single.cases[0]))
        assert all(definition["additionalProperties"] is False for definition in definitions.values())
        assert set(definitions) >= {"Results", "RunRecord", "CaseResult", "Shift", "Finding", "VariantRecord"}
