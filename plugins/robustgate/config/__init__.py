"""robustgate.toml into frozen values."""

from robustgate.config.load import expose, find, load, parse
from robustgate.config.values import (
    CaseRule,
    Configuration,
    Gate,
    Masking,
    Model,
    Normalize,
    Pair,
    Policy,
    RunRule,
    Step,
    Waiver,
)

__all__ = [
    "CaseRule",
    "Configuration",
    "Gate",
    "Masking",
    "Model",
    "Normalize",
    "Pair",
    "Policy",
    "RunRule",
    "Step",
    "Waiver",
    "expose",
    "find",
    "load",
    "parse",
]
