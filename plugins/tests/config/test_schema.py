"""The JSON Schema of robustgate.toml: what the reader takes it takes, and a mistake of form is one to both."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from test_load import GOOD, LIBRARY
from typer.testing import CliRunner

from robustgate.cli import app
from robustgate.config import load
from robustgate.config.chains import PRESETS
from robustgate.config.load import TABLES
from robustgate.config.schema import json_schema
from robustgate.core.catalog import shelf
from robustgate.core.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
FINETUNED = '[compressions.{}]\nsteps = [{{ method = "{}", finetune = {{ epochs = 1 }} }}]\n'


def document(text: str) -> Any:
    """Return a TOML text as JSON, dates as texts, which is how editors check it."""
    return json.loads(json.dumps(tomllib.loads(text), default=str))


def resolved(node: Any, root: dict[str, Any]) -> Any:
    """Return a schema with everything where it is used."""
    if isinstance(node, dict):
        if "$ref" in node:
            assert list(node) == ["$ref"], "of what stands beside a reference editors think differently"
            return resolved(root["$defs"][node["$ref"].removeprefix("#/$defs/")], root)
        return {key: resolved(value, root) for key, value in node.items() if key != "$defs"}
    return [resolved(one, root) for one in node] if isinstance(node, list) else node


PLAIN = resolved(SCHEMA, SCHEMA)


def problems(text: str) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(document(text))]


def merged(one: Any, other: Any) -> Any:
    """Return two documents as if their texts stood in one file."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {key: merged(one[key], other[key]) for key in one.keys() & other.keys()}
        return {**one, **other, **both}
    return one + other if isinstance(one, list) and isinstance(other, list) else other


def refused_by_both(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "net.safetensors").touch()
    path = tmp_path / "robustgate.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        load(path)
    found = problems(text)
    assert found
    return found


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert list(SCHEMA["properties"]) == TABLES
    assert "$ref" not in json.dumps(PLAIN)


