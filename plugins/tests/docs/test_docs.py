"""The pages of plugins/docs do what they say: each block of each is run, in the folder of a reader of her own."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from doc_pages import DOCS, NOT_RUN, Block, Reader, read

import robustgate
from robustgate.cli import app
from robustgate.cli.train import made
from robustgate.core.catalog import shelf

PAGES = sorted(path.name for path in DOCS.glob("*.md"))
START = "first-hour.md"
# Those that go on in the folder of the first hour, and need nothing but it.
FURTHER = ["foreign-onnx.md", "policies.md", "repair.md", "what-green-does-not-prove.md", "your-own-model.md"]
# A list of links, and those that are run otherwise: below, and in test_docs_errors.py.
APART = ["README.md", "ci.md", "errors.md", "extending.md"]
# Steps of a CI job that are not run, with the reason.
NO_STEPS = {
    "actions/checkout@v4": "the folder is there",
    "actions/setup-python@v5": "so is Python",
    "actions/cache@v4": "and .robustgate, which the first hour left",
    "pip install": "it would change the environment that the tests run in",
}


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the first hour at its end; the page is run once."""
    folder = tmp_path_factory.mktemp("hour") / "digits"
    folder.mkdir()
    Reader(folder=folder).follow(read(START))
    return folder


@pytest.fixture
def reader(hour: Path, tmp_path: Path) -> Reader:
    """A reader who has had her first hour."""
    return Reader(folder=Path(shutil.copytree(hour, tmp_path / "digits")))


def test_the_first_hour_ends_with_a_waiver_and_all_measured(hour: Path) -> None:
    assert '"verdict": "waived"' in (hour / "robustgate-report" / "results.json").read_text()


@pytest.mark.parametrize("page", FURTHER)
def test_a_page_does_what_it_says(page: str, reader: Reader) -> None:
    reader.follow(read(page))


def test_no_page_is_left_out() -> None:
    assert sorted([START, *FURTHER, *APART, "study.md"]) == PAGES  # the study's report is made, and has no commands


def test_blocks_that_are_not_run_say_why() -> None:
    reasons = [block.marks["not-run"] for page in PAGES for block in read(page) if "not-run" in block.marks]
    assert set(reasons) == set(NOT_RUN)
    assert len(reasons) <= 4


def test_your_own_model_takes_twenty_lines() -> None:
    (block,) = [one for one in read("your-own-model.md") if one.named[0] == "robustgate.toml"]
    assert len(block.named[1].splitlines()) <= 20


def test_every_recipe_is_in_the_table_and_can_be_read() -> None:
    text = (DOCS / "repair.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\{.*?\})` \|", text, re.MULTILINE)
    recipes = [tomllib.loads(f"recipe = {table}")["recipe"].get("recipe", "supervised") for table in told]
    assert sorted(recipes) == sorted(shelf("training").names)
    for table in told:
        made(tomllib.loads(f"recipe = {table}")["recipe"])


# CI.


def ci(name: str) -> dict[Any, Any]:
    """Return what a CI file of the page says."""
    (block,) = [one for one in read("ci.md") if one.named[0] == name]
    return yaml.safe_load(block.body)


def work(reader: Reader, job: dict[str, Any], **matrix: object) -> None:
    """Do the steps of a job of GitHub's, for one entry of its matrix; artifacts lie in a folder."""
    kept = reader.folder / "artifacts"
    for step in job["steps"]:
        given = {key: filled(str(value), matrix) for key, value in step.get("with", {}).items()}
        if step.get("uses") == "actions/upload-artifact@v4":
            shutil.copytree(reader.folder / given["path"], kept / given["name"])
        elif step.get("uses") == "actions/download-artifact@v4":
            for artifact in kept.glob(given["pattern"]):
                shutil.copytree(artifact, reader.folder / given["path"] / artifact.name)
        elif not any((step.get("uses") or step["run"]).startswith(known) for known in NO_STEPS):
            command = filled(step["run"], matrix)
            assert reader.run(command) == 0, f"$ {command}\n{reader.output}"


def filled(text: str, matrix: dict[str, object]) -> str:
    for name, value in matrix.items():
        text = text.replace(f"${{{{ matrix.{name} }}}}", str(value))
    return text


def test_the_jobs_of_github_measure_merge_and_judge(reader: Reader) -> None:
    for block in read("ci.md"):
        assert block.language == "yaml", block.place
        reader.on_yaml(block)
    jobs = ci(".github/workflows/robustness.yml")["jobs"]
    for shard in jobs["measure"]["strategy"]["matrix"]["shard"]:
        work(reader, jobs["measure"], shard=shard)
    work(reader, jobs["verdict"])
    assert reader.output.startswith("waived: 40 of 40 planned cases measured")
    assert (reader.folder / "artifacts" / "robustgate-report" / "report.html").is_file()

    jobs = ci(".github/workflows/policies.yml")["jobs"]
    for policy in jobs["gate"]["strategy"]["matrix"]["policy"]:
        work(reader, jobs["gate"], policy=policy)

    # The same commands, but for how a shard is named: here they need only be understood.
    pipeline = ci(".gitlab-ci.yml")
    assert pipeline["default"]["before_script"] == ['pip install "robustgate[xdist]"']
    (measure,) = pipeline["measure"]["script"]
    parallel = f"export CI_NODE_INDEX=2 CI_NODE_TOTAL={pipeline['measure']['parallel']}"
    assert reader.run(f"{parallel}; {measure.replace('-n 2', '-n 0')} --collect-only") == 0, reader.output
    assert "tests collected" in reader.output
    for command in pipeline["verdict"]["script"]:
        assert reader.run(command) == 0, reader.output


