"""Benchmarks of several domains: each published layout, its own division, and domains' names."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_trees import grown, reds, told

from robustgate.core.errors import DomainError
from robustgate.domains.domain_benchmark import DomainBenchmark


def benchmark(root: Path, name: str, domain: str, **parameters) -> DomainBenchmark:
    return DomainBenchmark(benchmark=name, root=root, domain=domain, **{"image_size": 8, **parameters})


@pytest.mark.parametrize(
    ("name", "domain", "folder"),
    [
        ("office31", "amazon", "amazon/images"),
        ("office31", "dslr", "dslr"),
        ("office_home", "Art", "Art"),
        ("office_home", "Real World", "Real World"),
        ("office_home", "Real World", "RealWorld"),
        ("office_home", "Real World", "real_world"),
        ("office_home", "real_world", "Real World"),
        ("pacs", "art_painting", "art_painting"),
        ("pacs", "sketch", "kfold/sketch"),
        ("pacs", "photo", "images/photo"),
        ("domainnet", "quickdraw", "quickdraw"),
        ("vlcs", "VOC2007", "VOC2007"),
        ("vlcs", "VOC2007", "VOC2007/full"),
        ("vlcs", "VOC2007", "PASCAL/full"),
        ("vlcs", "pascal", "VOC2007"),
        ("vlcs", "LabelMe", "LABELME/full"),
    ],
)
def test_each_layout_is_found(tmp_path: Path, name: str, domain: str, folder: str) -> None:
    tree = {f"{folder}/{name}": red for red, name in enumerate(["bird/a.jpg", "car/a.jpg", "car/b.jpg"])}
    # A class may be called as a part of another benchmark is.
    tree |= {f"{folder}/train/a.jpg": 3} if name == "domainnet" else {}
    samples = benchmark(grown(tmp_path, tree), name, domain).load("whole")
    expected = [("bird", 0), ("car", 1), ("car", 2), ("train", 3)]
    assert told(samples) == expected[: len(tree)]


def test_shares_are_those_of_an_image_folder(tmp_path: Path) -> None:
    grown(tmp_path, {f"Art/{name}/{index}.jpg": index for name in ("lamp", "fan") for index in range(10)})
    domain = benchmark(tmp_path, "office_home", "Art", splits={"train": 0.5, "calibration": 0.2, "test": 0.3})
    parts = [domain.load(split).names for split in ("train", "calibration", "test")]
    assert [len(part) for part in parts] == [10, 4, 6]
    assert {name for part in parts for name in part} == set(domain.load("whole").names)


@pytest.mark.parametrize("level", ["", "full/"])
def test_the_numbered_classes_of_vlcs_have_names(tmp_path: Path, level: str) -> None:
    grown(tmp_path, {f"CALTECH/{level}{number}/a.jpg": number for number in range(5)})
    domain = benchmark(tmp_path, "vlcs", "Caltech101")
    assert domain.load("whole").classes == ("bird", "car", "chair", "dog", "person")
    grown(tmp_path, {f"CALTECH/{level}5/a.jpg": 5})
    with pytest.raises(DomainError, match=r"5: expected a class from 0 to 4, or its name"):
        domain.load("whole")


def test_the_published_parts_of_vlcs(tmp_path: Path) -> None:
    train = {f"SUN/train/{number}/{index}.jpg": index for number in range(5) for index in range(40)}
    test = {f"SUN/test/{number}/t{index}.jpg": 100 + index for number in range(5) for index in range(3)}
    # Without its own `full`, and with a part that is a part of train.
    grown(tmp_path, {**train, **test, "SUN/crossval/0/0.jpg": 0})
    domain = benchmark(tmp_path, "vlcs", "sun09", splits="published")
    parts = {split: domain.load(split) for split in ("train", "calibration", "test", "whole")}
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 200 - len(parts["calibration"]),
        "calibration": len(parts["calibration"]),
        "test": 15,
        "whole": 215,
    }
    assert 10 <= len(parts["calibration"]) <= 30, "about a tenth of 200"
    assert set(parts["train"].names) | set(parts["calibration"].names) == set(train)
    assert set(parts["test"].names) == set(test)
    assert parts["whole"].classes == parts["test"].classes == ("bird", "car", "chair", "dog", "person")
    with pytest.raises(DomainError, match=r"vlcs: there is no .*/sun09/full or .*/sun09"):
        benchmark(tmp_path, "vlcs", "sun09").load("test")


@pytest.mark.parametrize("place", ["", "splits/"])
def test_the_published_lists_of_domainnet(tmp_path: Path, place: str) -> None:
    lines = [f"real/{name}/{index}.jpg" for name in ("The_Eiffel_Tower", "apple") for index in range(60)]
    grown(tmp_path, {line: index for index, line in enumerate(lines)} | {"real/apple/duplicate.jpg": 255})
    (tmp_path / "splits").mkdir()
    lists = {"train": lines[:50] + lines[70:], "test": lines[50:70]}
    for part, names in lists.items():
        (tmp_path / f"{place}real_{part}.txt").write_text("".join(f"{name} 7\n" for name in names))
    domain = benchmark(tmp_path, "domainnet", "real", splits="published")
    assert domain.load("whole").names == tuple(lists["train"] + lists["test"]), "what no list names is left out"
    test = domain.load("test")
    assert test.names == tuple(lists["test"])
    assert reds(test) == list(range(50, 70))
    assert test.classes == ("The_Eiffel_Tower", "apple")
    assert [test.classes[label] for label in test.labels] == ["The_Eiffel_Tower"] * 10 + ["apple"] * 10
    held_out = domain.load("calibration").names
    assert set(held_out) | set(domain.load("train").names) == set(lists["train"])
    assert 0 < len(held_out) < 30


def test_lists_that_do_not_fit_are_named(tmp_path: Path) -> None:
    domain = benchmark(tmp_path, "domainnet", "real", splits="published")
    with pytest.raises(DomainError, match=r"domainnet: there is no .*/real_train\.txt or .*/splits/real_train\.txt"):
        domain.load("test")
    for part in ("train", "test"):
        (tmp_path / f"real_{part}.txt").write_text("real/apple/1.jpg 0\nreal/apple 0\n")
    with pytest.raises(DomainError, match=r"real_train\.txt: line 2: expected '<domain>/<class>/<file> <number>', got"):
        domain.load("test")
    for part in ("train", "test"):
        (tmp_path / f"real_{part}.txt").write_text("real/apple/1.jpg 0\n")
    with pytest.raises(DomainError, match=r"real/apple/1\.jpg: cannot be read: No such file"):
        domain.load("test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"domain": "amazn"},
            r"no domain 'amazn' in office31 \(did you mean 'amazon'\?\); known: amazon, dslr, webcam",
        ),
        (
            {"benchmark": "vlcs", "domain": "PASCL"},
            r"no domain 'PASCL' in vlcs \(did you mean 'PASCAL'\?\); known: Cal",
        ),
        ({"benchmark": "office_31"}, r"no benchmark 'office_31' \(did you mean 'office31'\?\)"),
        ({"splits": "published"}, "splits: office31 has no published division into train and test; give shares"),
        ({"splits": {"test": 0.5}}, "splits must be shares that add up to 1"),
        ({"short_side": 4}, "image_size must be at least 1, and short_side not below it"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(changes, message: str) -> None:
    given = {"benchmark": "office31", "root": Path("a"), "domain": "amazon", "image_size": 8, **changes}
    with pytest.raises(ValueError, match=message):
        DomainBenchmark(**given)


def test_a_root_without_the_domain_is_named(tmp_path: Path) -> None:
    grown(tmp_path, {"amazon/images/bike/a.jpg": 0})
    message = f"office31: there is no {tmp_path}/webcam/images or {tmp_path}/webcam"
    with pytest.raises(DomainError) as raised:
        benchmark(tmp_path, "office31", "webcam").load("test")
    assert str(raised.value) == message


def test_office_is_read_whole(real_data: Path) -> None:
    domain = benchmark(real_data / "office_caltech10_96", "office31", "dslr", image_size=96)
    samples = domain.load("whole")
    assert (len(samples), len(samples.classes), samples.classes[0]) == (157, 10, "backpack")
