"""Machine code that is kept for the next process: the same code, and nothing that was not compiled here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgstack_ml.linalg import integers
from imgstack_ml.linalg.kept_code import kept_code


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "kernels.py").write_text("# compiles")
    return tmp_path / "kernels.py"


def kept_files(source):
    return sorted(source.parent.rglob("*.o"))


def refuse():
    raise AssertionError("compiled again")


def test_what_was_compiled_once_is_read(source):
    assert kept_code(lambda: b"code", str(source), ["x86", "avx"]) == b"code"
    assert kept_code(refuse, str(source), ["x86", "avx"]) == b"code"
    (file,) = kept_files(source)
    assert file.parent.name == "__pycache__"
    assert file.stat().st_mode == source.stat().st_mode


def test_another_processor_or_source_compiles_anew(source):
    kept_code(lambda: b"code", str(source), ["x86", "avx"])
    assert kept_code(lambda: b"other", str(source), ["x86", "avx512"]) == b"other"
    source.write_text("# compiles otherwise")
    assert kept_code(lambda: b"third", str(source), ["x86", "avx"]) == b"third"
    assert len(kept_files(source)) == 3


@pytest.mark.parametrize("damage", [b"", b"short", None], ids=["empty", "short", "one bit"])
def test_a_damaged_file_is_not_used_and_is_replaced(source, damage):
    kept_code(lambda: b"code", str(source), [])
    (file,) = kept_files(source)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
    assert kept_code(lambda: b"code", str(source), []) == b"code"
    assert file.read_bytes() == content
    assert kept_files(source) == [file]


def test_without_a_place_to_keep_it_is_compiled(source, monkeypatch):
    for setting in ("unwritable", "not wanted", "no source", "no bytecode"):
        if setting == "unwritable":
            (source.parent / "__pycache__").write_text("not a folder")
        else:
            (source.parent / "__pycache__").unlink(missing_ok=True)
        monkeypatch.setattr(sys, "dont_write_bytecode", setting == "not wanted")
        if setting == "no bytecode":
            monkeypatch.setattr(sys.implementation, "cache_tag", None)
        name = str(source) if setting != "no source" else str(source.parent / "in.zip" / "kernels.py")
        assert [kept_code(lambda: b"code", name, []) for _ in range(2)] == [b"code"] * 2
        assert not kept_files(source)


def test_the_next_process_does_not_compile(tmp_path):
    if integers._compiled() is None:
        pytest.skip("this processor does not multiply bytes")
    code = (
        "import numpy as np, llvmlite.binding as llvm; from imgstack_ml.linalg import integers\n"
        "calls, emit = [], llvm.TargetMachine.emit_object\n"
        "llvm.TargetMachine.emit_object = lambda *args: (calls.append(1), emit(*args))[1]\n"
        "X = np.random.default_rng(0).integers(0, 256, (50, 999), dtype=np.uint8)\n"
        "print(integers.are_fast(X.dtype), len(calls), integers.products_of_images([X], 0, 999).sum())"
    )
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    lines = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    first, second = (line.split() for line in lines)
    assert (first[:2], second[:2]) == (["True", "1"], ["True", "0"])
    assert first[2] == second[2]
    assert len(list(Path(tmp_path).rglob("*.o"))) == 1
