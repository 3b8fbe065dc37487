"""robustgate.toml: what is read, and what is said of each mistake."""

from __future__ import annotations

import re
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import pytest

from robustgate.attacks.foolbox import Foolbox
from robustgate.attacks.pgd import Pgd
from robustgate.attacks.torchattacks import Torchattacks
from robustgate.config import Normalize, Pair, find, load
from robustgate.core.errors import ConfigurationError

GOOD = """
[gate]
seed = 3

[domains.amazon]
kind = "npz"
files = { test = "amazon.npz" }
[domains.webcam]
kind = "npz"
files = { test = "webcam.npz" }

[models.net]
build = "robustgate.zoo:cifar_resnet"
args = { depth = 8, num_classes = 10 }
normalize = { mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }
weights = { amazon = "net.safetensors" }

[compressions.fp60]
steps = [{ method = "filter_pruning", ratio = 0.6, finetune = { epochs = 5 } }]
[compressions.ptsq]
steps = [{ method = "static_quantization" }]
[compressions.fp60_ptsq]
steps = [{ use = "fp60" }, { method = "static_quantization" }]

[shifts]
pairs = [["amazon", "webcam"]]
corruptions = { names = ["contrast"], severities = [1, 3] }

[attacks.pgd]
method = "pgd"
eps = 0.004
steps = 40

[policies.edge]
confidence = 0.95
[[policies.edge.rules]]
name = "floor"
where = { compression = "fp*" }
min = 0.4
max_drop = 0.05
[[policies.edge.rules]]
name = "fits"
rule = "size"
max = "3 MB"
[[policies.edge.waivers]]
where = { compression = "fp60" }
until = 2026-12-31
reason = "retraining"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.safetensors").write_bytes(b"")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "robustgate.toml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(write(folder, text))
    return caught.value.problems


def test_every_table_becomes_a_value(folder: Path) -> None:
    configuration = load(write(folder, GOOD))
    assert configuration.gate.seed == 3
    assert configuration.gate.cache == folder / ".robustgate"
    model = configuration.models["net"]
    assert model.normalize == Normalize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert model.weights == {"amazon": folder / "net.safetensors"}
    assert configuration.pairs == (("amazon", "webcam"),)
    assert configuration.severities == (1, 3)
    assert configuration.attacks == {"pgd": Pgd(eps=0.004, steps=40)}
    policy = configuration.policies["edge"]
    assert policy.confidence == 0.95
    assert policy.case_rules[0].max_drop == 0.05
    assert policy.run_rules[0].component.limit == 3_000_000
    assert policy.waivers[0].until == date(2026, 12, 31)


def test_a_pair_may_be_a_table_that_says_how_classes_are_matched(folder: Path) -> None:
    table = '{ source = "amazon", target = "webcam", classes = { mug = "cup" }, missing = "drop" }'
    configuration = load(write(folder, GOOD.replace('["amazon", "webcam"]', table)))
    assert configuration.pairs == (("amazon", "webcam"),)
    matched = Pair(source="amazon", target="webcam", classes={"mug": "cup"}, missing="drop")
    assert configuration.matchings == {("amazon", "webcam"): matched}
    plain = load(write(folder, GOOD))
    assert plain.matchings == {("amazon", "webcam"): Pair(source="amazon", target="webcam")}
    for pairs in ('"all"', "[]"):
        text = GOOD.replace('[["amazon", "webcam"]]', pairs)
        assert load(write(folder, text)).pairs == ((("amazon", "webcam"),) if pairs == '"all"' else ())


def test_use_puts_the_steps_of_the_other_in_its_place(folder: Path) -> None:
    chains = load(write(folder, GOOD)).compressions
    assert [step.method for step in chains["fp60_ptsq"]] == ["filter_pruning", "static_quantization"]
    assert chains["fp60_ptsq"][0] == chains["fp60"][0]


def test_pyproject_holds_the_same_tables(folder: Path) -> None:
    path = folder / "pyproject.toml"
    path.write_text(re.sub(r"^(\[+)", r"\1tool.robustgate.", GOOD, flags=re.MULTILINE))
    assert load(path).attacks == load(write(folder, GOOD)).attacks
    (folder / "robustgate.toml").unlink()
    assert find(folder) == path


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[gate]\nseed", "[gate]\nsead", "gate: unknown key 'sead' (did you mean 'seed'?)"),
        ("seed = 3", 'seed = "x"', "gate.seed: expected a whole number, got the text 'x'"),
        ("[attacks.pgd]", "[attaks.pgd]", "unknown key 'attaks' (did you mean 'attacks'?)"),
        ('method = "pgd"', 'method = "pdg"', "attacks.pgd.method: unknown name 'pdg' in attacks (did you mean 'pgd'?)"),
        ("eps = 0.004", "epsilon = 0.004", "attacks.pgd: unknown key 'epsilon' (did you mean 'eps'?)"),
        ("eps = 0.004\n", "", "attacks.pgd: missing key 'eps', expected a number"),
        ("eps = 0.004", "eps = 4", "attacks.pgd: eps is in [0, 1] units, got 4: divide by 255"),
        ("steps = 40", "steps = 40\nrelative_step = 0.01", "relative_step 0.01 x 40 steps cannot reach eps"),
        ("steps = 40", 'norm = "l3"', "attacks.pgd.norm: expected one of 'linf', 'l2', got the text 'l3'"),
        ('"net.safetensors"', '"nut.safetensors"', "models.net.weights.amazon: no such file: "),
        (
            "weights = { amazon",
            "weights = { amazn",
            "models.net.weights.amazn: no domain 'amazn' (did you mean 'amazon'?)",
        ),
        ("normalize = {", "normalise = {", "models.net: unknown key 'normalise' (did you mean 'normalize'?)"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [125, 125, 125]", "mean must be in [0, 1] units"),
        (
            '["amazon", "webcam"]]',
            '["amazon", "webcm"]]',
            "shifts.pairs[0]: no domain 'webcm' (did you mean 'webcam'?)",
        ),
        (
            '["amazon", "webcam"]]',
            '{ source = "amazon", target = "webcm" }]',
            "shifts.pairs[0]: no domain 'webcm' (did you mean 'webcam'?)",
        ),
        (
            '["amazon", "webcam"]]',
            '["amazon", "webcam"], { source = "amazon", target = "webcam", clases = {} }]',
            "shifts.pairs[1]: unknown key 'clases' (did you mean 'classes'?)",
        ),
        (
            '["amazon", "webcam"]]',
            '{ source = "amazon", target = "webcam", missing = "dropped" }]',
            "shifts.pairs[0].missing: expected one of 'error', 'drop', got the text 'dropped' (did you mean 'drop'?)",
        ),
        (
            '["amazon", "webcam"]]',
            '{ source = "amazon", target = "webcam", classes = { mug = 1 } }]',
            "shifts.pairs[0].classes.mug: expected a table, got the number 1",
        ),
        ('["amazon", "webcam"]]', '{ source = "amazon" }]', "shifts.pairs[0]: missing key 'target', expected a text"),
        (
            '["amazon", "webcam"]]',
            '{ source = "amazon", target = "amazon" }]',
            "shifts.pairs[0]: a pair needs two domains, got 'amazon' twice",
        ),
        (
            '["amazon", "webcam"]]',
            '["amazon", "webcam"], ["amazon"]]',
            "shifts.pairs[1]: expected a list of 2 or a table, got the list ['amazon']",
        ),
        ('[["amazon", "webcam"]]', '"al"', "shifts.pairs: expected"),
        ('["contrast"]', '["contras"]', "unknown name 'contras' in corruptions (did you mean 'contrast'?)"),
        ("severities = [1, 3]", "severities = [0]", "severities must be some of 1, 2, 3, 4, 5, got [0]"),
        (
            '{ use = "fp60" }',
            '{ use = "fp6" }',
            "compressions.fp60_ptsq.steps: no compression 'fp6' (did you mean 'fp60'?)",
        ),
        ('{ use = "fp60" }', '{ use = "fp60_ptsq" }', "goes round in a circle: fp60_ptsq → fp60_ptsq"),
        (
            '{ use = "fp60" }',
            '{ use = "ptsq" }',
            "static_quantization ends in a file, which no further step can change",
        ),
        ("finetune = { epochs = 5 }", "finetune = { epoch = 5 }", "steps[0].finetune: unknown key 'epoch'"),
        ("finetune = { epochs = 5 }", "finetune = 5", "finetune: expected a table, got the number 5"),
        ("ratio = 0.6,", "ratio = 1.6,", "ratio must be above 0 and below 1, got 1.6"),
        ("[compressions.ptsq]", "[compressions.control]", "compressions.control: the name 'none' and those"),
        ("[compressions.ptsq]", '[compressions."a-b"]', "a name is made of letters, digits"),
        ("confidence = 0.95", "confidence = 95", "policies.edge: confidence must be a fraction above 0.5 and below 1"),
        (
            'where = { compression = "fp*" }',
            'where = { compresion = "fp*" }',
            "rules[0].where: unknown key 'compresion'",
        ),
        ("min = 0.4\nmax_drop = 0.05", "", "rules[0]: a rule needs a limit: min, max_drop"),
        ("max_drop = 0.05", "max_drop = 5", "max_drop must be a fraction in [0, 1], got 5"),
        ('rule = "size"', 'rule = "sise"', "unknown name 'sise' in rules (did you mean 'size'?)"),
        ('max = "3 MB"', 'max = "3 mb"', "max must be a size such as '3 MB'"),
        ("until = 2026-12-31", 'until = "soon"', "waivers[0].until: expected "),
        ('reason = "retraining"', 'reason = " "', "waivers[0]: reason must say why"),
        ('name = "fits"', 'name = "floor"', "two rules are called 'floor'"),
    ],
)
def test_a_mistake_is_named_with_its_place(folder: Path, old: str, new: str, expected: str) -> None:
    assert GOOD.count(old) >= 1
    found = problems(folder, GOOD.replace(old, new, 1))
    assert any(expected in problem for problem in found), found


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    broken = (
        GOOD.replace("eps = 0.004", "epsilon = 0.004").replace("ratio = 0.6,", "ratio = 6,").replace("seed", "sead")
    )
    found = problems(folder, broken)
    assert {problem.partition(":")[0] for problem in found} >= {"gate", "attacks.pgd", "compressions.fp60.steps[0]"}


def test_a_policy_without_rules_is_refused(folder: Path) -> None:
    assert any(
        "it would pass everything" in problem
        for problem in problems(folder, GOOD.split("[policies.edge]")[0] + "[policies.edge]\nconfidence = 0.9")
    )


def test_a_missing_file_and_broken_toml_are_one_message(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such file"):
        load(folder / "absent.toml")
    assert "not valid TOML" in problems(folder, "[gate")[0]


LIBRARY = """
[attacks.theirs]
method = "torchattacks:PGD"
eps = 0.004
parameters = { steps = 40, alpha = 0.001 }
[attacks.nearest]
method = "foolbox:L2DeepFoolAttack"
eps = 0.1
minimizes = true
"""


needs_both = pytest.mark.skipif(
    not all(map(find_spec, ("torchattacks", "foolbox"))), reason="needs the extras torchattacks and foolbox"
)


@needs_both
def test_an_attack_of_a_library_is_named_after_a_colon(folder: Path) -> None:
    attacks = load(write(folder, GOOD + LIBRARY)).attacks
    assert attacks["theirs"] == Torchattacks(
        attack="PGD", eps=0.004, norm="linf", parameters={"steps": 40, "alpha": 0.001}
    )
    assert attacks["nearest"] == Foolbox(attack="L2DeepFoolAttack", eps=0.1, norm="l2", minimizes=True)


@needs_both
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("torchattacks:PGD", "torchattaks:PGD", "method: unknown name 'torchattaks' in attacks (did you mean 'torchat"),
        ("torchattacks:PGD", "torchattacks:PDG", "torchattacks has no attack 'PDG' (did you mean 'PGD'?); known: APGD"),
        ("torchattacks:PGD", "torchattacks", 'names no attack of torchattacks: write method = "torchattacks:PGD"'),
        (
            "eps = 0.004\nparam",
            'attack = "FGSM"\neps = 0.004\nparam',
            "attacks.theirs.attack: the attack is named twice",
        ),
        ("steps = 40, a", "step = 40, a", "parameters: 'step' of PGD is unknown (did you mean 'steps'?)"),
        ("minimizes = true", "minimises = true", "unknown key 'minimises' (did you mean 'minimizes'?)"),
        ("minimizes = true", 'norm = "linf"', "norm must be one of l2 for foolbox's L2DeepFoolAttack, got 'linf'"),
    ],
)
def test_a_mistake_in_an_attack_of_a_library_is_named_with_its_place(folder, old: str, new: str, expected: str) -> None:
    assert LIBRARY.count(old) == 1
    found = problems(folder, GOOD + LIBRARY.replace(old, new))
    assert any(problem.startswith("attacks.") and expected in problem for problem in found), found


def test_a_library_that_is_not_installed_is_an_error_that_names_the_extra(folder: Path, monkeypatch) -> None:
    from robustgate.attacks import _library

    monkeypatch.setattr(_library, "find_spec", lambda name: None)
    assert set(problems(folder, GOOD + LIBRARY)) == {
        'attacks.theirs: torchattacks:PGD needs a package that is not installed: pip install "robustgate[torchattacks]"',
        'attacks.nearest: foolbox:L2DeepFoolAttack needs a package that is not installed: pip install "robustgate[foolbox]"',
    }
