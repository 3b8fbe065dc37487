"""Real domain pairs through the gate: float and compressed networks, in the table that the field prints.

    python plugins/benchmarks/domain_pairs.py [--json FILE] [--projects office cifar digits] [--keep FOLDER]

Office's amazon, webcam and dslr in ten classes, six pairs: published MobileNetV2 weights at 96 px with a linear probe
on 80 % of each source, quantized, pruned, and taught; CIFAR-10's own images against their JPEG copies and against
Tiny-ImageNet's of the same classes; MNIST against USPS. Each project is an ordinary robustgate.toml and an ordinary
run. ROBUSTGATE_DATA names the folder of real data, whose figures these must meet. Exits 1 where one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from _mobilenet import MobileNetV2, mobilenet_v2, published
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from robustgate.config import load
from robustgate.core.records import REFERENCE, Results
from robustgate.engine.gate import Gate
from robustgate.engine.plan import make_plan
from robustgate.reports import results_json

DATA = Path(os.environ.get("ROBUSTGATE_DATA", ""))
HERE = Path(__file__).parent
MOBILENET = DATA / "weights" / "mobilenet_v2_1.0_224_uint8.safetensors"
OFFICE = ("amazon", "webcam", "dslr")
SIDE, L2, HELD_OUT = 96, 1e-3, 5  # every fifth image of a domain is its test split
OFFICE_TOML = """
shifts.pairs = "all"
policies.any.rules = [{ name = "anything", min = 0.0 }]
[compressions]
int8.steps = [{ method = "static_quantization" }]
fp_1_50M.steps = [{ method = "filter_pruning", parameters = "1.50M", finetune = @recipe@ }]
fp_0_75M.steps = [{ method = "filter_pruning", parameters = "0.75M", finetune = @recipe@ }]
fp_1_50M_int8.steps = [{ use = "fp_1_50M" }, { method = "static_quantization" }]
[[compressions.kd_0_75M.steps]]
method = "filter_pruning"
parameters = "0.75M"
[[compressions.kd_0_75M.steps]]
method = "distillation"
teacher = "mobilenet_v2"
training = @recipe@
[models.mobilenet_v2]
build = "_mobilenet:mobilenet_v2"
args = { num_classes = 10 }
# (x - 128) / 128 of values from 0 to 255
normalize = { mean = [@mean@, @mean@, @mean@], std = [@std@, @std@, @std@] }
""".replace("@mean@", repr(128 / 255)).replace("@std@", repr(128 / 255))
OFFICE_SOURCE = """
[models.mobilenet_v2.weights]
{name} = "{name}.safetensors"
[domains.{name}]
kind = "npz"
files = {{ train = "{name}_train.npz", test = "{name}_test.npz" }}
calibration = 0.1
"""
RECIPE = "{ epochs = 20, lr = 0.01, batch_size = 32, flip = true, weight_decay = 0.0001 }"
