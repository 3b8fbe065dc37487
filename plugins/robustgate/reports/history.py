"""history.sqlite: the figures of every run, one run after another, in one file that several processes may add to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robustgate.core.errors import ResultsError
from robustgate.core.records import Results, Variant, Verdict

VERSION = 1
# For how long a process waits for others that are adding their runs.
BUSY_SECONDS = 20.0
# A series is a case, or a rule on a variant (`kind` is then "variant", `name` the variant's): its points are its runs.
TABLES = (
    """CREATE TABLE run (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, started TEXT NOT NULL, seconds REAL NOT NULL, seed INTEGER NOT NULL,
        device TEXT NOT NULL, processor TEXT NOT NULL, policy TEXT NOT NULL, config TEXT NOT NULL,
        config_sha256 TEXT NOT NULL, version TEXT NOT NULL, planned INTEGER NOT NULL, measured INTEGER NOT NULL,
        verdict TEXT NOT NULL
    )""",
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, policy TEXT NOT NULL, rule TEXT NOT NULL,
        metric TEXT NOT NULL, UNIQUE (kind, name, policy, rule, metric)
    )""",
    """CREATE TABLE point (
        series INTEGER NOT NULL REFERENCES series, run INTEGER NOT NULL REFERENCES run, value REAL NOT NULL, low REAL,
        high REAL, n INTEGER, n_total INTEGER, verdict TEXT NOT NULL, data TEXT, artifact TEXT,
        PRIMARY KEY (series, run)
    ) WITHOUT ROWID""",
)
ADD_RUN = """INSERT INTO run VALUES (
    NULL, :name, :started, :seconds, :seed, :device, :processor, :policy, :config, :config_sha256, :version, :planned,
    :measured, :verdict
)"""
ADD_SERIES = "INSERT INTO series VALUES (NULL, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET kind = kind RETURNING id"
ADD_POINT = "INSERT INTO point VALUES (:series, :run, :value, :low, :high, :n, :n_total, :verdict, :data, :artifact)"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as the history has it; `number` counts the runs of the file, in the order in which they were added."""

    number: int
    name: str
    started: str
    seconds: float
    seed: int
    device: str
    processor: str
    policy: str
    config: str
    config_sha256: str
    version: str
    planned: int
    measured: int
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Point:
    """A figure of the run with this number. `data` and `artifact` are hashes, where they are known."""

    run: int
    value: float
    low: float | None
    high: float | None
    n: int | None = None
    n_total: int | None = None
    verdict: Verdict
    data: str | None = None
    artifact: str | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """A case over the runs that measured it, or a rule on a variant, by its policy; that of a case has no rule."""

    kind: str
    name: str
    policy: str
    rule: str
    metric: str
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        """``adversarial/tiny-fp25-day-pgd``, or ``tiny-fp25-day: fits (edge)``."""
        return f"{self.name}: {self.rule} ({self.policy})" if self.rule else f"{self.kind}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class History:
    """Runs, oldest first and at least one, and the series that have a point in one of them."""

    runs: tuple[Run, ...]
    series: tuple[Series, ...]


def keep(results: Results, path: Path | None) -> str:
    """Add a run to the history, where one is kept; return why that could not be done, or nothing."""
    try:
        if path is not None:
            append(results, path)
    except ResultsError as error:
        return f"the run was not added to the history: {error}"
    return ""


def append(results: Results, path: Path) -> None:
    """Add a run: every case that it measured, and every figure of a rule on a variant.

    All of it or nothing, however many processes add theirs at once. The file is made where it is missing. Raises
    ResultsError where it is damaged, of a newer version, something else, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{path}: cannot be used as a history: {error.strerror}") from error
    with _opened(path, "rwc") as database:
        database.execute("BEGIN IMMEDIATE")
        if _version(database, path) == 0:
            for table in TABLES:
                database.execute(table)
            database.execute(f"PRAGMA user_version = {VERSION}")
        number = database.execute(ADD_RUN, _run(results)).lastrowid or 0
        for series, point in _points(results, number):
            (place,) = database.execute(ADD_SERIES, series).fetchone()
            database.execute(ADD_POINT, {"series": place, **asdict(point)})
        database.execute("COMMIT")


