"""The `robustgate` command as a person types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from robustgate.cli import app
from robustgate.cli.cost import in_words
from robustgate.reports.results_json import json_schema

COMMAND = Path(sys.executable).with_name("robustgate")
SIZE = '\n[[policies.edge.rules]]\nname = "fits"\nrule = "size"\nmax = "1 MB"\nwhere = { compression = "fp*" }\n'
LAB = '\n[policies.lab]\n[[policies.lab.rules]]\nname = "low"\nwhere = { attack = "pgd" }\nmin = 0.1\n'


def type_in(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def shell(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *words], capture_output=True, text=True, check=False, timeout=120)


def test_plan_counts_cases_variants_and_rules(tiny) -> None:
    tiny.configure(extra=SIZE)
    done = type_in("plan")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{tiny.folder / 'robustgate.toml'}: policy edge",
        "12 cases: 2 clean, 2 domain_shift, 4 corruption, 4 adversarial",
        "2 variants:",
        "  none                       1  as trained",
        "  fp25                       1  filter_pruning",
        "passes of images, at most, where no measurement is kept:",
        "               cases  forward  backward ",
        " clean             2      288         0 ",
        " domain_shift      2       80         0 ",
        " corruption        4      576         0 ",
        " adversarial       4    3,168     1,440 ",  # 144 images: 1 + 2 + 1 and 1 + 5 + 1 passes, 1 and 4 gradients
        "passes: 4,112 forward, 1,440 backward",
        "minutes: no run yet to tell them by",
        "artifacts: 2 to build, 0 kept already",
        "rules:",
        "  'floor' judges 12 cases",
        "  'holds' judges 1 case",
        "  'fits' judges 1 variant",
    ]


def test_plan_shows_chains_with_their_fine_tuning_and_the_control(tiny) -> None:
    chained = '[compressions.both]\nsteps = [{ use = "fp25" }, { method = "static_quantization" }]\n[shifts]'
    tiny.configure(("ratio = 0.25 }", "ratio = 0.25, finetune = { epochs = 1 } }"), ("[shifts]", chained))
    lines = type_in("plan").stdout.splitlines()
    assert lines[2:7] == [
        "4 variants:",
        "  none                       1  as trained",
        "  control                    1  supervised fine-tuning",
        "  fp25                       1  filter_pruning → supervised fine-tuning",
        "  both                       1  filter_pruning → supervised fine-tuning → static_quantization",
    ]


def test_plan_counts_what_a_stability_rule_searches(tiny) -> None:
    tiny.configure(extra='[[policies.edge.rules]]\nname = "steady"\nrule = "stability"\nmax = 0.1\n')
    done = type_in("plan", "--names")
    assert done.exit_code == 0, done.output
    assert "14 cases: 2 clean, 2 domain_shift, 4 corruption, 4 adversarial, 2 stability" in done.stdout
    assert "  'steady' judges 2 variants" in done.stdout
    assert "under no rule" not in done.stdout
    assert "test_stability[tiny-fp25-day-stability]" in done.stdout


def test_plan_says_how_many_cases_no_rule_judges(tiny) -> None:
    tiny.configure(extra=LAB)
    done = type_in("plan", "--policy", "lab")
    assert done.stdout.splitlines()[0].endswith(": policy lab")
    assert done.stdout.splitlines()[-2:] == ["  'low' judges 2 cases", "  10 cases are measured under no rule"]


def test_plan_tells_minutes_by_the_run_before_and_what_is_kept(tiny) -> None:
    assert shell("run", "-q", "-p", "no:cacheprovider").returncode == 0
    lines = type_in("plan").stdout.splitlines()
    (told,) = [line for line in lines if line.startswith("minutes: ")]
    assert re.fullmatch(r"minutes: under 1, by the run of \d{4}-\d\d-\d\d \d\d:\d\d on cpu \(12 of these cases\)", told)
    assert "artifacts: 0 to build, 2 kept already" in lines
    tiny.configure(("[gate]", "[gate]\nhistory = false"))
    assert "minutes: no run yet to tell them by" in type_in("plan").stdout


def test_plan_says_aloud_what_it_cannot_count_in_80_columns(tiny) -> None:
    pytest.importorskip("foolbox")
    tiny.configure(extra='[attacks.theirs]\nmethod = "foolbox:LinfPGD"\neps = 0.1\n')
    (tiny.folder / "night.npz").unlink()
    lines = type_in("plan").stdout.splitlines()
    text = " ".join(" ".join(lines).split())
    assert "and 4 cases of unknown cost" in text
    assert "how many images there are is not known before a run: night" in text
    assert "theirs; the engine stops them at 100,000 queries a sample and 3600 s a case" in text
    assert max(map(len, lines[1:])) <= 80
    # Of both the other cases are counted.
    assert [line.split() for line in lines if line.startswith((" domain_shift", " clean"))] == [
        ["clean", "2", "288", "0"],
        ["domain_shift", "2", "unknown", "unknown"],
    ]


@pytest.mark.parametrize("count", [0, 9, 12_345, 999_999])
def test_smaller_numbers_are_told_in_full(count: int) -> None:
    assert in_words(count) == f"{count:,}"


def test_larger_numbers_are_told_in_words() -> None:
    assert [in_words(1_234_567), in_words(43_000_000_000)] == ["1.2 million", "43.0 billion"]


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("words", [["compress"], ["plan", "--power"], ["lint", "--data"]], ids=" ".join)
def test_a_module_beside_the_configuration_is_found_as_pytest_finds_it(
    tiny, tmp_path_factory, monkeypatch, words: list[str], where: str
) -> None:
    tiny.configure(('kind = "npz"\nfiles = { test = "night.npz" }', 'kind = "callable"\nbuild = "nightly:images"'))
    (tiny.folder / "nightly.py").write_text(
        "import numpy as np\nclass Night(list):\n    classes = ('dark', 'bright')\n"
        "def images():\n"
        "    return Night((np.full((8, 8, 3), level, np.uint8), int(level > 127)) for level in range(110, 150))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if where == "elsewhere":
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        words = [*words, "--config", str(tiny.folder / "robustgate.toml")]
    done = subprocess.run([COMMAND, *words], capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_no_command_leaves_the_folder_importable(tiny) -> None:
    before = list(sys.path)
    type_in("plan")
    assert sys.path == before


def test_plan_takes_a_configuration_from_elsewhere(tiny, tmp_path_factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert type_in("plan").exit_code == 4
    assert type_in("plan", "--config", str(tiny.folder / "robustgate.toml")).exit_code == 0


def test_the_names_of_a_plan_are_the_ids_that_pytest_collects(tiny) -> None:
    tiny.configure(extra=SIZE)
    words = ["-m", "pytest", "--pyargs", "robustness_tests", "--collect-only", "-q", "-p", "no:cacheprovider"]
    collected = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=120)
    ids = {line.rpartition("::")[2] for line in collected.stdout.splitlines() if "::" in line}
    named = [line for line in type_in("plan", "--names").stdout.splitlines() if line.startswith("test_")]
    assert len(named) == len(set(named)) == 13
    assert set(named) == ids


def test_plan_imports_nothing_heavy_and_measures_nothing(tiny) -> None:
    probe = (
        "import sys\nfrom robustgate.cli import app\n"
        "try:\n    app(['plan'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'scipy', 'sklearn', 'matplotlib', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("[]", "")
    assert not (tiny.folder / "cache").exists()


# Mistakes: a message, exit status 4, no traceback.


@pytest.mark.parametrize("command", ["plan", "run"])
def test_no_configuration_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = type_in(command)
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == (
        "robustgate: no robustgate.toml here, and no [tool.robustgate] in pyproject.toml; name one: --config\n"
    )


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--config", "absent.toml"), "robustgate: absent.toml: no such file\n"),
        (("--config", "."), "robustgate: .: cannot be read: Is a directory\n"),
        (("--config", "tiny_network.py"), "robustgate: tiny_network.py: not valid TOML: "),
        (("--policy", "egde"), "robustgate: no policy 'egde' (did you mean 'edge'?); known: edge\n"),
    ],
)
def test_a_mistake_is_one_message(tiny, command: str, words: tuple[str, str], expected: str) -> None:
    done = type_in(command, *words)
    assert (done.exit_code, done.stdout) == (4, "")
    assert isinstance(done.exception, SystemExit)
    assert done.stderr.startswith(expected)


def test_mistakes_in_the_file_are_told_together(tiny) -> None:
    tiny.configure(('method = "pgd"', 'method = "pdg"'), ("min = 0.3", "min = 3"))
    done = shell("plan")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"robustgate: {tiny.folder / 'robustgate.toml'}: 2 mistakes\n")
    assert "attacks.pgd.method: unknown name 'pdg' in attacks (did you mean 'pgd'?)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_pyproject_is_a_mistake_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("[tool.robustgate\n")
    done = type_in("plan")
    assert done.exit_code == 4
    assert f"{tmp_path / 'pyproject.toml'}: not valid TOML: " in done.stderr


# run


def test_run_passes_words_on_to_pytest_and_its_status_back(tiny) -> None:
    done = shell("run", "-k", "fp25 and pgd", "--collect-only", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stderr
    assert [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line] == [
        "test_adversarial[tiny-fp25-day-pgd]"
    ]
    assert shell("run", "-k", "no_such_case", "-p", "no:cacheprovider").returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert shell("run", "--no-such-option").returncode == pytest.ExitCode.USAGE_ERROR


def test_run_judges_by_the_policy_and_the_file_that_it_is_given(tiny, tmp_path_factory, monkeypatch) -> None:
    tiny.configure(extra=LAB.replace("0.1", "0.99"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    words = ["-k", "none-day-pgd", "-p", "no:cacheprovider"]
    done = shell("run", "--config", str(tiny.folder / "robustgate.toml"), "--policy", "lab", *words)
    assert done.returncode == 1
    assert 'rule "low" of policy lab' in done.stdout
    report = json.loads((elsewhere / "robustgate-report" / "results.json").read_text())
    assert report["run"]["policy"] == "lab"
    jsonschema.validate(report, json.loads(type_in("schema", "results").stdout))


# schema and help


def test_schema_prints_the_published_one(tmp_path: Path) -> None:
    done = type_in("schema", "results")
    assert json.loads(done.stdout) == json_schema()
    assert type_in("schema").stdout == done.stdout
    jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))


def test_another_schema_is_refused_with_what_there_is() -> None:
    done = type_in("schema", "result")
    assert done.exit_code != 0
    assert isinstance(done.exception, SystemExit)
    assert "no schema 'result'" in done.stderr
    assert "results" in done.stderr


@pytest.mark.parametrize("command", [[], ["plan"], ["run"], ["schema"]], ids=" ".join)
def test_help(command: list[str]) -> None:
    done = type_in(*command, "--help")
    assert done.exit_code == 0
    assert "Usage: " in done.stdout
    if command:
        assert f"Example: robustgate {command[0]}" in done.stdout
    else:
        assert "Example: robustgate plan --names" in done.stdout
        assert all(f"\n  {name} " in done.stdout for name in ("plan", "run", "schema"))
