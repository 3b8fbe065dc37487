"""Every kind of domain, as a configuration writes it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import robustgate.domains
from robustgate.config.reader import Reader
from robustgate.core.catalog import shelf

TABLES = {
    "image_folder": 'root = "photos"\nimage_size = 224\nsplits = { test = 1.0 }',
    "npz": 'files = { test = "usps.npz" }\nclasses = ["0", "1"]\nresize = [20, 20]\npad = 4',
    "npy": 'images = { test = "x.npy" }\nlabels = { test = "y.npy" }\nclasses = "cifar10"',
    "digits": 'style = "printed"',
    "cifar_c": 'root = "CIFAR-100-C"\nclasses = "cifar100"',
    "imagenet_c": 'root = "imagenet-c"',
    "imagenet_v2": 'root = "imagenetv2"\nclasses = "wnids.txt"',
    "domain_benchmark": 'benchmark = "domainnet"\nroot = "d"\ndomain = "real"\nimage_size = 224\nsplits = "published"',
    "webdataset": 'shards = { test = "v-{00..63}.tar" }\nclasses = "names.txt"\nimage_size = 224\nlabel = "class"',
    "callable": 'build = "mine:data"\nargs = { root = "x" }\nsplits = { test = { train = false } }',
}


def read(kind: str, text: str) -> tuple[object, list[str]]:
    reader = Reader(Path("/project"))
    table = {"kind": kind, **tomllib.loads(text)}
    return reader.component("domains", table, "domains.one", key="kind"), reader.problems


def test_each_kind_is_here_and_in_the_list() -> None:
    assert set(TABLES) == set(shelf("domains").modules)
    for kind in TABLES:
        assert f"- `{kind}`: " in (robustgate.domains.__doc__ or "")


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_a_domain(kind: str) -> None:
    domain, problems = read(kind, TABLES[kind])
    assert not problems
    assert type(domain) is shelf("domains").component(kind)


def test_paths_are_relative_to_the_configuration() -> None:
    domain, _ = read("webdataset", TABLES["webdataset"])
    assert domain.shards == {"test": Path("/project/v-{00..63}.tar")}
    assert domain.classes == Path("/project/names.txt")


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        (
            "domain_benchmark",
            ("domainnet", "domain_net"),
            "domains.one.benchmark: expected one of 'office31', 'office_home', 'pacs', 'domainnet', 'vlcs', "
            "got the text 'domain_net' (did you mean 'domainnet'?)",
        ),
        (
            "domain_benchmark",
            ('"real"', '"reel"'),
            "domains.one: no domain 'reel' in domainnet (did you mean 'real'?); "
            "known: clipart, infograph, painting, quickdraw, real, sketch",
        ),
        ("npz", ("pad = 4", "pad = -4"), "domains.one: resize must be two whole numbers from 1, height and width, and"),
        ("npz", ("[20, 20]", "[20]"), "domains.one.resize: expected a list of 2, got "),
    ],
)
def test_a_wrong_table_is_one_problem(kind: str, change, problem: str) -> None:
    _, (found,) = read(kind, TABLES[kind].replace(*change))
    assert found.startswith(problem)
