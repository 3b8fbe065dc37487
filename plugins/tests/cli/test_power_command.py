"""`robustgate plan --power` as a person types it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from robustgate.cli import app


def type_in(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "120"})


def test_a_small_test_set_is_warned_of_and_a_surer_figure_is_not(tiny) -> None:
    drop = '\n[[policies.edge.rules]]\nname = "{}"\nwhere = {{ compression = "fp*" }}\nmax_drop = {}\n'
    tiny.configure(extra=drop.format("no worse by 3", 0.03) + drop.format("no worse by 60", 0.6))
    done = type_in("plan", "--power")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    (warning,) = [line for line in lines if line.startswith("warning: rule ")]
    assert warning.startswith("warning: rule 'no worse by 3': 40 images cannot resolve 3.0 points: the smallest is ")
    (row,) = [line for line in lines if "no worse by 60" in line and "max_drop 60.0" in line]
    assert " 40 " in row
    assert any('scope = "test_set"' in line for line in lines)


def test_a_domain_that_cannot_be_read_is_one_message(tiny) -> None:
    tiny.configure()
    (tiny.folder / "day.npz").write_bytes(b"no archive")
    done = type_in("plan", "--power")
    assert done.exit_code == 4
    assert done.stderr.startswith("robustgate: domains.day: ")
    assert len(done.stderr.splitlines()) == 1
    assert type_in("plan").exit_code == 0  # a plan alone reads no data
