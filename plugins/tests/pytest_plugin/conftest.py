"""pytester forgets what a run in this process imported, and some modules cannot be imported twice: here they are first."""

import importlib
from importlib.util import find_spec

MODULES = (
    "robustgate.engine.gate",
    "robustgate.engine.reporting",
    "matplotlib.backends.backend_svg",
    "xdist.dsession",
    "onnxruntime",
    "torch_pruning",
)
# What torch imports when it first exports a network or counts operations; another release may have it elsewhere.
WITHIN = ("torch._dynamo.precompile_context", "torch.export", "torch.utils.flop_counter")
for name in (*MODULES, *filter(find_spec, WITHIN)):
    importlib.import_module(name)
