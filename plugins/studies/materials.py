"""What the study is made of: data cut into splits, source networks that are not published, configurations."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
import torch
from networks import dequantized, mobilenet_v2
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from robustgate.config import Configuration, load
from robustgate.core.components import Samples
from robustgate.core.seeds import derive
from robustgate.domains.image_folder import ImageFolder
from robustgate.domains.npz import Npz
from robustgate.engine.course import train
from robustgate.engine.decoding import decoded
from robustgate.engine.networks import Normalized
from robustgate.engine.store import Store
from robustgate.training.supervised import Supervised
from robustgate.zoo import cifar_resnet

HERE = Path(__file__).parent
OFFICE = ("amazon", "webcam", "dslr")
# As many images of each class as are attacked: an attack costs a hundred times what an answer costs.
ATTACKED = {"cifar10": 25, "cifar100": 3, "digits": 20}
OFFICE_SPLITS = {"train": 0.45, "calibration": 0.05, "test": 0.5}
OFFICE_RECIPE = Supervised(epochs=12, lr=0.004, batch_size=32, shift=6, flip=True)
DIGITS_RECIPE = Supervised(epochs=20, lr=0.1, batch_size=64, shift=2)


@dataclass(frozen=True)
class Place:
    """Where data and published weights are, where what is made of them goes, and what computes."""

    data: Path
    work: Path
    device: str = "cpu"

    @property
    def store(self) -> Store:
        """What is kept: artifacts, measurements, decoded images."""
        return Store(self.work / "cache")


def place(work: Path, device: str) -> Place:
    """Return where everything is. Raises SystemExit without real data."""
    data = os.environ.get("ROBUSTGATE_DATA", "")
    if not data or not Path(data).is_dir():
        raise SystemExit(f"study: ROBUSTGATE_DATA must name the folder of real data, got {data!r}")
    return Place(data=Path(data), work=work, device=device)


def configuration(where: Place, setting: str, part: str, seed: int) -> Configuration:
    """Return a setting's configuration, on its whole test split or on what of it is attacked, for one seed."""
    text = Template((HERE / f"{setting}.toml").read_text(encoding="utf-8"))
    test = where.work / "data" / f"{setting}_{part}.npz"
    filled = text.substitute(data=where.data, work=where.work, test=test, seed=seed, device=where.device)
    file = where.work / f"{setting}_{part}_{seed}.toml"
    file.write_text(filled, encoding="utf-8")
    return load(file)


def prepare(where: Place) -> None:
    """Make what is not there yet. Each file is whole or absent; a training that was broken off goes on."""
    (where.work / "data").mkdir(parents=True, exist_ok=True)
    cifar = where.data / "cifar"
    _cut(where, "cifar10", cifar / "cifar10_test_2000.npz")
    _cut(where, "cifar100", cifar / "cifar100_test_2000.npz")
    _mnist(where)
    _once(where.work / "data" / "resnet8_mnist.safetensors", lambda file: _digits(where, file))
    for name in OFFICE:
        _once(where.work / "data" / f"mobilenet_{name}.safetensors", lambda file, name=name: _office(where, name, file))


def _once(file: Path, make: Callable[[Path], None]) -> None:
    if not file.exists():
        part = file.with_name(f"part_{file.name}")
        make(part)
        part.rename(file)


def _save(file: Path, **arrays: NDArray[np.generic]) -> None:
    _once(file, lambda part: np.savez(part, **arrays))


def _cut(where: Place, setting: str, source: Path) -> None:
    """Write a test split whole, and the first so many of each class, which are attacked."""
    with np.load(source, allow_pickle=False) as arrays:
        images, labels, classes = (arrays[key] for key in ("images", "labels", "classes"))
    first = _first(labels, ATTACKED[setting])
    for part, rows in (("whole", np.arange(len(labels))), ("attacked", first)):
        _save(where.work / "data" / f"{setting}_{part}.npz", images=images[rows], labels=labels[rows], classes=classes)


def _mnist(where: Place) -> None:
    """Split the 2,000 images of MNIST's test set that there are: 120 of each class to train on, 80 to judge."""
    with np.load(where.data / "digits" / "mnist_test_2000.npz", allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    classes = np.array([str(digit) for digit in range(10)])
    train = _first(labels, 120)
    test = np.setdiff1d(np.arange(len(labels)), train)
    attacked = test[_first(labels[test], ATTACKED["digits"])]
    for part, rows in (("train", train), ("whole", test), ("attacked", attacked)):
        _save(where.work / "data" / f"digits_{part}.npz", images=images[rows], labels=labels[rows], classes=classes)
    with np.load(where.data / "digits" / "usps_test_1000.npz", allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    # The first half is looked at without its labels, the second judges.
    for part, rows in (("train", slice(500)), ("test", slice(500, None))):
        _save(where.work / "data" / f"usps_{part}.npz", images=images[rows], labels=labels[rows], classes=classes)


def _first(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))


def _digits(where: Place, file: Path) -> None:
    samples = Npz(files={"test": where.work / "data" / "digits_train.npz"}).load("test")
    network = _seeded("mnist", lambda: cifar_resnet(depth=8, num_classes=10))
    _train(where, network, 0.1307, 0.3081, DIGITS_RECIPE, samples, file)


def _office(where: Place, name: str, file: Path) -> None:
    network = _seeded(name, lambda: mobilenet_v2(num_classes=10))
    published = where.data / "weights" / "mobilenet_v2_1.0_224_uint8"
    dequantized(network, Path(f"{published}.safetensors"), Path(f"{published}.json"))
    domain = ImageFolder(root=where.data / "office_caltech10_96" / name, image_size=96, splits=OFFICE_SPLITS)
    found = domain.load("train")
    samples = Samples(images=decoded(found, where.store), labels=found.labels, classes=found.classes, names=found.names)
    _train(where, network, 128 / 255, 128 / 255, OFFICE_RECIPE, samples, file)


def _seeded(name: str, build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "initial weights", name))
        return build()


def _train(
    where: Place, network: nn.Module, mean: float, std: float, recipe: Supervised, samples: Samples, file: Path
) -> None:
    module = Normalized(network, (mean,) * 3, (std,) * 3).to(where.device)
    train(module, recipe, samples, folder=where.work / "trainings" / file.stem)
    save_file({key: value.cpu().contiguous() for key, value in network.state_dict().items()}, file)
