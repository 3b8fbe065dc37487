"""The project that gate.py measures: CIFAR-10, the published ResNet-20 and three compressions, and its shifts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _cifar import DATA, part, pictures

from robustgate.core.components import Samples

CORRUPTIONS = ("gaussian_noise", "defocus_blur", "motion_blur", "fog", "contrast", "jpeg_compression")
WITHOUT_RANDOMNESS = {"clean", "defocus_blur", "contrast", "jpeg_compression", "fgsm"}
# The method of each, and its eps.
ATTACKS = {"fgsm": ("fgsm", 8 / 255), "pgd": ("pgd", 8 / 255), "pgd_small": ("pgd", 0.004)}
CONFIGURATION = """
gate.cache = "{cache}"
[domains.cifar10]
kind = "npz"
files = {{ train = "train.npz", calibration = "calibration.npz", test = "test.npz" }}
[models.resnet20]
build = "robustgate.zoo:cifar_resnet"
args = {{ depth = 20, num_classes = 10 }}
normalize = {{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }}
weights = {{ cifar10 = "{data}/weights/cifar10_resnet20.safetensors" }}
[compressions]
pruned.steps = [{{ method = "filter_pruning", ratio = 0.05 }}]
sparse.steps = [{{ method = "magnitude_pruning", sparsity = 0.4 }}]
clustered.steps = [{{ method = "weight_clustering", clusters = 16 }}]
[shifts]
corruptions = {{ names = {corruptions}, severities = [1, 2] }}
[masking]
enabled = false
[attacks]
{attacks}
[policies.{name}]
early_stop = {early_stop}
"""
ANYTHING = '[[policies.{name}.rules]]\nname = "anything"\nmin = 0.0\n'
RULE = '[[policies.{name}.rules]]\nname = "{case}"\nwhere = {{ name = "{case}" }}\nmin = {limit!r}\n'


def save_split(file: Path, samples: Samples) -> None:
    """Write samples as a split of an npz domain."""
    np.savez(file, images=samples.images[:], labels=samples.labels, classes=np.array(samples.classes))


def write_data(folder: Path, count: int) -> Samples:
    """Write the splits of the domain, and return the test images: the first `count`, the classes in turn."""
    with np.load(DATA / "cifar" / "cifar10_train_10000.npz", allow_pickle=False) as arrays:
        images, labels, classes = (arrays[key] for key in ("images", "labels", "classes"))
    train = Samples(images=images, labels=labels, classes=tuple(classes), names=("",) * len(labels))
    test = part(pictures(), slice(count))
    # The file has its classes one after another: every tenth image, and every fiftieth between those.
    for name, rows in (("train", slice(0, None, 10)), ("calibration", slice(5, None, 50))):
        save_split(folder / f"{name}.npz", part(train, rows))
    save_split(folder / "test.npz", test)
    return test


def write_configuration(
    folder: Path, name: str, limits: Mapping[str, float], steps: int, *, early_stop: bool = False
) -> Path:
    """Write a configuration whose only policy has a rule for each case in `limits`, and a cache of built artifacts."""
    attacks = "\n".join(
        f'{key} = {{ method = "{method}", eps = {eps}{f", steps = {steps}" if method == "pgd" else ""} }}'
        for key, (method, eps) in ATTACKS.items()
    )
    text = CONFIGURATION.format(
        cache=f"cache-{name}",
        data=DATA.absolute(),
        corruptions=json.dumps(CORRUPTIONS),
        attacks=attacks,
        name=name,
        early_stop='"confident"' if early_stop else "false",
    )
    rules = [RULE.format(name=name, case=case, limit=limit) for case, limit in limits.items()]
    file = folder / f"{name}.toml"
    file.write_text(text + ("".join(rules) or ANYTHING.format(name=name)))
    if name != "truth":
        shutil.copytree(folder / "cache-truth" / "artifacts", folder / f"cache-{name}" / "artifacts")
    return file