# Components of one's own.


@pytest.fixture
def built(reader: Reader, tmp_path: Path) -> Reader:
    """A reader who has installed the page's package: its wheel is built, and unpacked where Python looks."""
    (reader.folder / "tints").mkdir()
    files = [block for block in read("extending.md") if block.language != "console"]
    reader.follow([block for block in files if block.named[0] != "write_list.py"])
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "wheels")]
    subprocess.run(build, cwd=reader.folder, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    shutil.rmtree(reader.folder / "tints")
    reader.importable = tmp_path / "site"
    return reader


def test_components_of_a_third_party_are_found_by_their_entry_points(built: Reader) -> None:
    package = [block for block in read("extending.md") if block.named[0].startswith("tints/")]
    built.follow([block for block in read("extending.md") if block not in package])


def test_a_file_on_the_shelf_is_a_component(reader: Reader, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(Path(robustgate.__file__).parent, tmp_path / "project" / "robustgate"))
    shelves = {"tint": "attacks", "weight_rounding": "compression", "image_list": "domains"}
    blocks = {block.named[0]: block for block in read("extending.md")}
    for name, folder in shelves.items():
        (copy / folder / f"{name}.py").write_text(blocks[f"tints/{name}.py"].body)
    reader.importable = copy.parent
    reader.on_toml(blocks["robustgate.toml"])
    assert reader.run("robustgate plan") == 0, reader.output
    assert "4 cases: 2 clean, 2 adversarial" in reader.output


def test_a_type_that_is_not_there_at_run_time_is_told(built: Reader, tmp_path: Path) -> None:
    component = tmp_path / "site" / "tints" / "weight_rounding.py"
    text = component.read_text()
    line = "from robustgate.core.components import ConstraintKind\n"
    assert line in text
    component.write_text(text.replace(line, ""))
    assert built.run("robustgate plan") == 4
    assert "compressions.w4.steps[0]: tints.weight_rounding.WeightRounding: name 'ConstraintKind'" in built.output
    assert "import them, but not under TYPE_CHECKING" in built.output


# What is said in passing.


def inline(page: str) -> Iterator[str]:
    """Yield the commands that stand in a page's sentences."""
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from (code for code in re.findall(r"`(robustgate [^`]+)`", text) if "/" not in code.split()[1])


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_exist(page: str) -> None:
    program: Any = typer.main.get_command(app)
    for told in inline(page):
        _, name, *words = shlex.split(told)
        assert name in program.commands, told
        options = {option for parameter in program.commands[name].params for option in parameter.opts}
        unknown = {word for word in words if word.startswith("--")} - options
        assert not unknown or name == "run", told


def test_options_of_pytest_exist(tmp_path: Path) -> None:
    told = {option for page in PAGES for option in re.findall(r"--robustgate-[a-z]+", (DOCS / page).read_text())}
    reader = Reader(folder=tmp_path)
    assert reader.run("pytest --help") == 0
    assert not {option for option in told if option not in reader.output}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", (DOCS / page).read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (DOCS / path).resolve() if path else DOCS / page
        assert target.is_file(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {anchor_of(title) for title in titles}, link


def anchor_of(title: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_what_a_block_expects_is_really_compared(tmp_path: Path) -> None:
    reader = Reader(folder=tmp_path)
    echo = "$ echo 40 of 41; echo end\n"

    def say(expected: str, **marks: str) -> None:
        reader.on_console(Block(language="console", marks=marks, body=echo + expected, place="here"))

    for right in ("40 of 41\nend\n", "...\nend\n", "40 of 41\n...\n", "4... of 41\n...\n", ""):
        say(right)
    say("39 of 41\nend\n", about="")
    for wrong in ("39 of 41\nend\n", "40 of 41\n", "end\n", "...\n40\n...\n", "40 of 41\nend\nmore\n"):
        with pytest.raises(AssertionError):
            say(wrong)
    with pytest.raises(AssertionError, match="status"):
        say("40 of 41\nend\n", status="1")
    with pytest.raises(AssertionError, match="nothing is done"):
        reader.follow([Block(language="ruby", marks={}, body="puts 1\n", place="here")])
    with pytest.raises(AssertionError, match="no reason"):
        reader.follow([Block(language="console", marks={"not-run": "tired"}, body=echo, place="here")])
