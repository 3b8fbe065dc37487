"""What there is before a run: counted as it is loaded, by names and headers; artifacts that are kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustgate.config import load
from robustgate.core.components import Extent
from robustgate.core.records import REFERENCE
from robustgate.domains.domain_benchmark import DomainBenchmark
from robustgate.domains.image_folder import ImageFolder
from robustgate.domains.imagenet_v2 import ImagenetV2
from robustgate.domains.npy import Npy
from robustgate.domains.npz import Npz
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.engine.stock import counted, kept


@pytest.mark.parametrize("split", ["train", "calibration", "test", "whole"])
def test_files_are_counted_as_they_are_loaded(tmp_path: Path, split: Any) -> None:
    for name, count in (("cat", 7), ("dog", 13)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (9, 12)).save(tmp_path / name / f"{number}.png")
    folder = ImageFolder(root=tmp_path, image_size=8)
    assert counted(folder, split) == Extent(samples=len(folder.load(split)), values=3 * 64)


@pytest.mark.parametrize("split", ["train", "calibration", "test", "whole"])
def test_published_folders_are_counted_as_they_are_loaded(tmp_path: Path, split: Any) -> None:
    names = (
        "amazon/images/bike",
        "amazon/images/mug",
        "0",
        "10",
        "VOC2007/train/2",
        "VOC2007/test/2",
        "VOC2007/train/dog",
    )
    for place, name in enumerate(names):
        (tmp_path / name).mkdir(parents=True)
        for number in range(15 + place):
            Image.new("RGB", (9, 12)).save(tmp_path / name / f"{number}.png")
    office = DomainBenchmark(benchmark="office31", root=tmp_path, domain="amazon", image_size=8)
    voc = DomainBenchmark(benchmark="vlcs", root=tmp_path, domain="VOC2007", image_size=8, splits="published")
    for domain in (office, voc):
        assert counted(domain, split) == Extent(samples=len(domain.load(split)), values=3 * 64)
    for name in ("amazon", "VOC2007"):
        shutil.rmtree(tmp_path / name)
    numbered = ImagenetV2(root=tmp_path, image_size=8, short_side=8)
    assert counted(numbered, split) == (Extent(samples=35, values=3 * 64) if split in ("test", "whole") else None)
    assert len(numbered.load("test")) == 35


@pytest.mark.parametrize("split", ["test", "whole"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_counted_by_their_headers(tmp_path: Path, split: Any, save: Any) -> None:
    grey = {"images": np.zeros((9, 6, 5), np.uint8), "labels": np.zeros(9, np.int64), "classes": np.array(["a"])}
    save(tmp_path / "a.npz", **grey)
    files: Any = {"calibration": tmp_path / "a.npz", "test": tmp_path / "a.npz"}
    domain = Npz(files=files, pad=2)
    loaded = domain.load(split)
    assert counted(domain, split) == Extent(samples=len(loaded), values=int(np.prod(loaded.images.shape[1:])))
    np.save(tmp_path / "x.npy", np.zeros((4, 6, 5, 3), np.uint8))
    np.save(tmp_path / "y.npy", np.zeros(4, np.int64))
    plain = Npy(images={"test": tmp_path / "x.npy"}, labels={"test": tmp_path / "y.npy"}, classes=("a",))
    assert counted(plain, split) == Extent(samples=4, values=90)


def test_what_is_missing_or_damaged_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 no archive")
    assert counted(Npz(files={"test": tmp_path / "a.npz"}), "test") is None
    assert counted(Npz(files={"test": tmp_path / "b.npz"}), "test") is None
    assert counted(ImageFolder(root=tmp_path / "none", image_size=8), "test") is None
    assert counted(object(), "test") is None


def test_kept_artifacts_are_those_of_the_same_weights_and_steps(tiny) -> None:
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    assert kept(plan) == set()
    Gate(plan, today=date(2026, 1, 1), device="cpu").subject(plan.variants[0])
    assert kept(plan) == {plan.variants[0]}
    assert plan.variants[0].compression == REFERENCE
    tiny.configure(("[gate]", "[gate]\nseed = 1"))
    assert kept(make_plan(load(tiny.folder / "robustgate.toml"))) == set()
    tiny.configure()
    tiny.write_weights(torch.tensor([1.0, 1.0, 1.0, 0.2]))
    assert kept(plan) == set()


def test_a_variant_that_is_kept_is_kept_with_its_steps(tiny) -> None:
    plan = make_plan(load(tiny.folder / "robustgate.toml"))
    Gate(plan, today=date(2026, 1, 1), device="cpu").subject(plan.variants[1])
    assert kept(plan) == set(plan.variants)
    tiny.configure(("ratio = 0.25", "ratio = 0.5"))
    assert kept(make_plan(load(tiny.folder / "robustgate.toml"))) == {plan.variants[0]}
    (seal,) = [seal for seal in Path("cache/artifacts").glob("*/seal.json") if "filter_pruning" in seal.read_text()]
    seal.write_text("{")
    assert kept(plan) == {plan.variants[0]}


def test_all_of_it_imports_no_torch(tiny) -> None:
    probe = (
        "import sys; from pathlib import Path\n"
        "from robustgate.config import load; from robustgate.engine.plan import make_plan\n"
        "from robustgate.engine.cost import cost; from robustgate.engine.stock import extents, kept\n"
        "plan = make_plan(load(Path('robustgate.toml')))\n"
        "assert cost(plan, extents(plan)).passes.backward and not kept(plan)\n"
        "assert not {'torch', 'onnx', 'scipy', 'sklearn', 'matplotlib', 'PIL'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True, timeout=60)
