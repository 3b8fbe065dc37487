"""Files are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from robustgate.core.files import sha256, write_whole


def test_text_is_utf_8_and_bytes_are_themselves(tmp_path: Path) -> None:
    write_whole(tmp_path / "deep" / "er" / "text", "→ é\n")
    assert (tmp_path / "deep" / "er" / "text").read_bytes() == b"\xe2\x86\x92 \xc3\xa9\n"
    write_whole(tmp_path / "bytes", b"\r\n\x00\xff")
    assert (tmp_path / "bytes").read_bytes() == b"\r\n\x00\xff"


def test_an_old_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_whole(path, "a long old text")
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_what_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step) -> None:
    path = tmp_path / "report.md"
    write_whole(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, sys
from pathlib import Path
from robustgate.core.files import write_whole
setattr(os, sys.argv[2], lambda *_: os._exit(9))
write_whole(Path(sys.argv[1]), "new" * 1000)
"""


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("before", ["old", None])
def test_a_killed_writer_leaves_the_old_file_or_none(tmp_path: Path, step: str, before: str | None) -> None:
    path = tmp_path / "report.md"
    if before:
        path.write_text(before)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), step], check=False, timeout=60)
    assert done.returncode == 9
    assert (path.read_text() if path.exists() else None) == before
    write_whole(path, "newest")
    assert path.read_text() == "newest"


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    for step in ("fsync", "replace"):
        real = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *args, step=step, real=real: (order.append(step), real(*args))[1])
    write_whole(tmp_path / "file", "text")
    assert order == ["fsync", "replace"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_the_umask_which_is_left_alone(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", "text")
    finally:
        after = os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert after == umask


def test_sha256_is_of_the_content(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    (tmp_path / "empty").touch()
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
