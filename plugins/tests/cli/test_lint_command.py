"""`robustgate lint`, and the warnings of `robustgate plan`, as a person types them."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner, Result

from robustgate.cli import app

IDLE = '\n[[policies.edge.rules]]\nname = "idle"\nwhere = { attack = "pgd" }\nmin = 0\n'
SAID = "policy edge: rule 'idle': min 0 % cannot be broken: no figure is on the wrong side of it"
NEW = '\n[policies.new]\nscope = "population"\n[[policies.new.rules]]\nname = "high"\nwhere = { kind = "clean" }\nmin = 0.98\n'


def type_in(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_a_sound_policy_is_exit_status_0(tiny) -> None:
    done = type_in("lint")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "nothing found\n", "")
    assert "warning" not in type_in("plan").stdout


def test_what_says_nothing_is_exit_status_1_and_a_warning_of_the_plan(tiny) -> None:
    tiny.configure(extra=IDLE)
    done = type_in("lint")
    assert (done.exit_code, done.stdout.splitlines()) == (1, [SAID])
    planned = type_in("plan")
    assert planned.exit_code == 0
    assert planned.stdout.splitlines()[-1] == f"warning: {SAID}"


def test_each_policy_that_is_asked_for_is_looked_at(tiny) -> None:
    tiny.configure(extra=IDLE + NEW)
    assert type_in("lint", "--policy", "new").exit_code == 0
    assert type_in("lint", "--policy", "new,edge").stdout.splitlines() == [SAID]
    assert type_in("lint", "--policy", "new,egde").exit_code == 4


def test_the_data_are_counted_where_asked(tiny) -> None:
    tiny.configure(extra=NEW)
    done = type_in("lint", "--policy", "new", "--data")
    assert done.exit_code == 1
    # 0.005 to the power of 1/144: the exact interval of 144 of 144 at 99 %.
    assert done.stdout.splitlines() == [
        "policy new: rule 'high': min 98 % cannot be satisfied: a result without a mistake shows no more than 96.4 %"
    ]
    (tiny.folder / "day.npz").unlink()
    assert type_in("lint", "--policy", "new", "--data").exit_code == 4


@pytest.mark.parametrize("several", [False, True])
def test_the_plan_tells_the_rules_of_each_policy(tiny, several: bool) -> None:
    tiny.configure(extra=NEW)
    done = type_in("plan", "--policy", "edge,new" if several else "edge")
    lines = done.stdout.splitlines()
    path = tiny.folder / "robustgate.toml"
    assert lines[0] == f"{path}: {'policies edge, new' if several else 'policy edge'}"
    headings = [line for line in lines if line.startswith("rules")]
    assert headings == (["rules of policy edge:", "rules of policy new:"] if several else ["rules:"])
    assert ("  'high' judges 2 cases" in lines) == several


def test_help_has_an_example() -> None:
    assert "Example: robustgate lint" in type_in("lint", "--help").stdout