def read(path: Path, last: int) -> History:
    """Return the last runs of a history. Raises ResultsError where there is none, or it cannot be read."""
    if not path.is_file():
        raise ResultsError(f"no history at {path}: every run adds itself there, unless gate.history says otherwise")
    with _opened(path, "ro") as database:
        _version(database, path)
        rows = database.execute("SELECT * FROM run ORDER BY id DESC LIMIT ?", (last,)).fetchall()
        if not rows:
            raise ResultsError(f"{path}: holds no run")
        runs = tuple(Run(number=row["id"], **_rest(row)) for row in reversed(rows))
        points: dict[int, list[Point]] = {}
        for row in database.execute("SELECT * FROM point WHERE run >= ? ORDER BY run", (runs[0].number,)):
            points.setdefault(row["series"], []).append(Point(**_rest(row)))
        named = database.execute("SELECT * FROM series ORDER BY kind, name, policy, rule").fetchall()
    series = (Series(**_rest(row), points=tuple(points[row["id"]])) for row in named if row["id"] in points)
    return History(runs=runs, series=tuple(series))


def prune(path: Path, last: int) -> int:
    """Remove all runs but the last ones, and give their room back; return how many were removed. Raises ResultsError.

    Only who asks for it loses a run: no run removes another.
    """
    if not path.is_file():
        raise ResultsError(f"no history at {path}: nothing to remove")
    with _opened(path, "rw") as database:
        _version(database, path)
        database.execute("BEGIN IMMEDIATE")
        (first,) = database.execute(
            "SELECT min(id) FROM (SELECT id FROM run ORDER BY id DESC LIMIT ?)", (last,)
        ).fetchone()
        database.execute("DELETE FROM point WHERE run < ?", (first,))
        removed = database.execute("DELETE FROM run WHERE id < ?", (first,)).rowcount
        database.execute("DELETE FROM series WHERE id NOT IN (SELECT series FROM point)")
        database.execute("COMMIT")
        if removed:
            database.execute("VACUUM")
    return removed


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Open a history; every error of the database says which file it is about. An open transaction is taken back."""
    try:
        place = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(place, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as database:
            database.row_factory = sqlite3.Row
            yield database
    except sqlite3.Error as error:
        raise ResultsError(f"{path}: cannot be used as a history: {error}") from error


def _version(database: sqlite3.Connection, path: Path) -> int:
    """Return the version of a history, 0 for an empty file. Raises ResultsError for what this version cannot read."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise ResultsError(f"{path}: cannot be used as a history: version {version} is of a newer robustgate")
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables:
        raise ResultsError(f"{path}: cannot be used as a history: it is another database")
    return int(version)


def _rest(row: sqlite3.Row) -> dict[str, Any]:
    """Return the columns of a row behind the first, its key."""
    return {name: row[name] for name in row.keys()[1:]}


def _run(results: Results) -> dict[str, object]:
    run = asdict(results.run)
    return {**run, "name": results.run.id, "version": results.run.versions.get("robustgate", "")}


def _points(results: Results, run: int) -> Iterator[tuple[tuple[str, ...], Point]]:
    """Yield every figure of a run with what names its series."""
    artifacts = {one.name: one.artifact_sha256 for one in results.variants}
    for row in results.cases:
        if row.value is not None:
            variant = Variant(model=row.model, source=row.source, compression=row.compression)
            yield (
                (row.shift.kind, row.name, "", "", row.metric),
                Point(
                    run=run,
                    value=row.value,
                    low=row.low,
                    high=row.high,
                    n=row.n,
                    n_total=row.n_total,
                    verdict=row.verdict,
                    data=row.data,
                    artifact=artifacts.get(variant.name),
                ),
            )
    for one in results.findings:
        if one.value is not None:
            figure = Point(
                run=run,
                value=one.value,
                low=one.low,
                high=one.high,
                verdict=one.verdict,
                artifact=artifacts.get(one.subject),
            )
            yield ("variant", one.subject, one.policy, one.rule, one.metric), figure
