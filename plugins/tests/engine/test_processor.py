"""What is said of the processor, by what its own tables say."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustgate.engine import processor as module

TABLES = {
    "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_int8\n": "m avx512_vnni amx_int8",
    "flags\t\t: fpu sse4_2 avx2\n": "m, 8-bit products may saturate",
    "model name\t: avx512_vnni\nflags\t\t: fpu\n": "m, 8-bit products may saturate",
    "Features\t: fp asimd asimddp\n": "m asimddp",
}


@pytest.mark.parametrize("table", TABLES)
def test_the_instructions_decide(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(table)
    monkeypatch.setattr(module, "Path", lambda _: file)
    monkeypatch.setattr(module.platform, "machine", lambda: "m")
    assert module.processor.__wrapped__() == TABLES[table]
    file.unlink()
    assert module.processor.__wrapped__() == "m"
