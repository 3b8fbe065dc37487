"""Artifacts as they run: what ships answers, and where it has no gradient its twin gives one."""

from robustgate.engine.subjects.counted import CountedTarget
from robustgate.engine.subjects.load import load_file
from robustgate.engine.subjects.network import TorchSubject
from robustgate.engine.subjects.onnx import OnnxSubject
from robustgate.engine.subjects.subject import Subject, check_logits, fingerprint

__all__ = ["CountedTarget", "OnnxSubject", "Subject", "TorchSubject", "check_logits", "fingerprint", "load_file"]
