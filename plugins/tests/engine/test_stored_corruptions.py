"""Stored corruptions through the gate: the published images are what is measured, and nothing else."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustgate.config import load
from robustgate.core.errors import DomainError
from robustgate.core.records import Case
from robustgate.engine.gate import Gate
from robustgate.engine.measure import Outcome
from robustgate.engine.plan import make_plan
from robustgate.reports.details import details
from robustgate.zoo import cifar_resnet

# Those that the reference holds and that are on the shelf in any case; all of it is stored.
NAMES = ("contrast", "fog", "gaussian_noise")
SEVERITIES = (1, 3, 5)
CONFIGURATION = """
[gate]
cache = "cache"
[domains.cifar10]
kind = "npz"
files = {{ test = "clean.npz" }}
[domains.cifar10_c]
kind = "cifar_c"
root = "CIFAR-10-C"
[models.net]
build = "robustgate.zoo:cifar_resnet"
args = {{ depth = 20, num_classes = 10 }}
normalize = {{ mean = [0.485, 0.456, 0.406], std = [0.229, 0.224, 0.225] }}
weights = {{ cifar10 = "{weights}" }}
[shifts]
corruptions = {{ names = ["contrast", "fog", "gaussian_noise"], severities = [1, 3, 5], stored = {{ cifar10 = "cifar10_c" }} }}
[policies.edge]
[[policies.edge.rules]]
name = "floor"
min = 0.0
"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def reference(real_data: Path) -> dict[str, np.ndarray]:
    with np.load(real_data / "cifar10c_reference_32.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def project(tmp_path: Path, real_data: Path, reference: dict[str, np.ndarray]) -> Path:
    """A project whose CIFAR-10-C is the reference: 32 images, as the published generator corrupts them."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    for name in NAMES:
        np.save(folder / f"{name}.npy", reference[name].reshape(160, 32, 32, 3))
    np.save(folder / "labels.npy", np.tile(reference["labels"], 5).astype(np.uint8))
    with np.load(real_data / "cifar" / "cifar10_test_2000.npz") as arrays:
        classes = arrays["classes"]
    np.savez(tmp_path / "clean.npz", images=reference["images"], labels=reference["labels"], classes=classes)
    weights = real_data / "weights" / "cifar10_resnet20.safetensors"
    (tmp_path / "robustgate.toml").write_text(CONFIGURATION.format(weights=weights))
    return tmp_path


def gate(project: Path) -> Gate:
    return Gate(make_plan(load(project / "robustgate.toml")), today=date(2026, 1, 1))


def measured(found: Gate, case: Case) -> Outcome:
    """What was measured of a case, in the order in which its images are stored."""
    measurements = found.measurements
    in_order, numbers = measurements.in_split_order(case, measurements.of(case))
    np.testing.assert_array_equal(numbers, np.arange(measurements.total(case)))
    return in_order.outcome


def corrupted(found: Gate) -> list[Case]:
    return [case for case in found.plan.cases if case.shift.kind == "corruption"]


@pytest.fixture(scope="module")
def forward(real_data: Path):
    """The published network, run on 8-bit images by nothing of the gate's."""
    from safetensors.torch import load_file

    network = cifar_resnet(depth=20, num_classes=10).eval()
    network.load_state_dict(load_file(real_data / "weights" / "cifar10_resnet20.safetensors"), strict=False)

    def predictions(images: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            logits = network((inputs - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])
        return logits.argmax(dim=1).numpy()

    return predictions


def test_the_gate_measures_what_is_stored(project: Path, reference: dict[str, np.ndarray], forward) -> None:
    found = gate(project)
    cases = corrupted(found)
    assert len(cases) == len(NAMES) * len(SEVERITIES)
    for case in cases:
        images = reference[case.shift.corruption][case.shift.severity - 1]
        outcome = measured(found, case)
        np.testing.assert_array_equal(outcome.predictions, forward(images))
        np.testing.assert_array_equal(outcome.labels, reference["labels"])
        result = found.result(case)
        assert result.value == np.mean(forward(images) == reference["labels"])
        assert result.details["stored_benchmark"] == "cifar10_c"
        assert ("stored benchmark", "cifar10_c") in details(result)


def test_other_stored_images_are_another_measurement(project: Path, reference: dict[str, np.ndarray]) -> None:
    def measurements() -> dict[str, str]:
        found = gate(project)
        return {case.shift.name: found.measurements.key(case) for case in corrupted(found)}

    before = measurements()
    assert measurements() == before
    changed = reference["fog"].copy()
    changed[4, 0, 0, 0, 0] ^= 1
    np.save(project / "CIFAR-10-C" / "fog.npy", changed.reshape(160, 32, 32, 3))
    after = measurements()
    # One bit of one image of severity 5.
    assert {name for name in before if before[name] != after[name]} == {"fog_s5"}


def test_a_stored_image_is_what_it_is_whatever_the_seed(project: Path) -> None:
    first = gate(project)
    path = project / "robustgate.toml"
    path.write_text(path.read_text().replace("[gate]\n", "[gate]\nseed = 7\n"))
    second = gate(project)
    for case in corrupted(first):
        found = [measured(one, case).predictions for one in (first, second)]
        np.testing.assert_array_equal(*found)


def test_classes_are_matched_by_name(project: Path, reference: dict[str, np.ndarray], forward) -> None:
    names = [*("truck", "ship", "horse", "frog", "dog", "deer", "cat", "bird", "automobile", "airplane")]
    np.save(project / "CIFAR-10-C" / "labels.npy", np.tile(9 - reference["labels"], 5))
    path = project / "robustgate.toml"
    path.write_text(path.read_text().replace('root = "CIFAR-10-C"', f'root = "CIFAR-10-C"\nclasses = {names}'))
    found = gate(project)
    case = corrupted(found)[0]
    assert found.measurements.samples(case).classes[0] == "airplane"
    np.testing.assert_array_equal(measured(found, case).labels, reference["labels"])


def test_classes_that_do_not_match_are_one_error(project: Path) -> None:
    path = project / "robustgate.toml"
    text = path.read_text().replace('root = "CIFAR-10-C"', 'root = "CIFAR-10-C"\nclasses = "cifar100"')
    path.write_text(text)
    found = gate(project)
    with pytest.raises(DomainError, match=r"cifar10 → cifar10_c: expected the 10 classes of cifar10 .*, got 100"):
        found.measurements.of(corrupted(found)[0])


def test_image_trees_are_measured_too(project: Path, reference: dict[str, np.ndarray], forward) -> None:
    with np.load(project / "clean.npz") as arrays:
        classes = arrays["classes"]
    # The reference has images of eight classes; a tree has a folder of each, and none may be empty.
    images = [*enumerate(reference["labels"]), (0, 8), (1, 9)]
    for name in NAMES:
        for severity in SEVERITIES:
            for row, label in images:
                folder = project / "tree" / name / str(severity) / classes[label]
                folder.mkdir(parents=True, exist_ok=True)
                image = Image.fromarray(reference[name][severity - 1, row])
                image.save(folder / f"{row:02}.JPEG", format="PNG")
    path = project / "robustgate.toml"
    old = 'kind = "cifar_c"\nroot = "CIFAR-10-C"'
    path.write_text(path.read_text().replace(old, 'kind = "imagenet_c"\nroot = "tree"\nimage_size = 32'))
    found = gate(project)
    for case in corrupted(found):
        outcome, samples = measured(found, case), found.measurements.samples(case)
        expected = forward(reference[case.shift.corruption][case.shift.severity - 1])
        for name, prediction, label in zip(samples.names, outcome.predictions, outcome.labels, strict=True):
            row = int(Path(name).stem)
            assert prediction == expected[row]
            assert classes[label] == Path(name).parent.name
            assert (row, label) in images