def test_it_is_small_for_it_says_nothing_twice() -> None:
    long: dict[str, str] = {}

    def look(node: Any, place: str) -> None:
        text = json.dumps(node, sort_keys=True)
        is_schema = isinstance(node, dict) and not place.endswith("/properties") and "/if" not in place
        if is_schema and len(text) >= 100:
            assert text not in long, f"{place} says what {long[text]} says"
            long[text] = place
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            look(value, f"{place}/{key}")

    look(SCHEMA, "")
    assert len(json.dumps(SCHEMA)) < 140_000
    used = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(SCHEMA)))
    assert used == SCHEMA["$defs"].keys()


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(app, ["schema", "config"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == SCHEMA


# What the reader takes.


def test_the_readme_is_valid() -> None:
    blocks = [document(block) for block in re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)]
    whole: Any = {}
    for block in blocks:
        whole = merged(whole, block)
    assert len(blocks) >= 7
    assert [error.message for error in VALIDATOR.iter_errors(whole)] == []


def test_the_embedded_gate_is_valid() -> None:
    assert problems((ROOT / "fixtures" / "robustgate.toml").read_text()) == []


def test_the_tiny_project_is_valid(tiny) -> None:
    assert problems((tiny.folder / "robustgate.toml").read_text()) == []


EXTRAS = [
    "",
    LIBRARY,
    LIBRARY.replace('"torchattacks:PGD"', '"torchattacks"\nattack = "PGD"'),
    '[attacks.fgsm]\nmethod = "fgsm"\neps = 0.1\n[attacks.worst]\nmethod = "worst_case"\nattacks = ["pgd", "fgsm"]\n',
    '[compressions]\npreset = "clustered-pruned-quantized"\n',
    '[compressions]\npreset = { name = "clustered-pruned-quantized", finetune = { epochs = 1 } }\n',
    FINETUNED.format("q", "quantization_aware_training").replace("epochs", 'recipe = "supervised", epochs'),
    '[compressions.vendor]\nartifact = { net = { amazon = "a.onnx" } }\ninput = { layout = "nhwc", high = 255 }\n',
    '[compressions.vendor]\nsteps = [{ method = "artifact", files = { net = { amazon = "a.onnx" } } }]\n',
    '[compressions.small]\nsteps = [{ method = "filter_pruning", parameters = "1M", rounds = 2 }]\n',
    '[compressions.small]\nsteps = [{ method = "filter_pruning", parameters = 4000 }]\n',
    '[compressions.s]\nsteps = [{ method = "distillation", teacher = "net", training = { epochs = 1 } }]\n',
    '[domains.usps]\nkind = "npz"\nfiles = { test = "u.npz" }\nresize = [20, 20]\npad = 4\nclasses = ["a", "b"]\n',
    '[domains.c]\nkind = "cifar_c"\nroot = "c"\n',
    '[domains."a.b"]\nkind = "digits"\nstyle = "scene"\n',
    "[masking]\nenabled = false\n",
    '[policies.release]\nextends = "edge"\nearly_stop = false\nprove = "good"\n',
    '[policies.release]\nextends = "edge"\n[[policies.release.rules]]\nname = "low"\nmax_drop = 0.5\n',
    '[[policies.edge.rules]]\nname = "steady"\nrule = "stability"\nmax = 0.1\ntransformations = { shift = 2 }\n',
]


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_may_stand_in_a_configuration_is_valid(tmp_path: Path, extra: str) -> None:
    for file in ("net.safetensors", "a.onnx"):
        (tmp_path / file).touch()
    path = tmp_path / "robustgate.toml"
    path.write_text(GOOD + extra)
    if "foolbox" not in extra and "torchattacks" not in extra:  # extras, which need not be installed
        load(path)
    assert problems(GOOD + extra) == []


@pytest.mark.parametrize("pairs", ['"all"', "[]", '[{ source = "amazon", target = "webcam", missing = "drop" }]'])
@pytest.mark.parametrize("names", ['"benchmark"', '"all"', '["frost", "fog"]'])
def test_shifts_have_several_forms(pairs: str, names: str) -> None:
    text = GOOD.replace('[["amazon", "webcam"]]', pairs).replace('["contrast"]', names)
    assert problems(text) == []


# What the reader refuses.


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        # unknown keys
        ("[gate]\nseed", "[gate]\nsead", "$.gate"),
        ("[attacks.pgd]", "[attaks.pgd]", "$"),
        ("eps = 0.004", "eps = 0.004\nepsilon = 0.1", "$.attacks.pgd"),
        ("normalize = {", 'normalise = "inside"\nnormalize = {', "$.models.net"),
        ("ratio = 0.6,", "ratio = 0.6, rato = 0.5,", "$.compressions.fp60.steps[0]"),
        ("finetune = { epochs = 5 }", "finetune = { epochs = 5, epoch = 5 }", "$.compressions.fp60.steps[0]"),
        ('{ use = "fp60" }', '{ use = "fp60", ratio = 0.5 }', "$.compressions.fp60_ptsq.steps[0]"),
        ('where = { compression = "fp*" }', 'where = { compresion = "fp*" }', "$.policies.edge.rules[0]"),
        ('rule = "size"', 'rule = "size"\nwhere = { attack = "pgd" }', "$.policies.edge.rules[1]"),
        ('where = { compression = "fp60" }', 'where = { variant = "fp60" }', "$.policies.edge.waivers[0].where"),
        ("corruptions = {", "corruptions = { severity = 1,", "$.shifts.corruptions"),
        ('files = { test = "amazon.npz" }', 'files = { tests = "amazon.npz" }', "$.domains.amazon"),
        # wrong types
        ("seed = 3", 'seed = "x"', "$.gate.seed"),
        ("seed = 3", "threads = 1.5", "$.gate.threads"),
        ("eps = 0.004", 'eps = "small"', "$.attacks.pgd"),
        ("min = 0.4", 'min = "4 %"', "$.policies.edge.rules[0]"),
        ("finetune = { epochs = 5 }", "finetune = 5", "$.compressions.fp60.steps[0]"),
        ('weights = { amazon = "net.safetensors" }', 'weights = "net.safetensors"', "$.models.net.weights"),
        ("mean = [0.5, 0.5, 0.5]", 'mean = "imagenet"', "$.models.net.normalize"),
        ('[["amazon", "webcam"]]', '[["amazon"]]', "$.shifts.pairs"),
        ('[["amazon", "webcam"]]', '[["amazon", "webcam", "dslr"]]', "$.shifts.pairs"),
        ("severities = [1, 3]", "severities = 3", "$.shifts.corruptions.severities"),
        ("until = 2026-12-31", 'until = "soon"', "$.policies.edge.waivers[0].until"),
        ('steps = [{ method = "static_quantization" }]', "steps = []", "$.compressions.ptsq"),
        # wrong choices
        ("steps = 40", 'norm = "l3"', "$.attacks.pgd"),
        ("seed = 3", 'device = "tpu"', "$.gate.device"),
        ("confidence = 0.95", 'scope = "world"', "$.policies.edge.scope"),
        ("confidence = 0.95", "early_stop = true", "$.policies.edge.early_stop"),
        ('[["amazon", "webcam"]]', '"al"', "$.shifts.pairs"),
        ('["contrast"]', '"most"', "$.shifts.corruptions.names"),
        # missing keys
        ("eps = 0.004\n", "", "$.attacks.pgd"),
        ('build = "robustgate.zoo:cifar_resnet"\n', "", "$.models.net"),
        ("finetune = { epochs = 5 }", "finetune = { lr = 0.1 }", "$.compressions.fp60.steps[0]"),
        ('files = { test = "amazon.npz" }\n', "", "$.domains.amazon"),
        ("min = 0.4\nmax_drop = 0.05\n", "", "$.policies.edge.rules[0]"),
        ('max = "3 MB"', "", "$.policies.edge.rules[1]"),
        ('name = "floor"\n', "", "$.policies.edge.rules[0]"),
        ("until = 2026-12-31\n", "", "$.policies.edge.waivers[0]"),
        # unknown components
        ('kind = "npz"\nfiles = { test = "a', 'kind = "npx"\nfiles = { test = "a', "$.domains.amazon.kind"),
        ('method = "pgd"', 'method = "pdg"', "$.attacks.pgd.method"),
        ('method = "pgd"', 'method = "torchattaks:PGD"', "$.attacks.pgd.method"),
        ('method = "static_quantization"', 'method = "static"', "$.compressions.ptsq.steps[0].method"),
        ('rule = "size"', 'rule = "sise"', "$.policies.edge.rules[1].rule"),
        ('["contrast"]', '["contras"]', "$.shifts.corruptions.names"),
        ("{ epochs = 5 }", '{ recipe = "adam", epochs = 5 }', "$.compressions.fp60.steps[0]"),
        # no component
        ('method = "pgd"\n', "", "$.attacks.pgd"),
        ('kind = "npz"\n', "", "$.domains.amazon"),
        ('{ use = "fp60" }', "{ ratio = 0.5 }", "$.compressions.fp60_ptsq.steps[0]"),
        # names and forms
        ("[compressions.ptsq]", '[compressions."a-b"]', "$.compressions"),
        ("[compressions.ptsq]", "[compressions.control2]", "$.compressions"),
        ("[compressions.ptsq]", "[compressions.none]", "$.compressions"),
        ("confidence = 0.95", 'prove = "good"\non_undecided = "fail"', "$.policies.edge"),
        (
            'method = "static_quantization" }]\n[compressions.fp60_',
            'method = "static_quantization", finetune = { epochs = 1 } }]\n[compressions.fp60_',
            "$.compressions.ptsq",
        ),
        (
            'method = "static_quantization" }]\n[compressions.fp60_',
            'method = "quantization_aware_training" }]\n[compressions.fp60_',
            "$.compressions.ptsq",
        ),
    ],
)
def test_a_mistake_to_the_reader_is_one_to_the_schema(tmp_path: Path, old: str, new: str, place: str) -> None:
    assert old in GOOD
    found = refused_by_both(tmp_path, GOOD.replace(old, new, 1))
    assert all(problem.startswith(place) for problem in found), found


