"""Writing an ONNX file says nothing: no line in a terminal, none in what pytest shows of a test that failed."""

import logging

import torch
from torch import nn

from robustgate.compression._onnx_export import export, silence


def test_no_log_record_reaches_pytest(caplog, capfd):
    assert caplog.handler in logging.getLogger().handlers
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    trace = logging.getLogger("torch.__trace")
    trace.addHandler(caplog.handler)  # as pytest does from 9.2 on, if it has seen the logger before the test
    with silence():
        export(module, torch.zeros(2, 3, 8, 8), method="float")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert caplog.handler in trace.handlers
    trace.removeHandler(caplog.handler)
