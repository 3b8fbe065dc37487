"""WebDataset shards: samples by their names, shards by their patterns, and damaged ones named."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from image_trees import reds, told
from PIL import Image

from robustgate.core.errors import DomainError
from robustgate.domains.webdataset import Webdataset

CLASSES = ("ant", "bee", "cat")


def png(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(file, format="PNG")
    return file.getvalue()


def packed(path: Path, members: dict[str, bytes | str]) -> Path:
    """Write a tar file of these members, in their order."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def numbered(path: Path, first: int, count: int = 2) -> Path:
    """Write a shard of samples whose red counts on from `first`, and whose class is that, modulo three."""
    samples = [{f"{red:06}.png": png(red), f"{red:06}.cls": str(red % 3)} for red in range(first, first + count)]
    return packed(path, {name: content for sample in samples for name, content in sample.items()})


def dataset(test: Path, **parameters) -> Webdataset:
    return Webdataset(**{"shards": {"test": test}, "classes": CLASSES, "image_size": 8, **parameters})


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Twelve shards of two samples, 0 to 11, in a folder that is called as no pattern is meant to be read."""
    folder = tmp_path / "shards[0-9]"
    folder.mkdir()
    for number in range(12):
        numbered(folder / f"part-{number:04}.tar", 2 * number)
    return folder


def test_samples_are_in_the_order_of_the_shard(shards: Path) -> None:
    samples = dataset(shards / "part-0003.tar").load("test")
    assert told(samples) == [("ant", 6), ("bee", 7)]
    assert samples.names == ("part-0003.tar/000006.png", "part-0003.tar/000007.png")
    assert (samples.classes, samples.size) == (CLASSES, (8, 8))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("part-{0000..0002}.tar", [0, 1, 2, 3, 4, 5]),
        ("part-{0009..0011}.tar", [18, 19, 20, 21, 22, 23]),
        ("part-{0002,0000}.tar", [4, 5, 0, 1]),
        ("{part,part}-0001.tar", [2, 3]),
        ("part-001*.tar", [20, 21, 22, 23]),
        ("part-000{1..2}.tar", [2, 3, 4, 5]),
        ("part-0{00,01}[01].tar", [0, 1, 2, 3, 20, 21, 22, 23]),
    ],
)
def test_a_pattern_is_its_shards_in_order(shards: Path, pattern: str, expected: list[int]) -> None:
    assert reds(dataset(shards / pattern).load("test")) == expected


def test_the_whole_is_every_shard_once(shards: Path) -> None:
    files = {"train": shards / "part-000{0..1}.tar", "test": shards / "part-000{1..2}.tar"}
    domain = Webdataset(shards=files, classes=CLASSES, image_size=8)
    assert reds(domain.load("whole")) == [0, 1, 2, 3, 4, 5]
    assert reds(domain.load("train")) == [0, 1, 2, 3]
    with pytest.raises(DomainError, match=r"no calibration split: shards names test, train; add shards\.calibration"):
        domain.load("calibration")


@pytest.mark.parametrize(
    "members",
    [
        {"a.png": png(5), "a.cls": " 2\n"},
        {"a.cls": "cat", "a.png": png(5)},
        {"a.png": png(5), "a.json": json.dumps({"label": 2})},
        {"a.png": png(5), "a.json": json.dumps({"label": "cat", "caption": "a cat"}), "a.txt": "a cat"},
        {"a.JPG": png(5), "a.cls": "2", "a.json": "not read"},
        # In a folder whose name has a dot, and with a second part after the first dot.
        {"v1.0/a.png": png(5), "v1.0/a.cls": "2", "v1.0/a.seg.png": png(9)},
    ],
)
def test_a_sample_is_an_image_and_its_label(tmp_path: Path, members) -> None:
    samples = dataset(packed(tmp_path / "one.tar", members)).load("test")
    assert told(samples) == [("cat", 5)]


def test_samples_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    members = {f"{folder}/a.{kind}": content for folder, red in (("x", 1), ("y", 2)) for kind, content in _parts(red)}
    assert reds(dataset(packed(tmp_path / "one.tar", members)).load("test")) == [1, 2]


def _parts(red: int) -> list[tuple[str, bytes | str]]:
    return [("png", png(red)), ("cls", "0")]


def test_the_key_of_the_label_in_json_has_a_name(tmp_path: Path) -> None:
    path = packed(tmp_path / "one.tar", {"a.png": png(5), "a.json": json.dumps({"class_id": 1})})
    assert told(dataset(path, label="class_id").load("test")) == [("bee", 5)]
    with pytest.raises(DomainError, match=r"one\.tar: a\.json: expected a table with 'label', got class_id"):
        dataset(path).load("test")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": png(0), "a.cls": "3"}, r"a\.cls: expected a class's name, or its number from 0 to 2, got '3'"),
        ({"a.png": png(0), "a.cls": "-1"}, r"a\.cls: expected .*, got '-1'"),
        ({"a.png": png(0), "a.cls": "bea"}, r"a\.cls: expected .*, got 'bea' \(did you mean 'bee'\?\)"),
        ({"a.png": png(0), "a.json": '{"label": 1.5}'}, r"a\.json: expected .*, got '1\.5'"),
        ({"a.png": png(0), "a.json": "{"}, r"a\.json: not JSON: "),
        ({"a.png": png(0), "a.json": "[1]"}, r"a\.json: expected a table with 'label', got list"),
        ({"a.png": png(0), "a.txt": "cat"}, r"a\.png: expected a label in the sample, cls or json, got png, txt"),
        ({"a.cls": "0"}, r"a\.cls: expected one image in the sample, got 0 among cls"),
        ({"a.png": png(0), "a.jpg": png(0), "a.cls": "0"}, r"a\.png: expected one image in the sample, got 2 among"),
        ({"a.png": png(0), "a.PNG": png(0), "a.cls": "0"}, r"a\.PNG: two members are called so"),
        ({}, "no samples in it"),
    ],
)
def test_samples_that_do_not_fit_are_named(tmp_path: Path, members, message: str) -> None:
    with pytest.raises(DomainError, match=rf"one\.tar: {message}"):
        dataset(packed(tmp_path / "one.tar", members)).load("test")


def test_an_image_that_is_none_is_named_by_shard_and_member(tmp_path: Path) -> None:
    samples = dataset(packed(tmp_path / "one.tar", {"a.png": b"no image", "a.cls": "0"})).load("test")
    with pytest.raises(DomainError, match=r"one\.tar: a\.png: cannot be decoded as an image: "):
        samples.read(0)


def test_a_shard_that_is_not_whole_is_named(tmp_path: Path) -> None:
    path = numbered(tmp_path / "one.tar", 0, 40)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        (*_, last) = tar
        end = last.offset_data + 512
    # In a member's bytes, in its header, and where the last member ends: without the blocks that close the file.
    for length in (700, 512 + 600, end - 200, end):
        path.write_bytes(whole[:length])
        with pytest.raises(
            DomainError, match=r"one\.tar: (cannot be read as an uncompressed tar file|.*not copied who)"
        ):
            dataset(path).load("test")
    path.write_bytes(whole[: end + 1024])
    assert len(dataset(path).load("test")) == 40


def test_compressed_shards_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "one.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.cls"))
    with pytest.raises(DomainError, match=r"one\.tar\.gz: cannot be read as an uncompressed tar file: "):
        dataset(tmp_path / "one.tar.gz").load("test")


def test_the_first_shard_that_is_missing_is_named(shards: Path) -> None:
    for pattern, missing in (
        ("part-00{10..14}.tar", "part-0012.tar"),
        ("test-*.tar", r"test-\*\.tar"),
        ("one.tar", "one.tar"),
    ):
        with pytest.raises(DomainError, match=rf"no such file: .*{missing}"):
            dataset(shards / pattern).load("test")


def test_the_identity_is_that_of_the_contents(shards: Path, tmp_path: Path) -> None:
    def identity(path: Path, **parameters) -> str:
        return dataset(path, **parameters).load("test").identity

    copy = tmp_path / "copy.tar"
    copy.write_bytes((shards / "part-0001.tar").read_bytes())
    assert identity(copy) == identity(shards / "part-0001.tar")
    assert identity(copy) != identity(shards / "part-0002.tar")
    assert identity(copy) != identity(copy, short_side=9)


def test_parameters_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="shards must name at least those of the test split"):
        Webdataset(shards={}, classes=CLASSES, image_size=8)
    with pytest.raises(ValueError, match="image_size must be at least 1"):
        dataset(Path("a"), image_size=0)