@pytest.mark.parametrize("table", ["domains", "models", "policies"])
def test_without_a_table_there_is_nothing_to_gate(tmp_path: Path, table: str) -> None:
    kept = [part for part in re.split(r"\n(?=\[)", GOOD) if not part.lstrip("[").startswith(table)]
    assert any(f"'{table}' is a required property" in problem for problem in refused_by_both(tmp_path, "\n".join(kept)))


@pytest.mark.parametrize(
    "extra",
    [
        '[compressions]\npreset = "clustered"\n',
        '[compressions]\npreset = { name = "clustered-pruned-quantized", epochs = 1 }\n',
        '[compressions.vendor]\nartifact = { net = "a.onnx" }\n',
        '[compressions.vendor]\nsteps = [{ use = "fp60" }]\nartifact = { net = { amazon = "a.onnx" } }\n',
        "[policies.release]\nconfidence = 0.9\n",
        "[policies.release]\nrules = []\n",
        '[policies.release]\nextends = "edge"\nrules = []\n',
        '[attacks.theirs]\nmethod = "torchattacks:PGD"\nattack = "PGD"\neps = 0.004\n',
        '[attacks.theirs]\nmethod = "torchattacks"\neps = 0.004\n',
    ],
)
def test_a_mistake_of_a_form_of_its_own(tmp_path: Path, extra: str) -> None:
    refused_by_both(tmp_path, GOOD + extra)


