"""Each message of plugins/docs/errors.md is provoked as the page says, and is printed as it says."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from doc_pages import DOCS, Reader, blocks_of, sections

PAGE = "errors.md"
FOUND = sections(PAGE, "###")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the page begins with."""
    folder = tmp_path_factory.mktemp("errors") / "digits"
    folder.mkdir()
    beginning = (DOCS / PAGE).read_text(encoding="utf-8").partition("\n## ")[0]
    Reader(folder=folder).follow(list(blocks_of(beginning, PAGE)))
    return folder


@pytest.mark.parametrize("title", FOUND)
def test_it_says_so(title: str, start: Path, tmp_path: Path) -> None:
    blocks = list(blocks_of(FOUND[title], f"{PAGE}, {title}"))
    consoles = [block for block in blocks if block.language == "console"]
    texts = [block for block in blocks if block.language == "text"]
    assert consoles
    assert len(consoles) == len(texts), f"{title}: a message for each command"
    assert all(block.marks["status"] != "0" for block in consoles)
    Reader(folder=Path(shutil.copytree(start, tmp_path / "digits"))).follow(blocks)


def test_there_are_enough_of_them() -> None:
    assert len(FOUND) >= 20


def test_an_extra_is_missing_here() -> None:
    # No extra of the developers' environment brings it; where it is there, the page needs another one.
    assert find_spec("executorch") is None
