"""The pages of plugins/docs as something that runs: fenced blocks, the folder that they change, what they print.

Every fence does something, by its language; what follows the language in its first line says how:

- ``toml``, ``python``, ``yaml``: a file. Its first line is a comment that names it: ``# robustgate.toml`` writes it,
  ``# in robustgate.toml`` puts the block's tables in the place of those of the same names, or behind them.
- ``console``: a command after each ``$``, and below it what it prints; ``...`` stands for any text, or any lines.
  ``status=1`` is the exit status of the last command; ``about``: its figures may be others on another machine.
- ``text``: all that the last command printed; ``part``: lines of it. ``about`` as above.
- ``not-run=REASON``: a command that is not run, for one of the reasons in NOT_RUN.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(?P<info>[^`\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
HEADER = re.compile(r"^(?=\[)", re.MULTILINE)
NUMBER = r"\d[\d,.]*\d|\d"
# The folder as the pages write it.
HOME = "/home/me/digits"
NOT_RUN = {
    "installs": "it would change the environment that the tests run in",
    "opens": "it opens a browser",
}
MARKS = {"about", "part", "status", "not-run"}
SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    language: str
    marks: dict[str, str]
    body: str
    place: str

    @property
    def named(self) -> tuple[str, str]:
        """The comment in its first line, and the rest."""
        first, _, rest = self.body.partition("\n")
        return first.removeprefix("# "), rest


def blocks_of(text: str, name: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page's text."""
    for match in FENCE.finditer(text):
        language, *words = match["info"].split()
        marks = dict(word.partition("=")[::2] for word in words)
        place = f"{name}:{text.count(chr(10), 0, match.start()) + 1}"
        assert marks.keys() <= MARKS, f"{place}: unknown mark in {match['info']!r}"
        yield Block(language=language, marks=marks, body=match["body"], place=place)


def read(name: str) -> list[Block]:
    return list(blocks_of((DOCS / name).read_text(encoding="utf-8"), name))


def sections(name: str, level: str) -> dict[str, str]:
    """Return the text below each heading of a level, up to the next heading of that level or of a higher one."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    fenced = False
    for line in (DOCS / name).read_text(encoding="utf-8").splitlines(keepends=True):
        fenced ^= line.startswith("```")
        marks, _, title = line.partition(" ")
        if not fenced and marks.strip("#") == "" and 0 < len(marks) <= len(level):
            lines = found.setdefault(title.strip(), []) if marks == level else []
        lines.append(line)
    return {title: "".join(body) for title, body in found.items()}


def pattern_of(expected: str, *, about: bool) -> str:
    """Return what a printed text must match, line by line, where its expected text has ``...`` and about-figures."""
    lines = []
    for line in expected.rstrip().splitlines():
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
            continue
        text = ".*".join(map(re.escape, line.rstrip().split("...")))
        lines.append((re.sub(NUMBER, "[0-9,.]+", text) if about else text) + r"[ ]*\n")
    return "".join(lines)


@dataclass(kw_only=True)
class Reader:
    """A reader who does what a page says, in a folder of her own."""

    folder: Path
    importable: Path | None = None
    output: str = ""

    def follow(self, blocks: list[Block]) -> None:
        for block in blocks:
            if reason := block.marks.get("not-run"):
                assert reason in NOT_RUN, f"{block.place}: no reason {reason!r}; known: {sorted(NOT_RUN)}"
                continue
            handler = getattr(self, f"on_{block.language}", None)
            assert handler is not None, f"{block.place}: nothing is done with {block.language!r}"
            handler(block)

    def on_python(self, block: Block) -> None:
        name, _ = block.named
        self.write(name, block.body)

    def on_toml(self, block: Block) -> None:
        name, rest = block.named
        if not name.startswith("in "):
            self.write(name, block.body)
            return
        path = self.folder / name.removeprefix("in ")
        tables = tables_of(path.read_text(encoding="utf-8"))
        for header, text in tables_of(rest).items():
            tables[header] = text if text.endswith("\n\n") else f"{text}\n"
        path.write_text("".join(tables.values()), encoding="utf-8")

    def on_yaml(self, block: Block) -> None:
        name, _ = block.named
        self.write(name, block.body)

    def on_console(self, block: Block) -> None:
        assert block.body.startswith("$ "), f"{block.place}: begins without a command"
        commands = [part.partition("\n") for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]]
        for number, (command, _, expected) in enumerate(commands, 1):
            status = int(block.marks.get("status", "0")) if number == len(commands) else 0
            found = self.run(command)
            told = f"{block.place}: $ {command}\n{self.output}"
            assert found == status, f"expected exit status {status}, got {found}\n{told}"
            pattern = pattern_of(expected, about="about" in block.marks)
            assert not expected or re.fullmatch(pattern, self.output), f"expected:\n{expected}\n{told}"

    def on_text(self, block: Block) -> None:
        pattern = pattern_of(block.body, about="about" in block.marks)
        whole = f"{self.output.strip()}\n"
        found = re.search(f"^{pattern}", whole, re.MULTILINE) if "part" in block.marks else re.fullmatch(pattern, whole)
        assert found, f"{block.place}: expected:\n{block.body}\ngot:\n{self.output}"

    def run(self, command: str) -> int:
        """Run a command in the folder, as a shell of the reader's would; keep what it prints."""
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "PYTEST", "GITHUB", "ROBUSTGATE", "CI"))
        }
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
            "CUDA_VISIBLE_DEVICES": "",
            **({"PYTHONPATH": str(self.importable)} if self.importable else {}),
        }
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        self.output = done.stdout.replace(str(self.folder), HOME)
        return done.returncode

    def write(self, name: str, text: str) -> None:
        assert re.fullmatch(r"[\w./-]+\.\w+", name), f"no name of a file: {name!r}"
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def tables_of(text: str) -> dict[str, str]:
    """Return the tables of a TOML text by their headers; an array's tables are one text."""
    tables: dict[str, str] = {}
    for part in HEADER.split(text):
        header = part.partition("\n")[0] if part.startswith("[") else ""
        tables[header] = tables.get(header, "") + part
    return tables