def test_the_presets_are_named() -> None:
    (names, table) = PLAIN["properties"]["compressions"]["properties"]["preset"]["anyOf"]
    assert names["enum"] == table["properties"]["name"]["enum"] == sorted(file.stem for file in PRESETS.glob("*.toml"))


# Every component stands in it, with what its dataclass says.


def kinds(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schemas that a table may have to meet, by its conditions."""
    yield from (one["then"] for one in table["allOf"] if "then" in one)


def tables_of(shelf_name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and schema of each component of a shelf, where the configuration names it."""
    tables = {name: table.get("additionalProperties") for name, table in PLAIN["properties"].items()}
    step = tables["compressions"]["properties"]["steps"]["items"]
    key, place = {
        "attacks": ("method", tables["attacks"]),
        "compression": ("method", step),
        "domains": ("kind", tables["domains"]),
        "rules": ("rule", tables["policies"]["properties"]["rules"]["items"]),
        "training": ("recipe", step["properties"]["finetune"]),
    }[shelf_name]
    for kind in kinds(place):
        assert kind["properties"].keys() <= place["properties"].keys(), "an editor could not complete it"
        if "const" in kind["properties"].get(key, {}):
            yield kind["properties"][key]["const"], kind


@pytest.mark.parametrize("shelf_name", ["attacks", "compression", "domains", "rules", "training"])
def test_every_component_stands_in_it_with_its_fields(shelf_name: str) -> None:
    found = dict(tables_of(shelf_name))
    assert sorted(found) == list(shelf(shelf_name).names)
    own = {"method", "kind", "rule", "recipe", "finetune", "name", "where"}
    for name, table in found.items():
        known = {field.name: field for field in fields(shelf(shelf_name).component(name))}
        assert table["properties"].keys() - own == known.keys(), name
        assert table["additionalProperties"] is False
        assert table["description"].strip(), name
        required = {key for key, one in known.items() if one.default is MISSING and one.default_factory is MISSING}
        assert set(table["required"]) - own - {"attack"} == required, name
        for key, field in known.items():
            if field.default not in (MISSING, None):
                assert table["properties"][key]["default"] == field.default, (name, key)


def test_every_corruption_stands_in_it() -> None:
    names = PLAIN["properties"]["shifts"]["properties"]["corruptions"]["properties"]["names"]["anyOf"][0]
    assert names["items"]["enum"] == list(shelf("corruptions").names)


def test_what_a_docstring_says_of_a_field_describes_its_key() -> None:
    gate = PLAIN["properties"]["gate"]["properties"]
    assert gate["threads"]["description"] == "`threads` is the number of processor threads of each process."
    assert gate["cache"]["default"] == ".robustgate"
    assert "description" not in gate["seed"]


def test_a_component_of_a_third_party_stands_in_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint(name="theirs", value="robustgate.attacks.pgd:Pgd", group="robustgate.attacks")
    monkeypatch.setitem(shelf("attacks").plugins, "theirs", point)
    schema = json_schema()
    attacks = resolved(schema, schema)["properties"]["attacks"]["additionalProperties"]
    assert "theirs" in attacks["properties"]["method"]["anyOf"][0]["enum"]
    (theirs,) = [kind for kind in kinds(attacks) if kind["title"] == "theirs"]
    assert theirs["properties"]["method"] == {"const": "theirs"}
    assert {"eps", "steps", "restarts"} <= theirs["properties"].keys()
