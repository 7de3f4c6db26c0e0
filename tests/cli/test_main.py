"""The program as a whole: help, version, usage, and the Tab key."""

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

import imgstack_ml as im
from imgstack_ml.cli import main
from tests.lib.commands import run


def test_help_imports_nothing_slow():
    """Of other packages, click alone; a test in seconds would depend on the machine."""
    code = """
import sys
before = set(sys.modules)
from imgstack_ml.cli import main
for args in ([], *([name] for name in main.commands)):
    main([*args, "--help"], standalone_mode=False)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
assert loaded <= {"imgstack_ml", "click", "lazy_loader", "colorama"}, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_shows_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"imgstack-ml {command}" in result.stdout.split("Example")[1]
    assert max(map(len, (result.stdout + run("--help").stdout).splitlines())) <= 80


def test_version():
    assert run("--version").stdout == f"imgstack-ml, version {im.__version__}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pca", "folder"], "'-o'"),
        (["pca", "folder", "-o", "out", "-k", "0"], "'-k'"),
        (["pca", "folder", "-o", "out", "--memory-limit", "lots"], "'lots' is no size"),
        (["pca", "folder", "-o", "out", "--memory-limit", "0MB"], "'0MB' is no size"),
        (["pca", "folder", "-o", "out", "--shape", "256"], "'256' is no height and width"),
        (["pca", "folder", "-o", "out", "--shape", "5", "6"], "type: imgstack-ml pca folder -o out --shape 5x6"),
        (["pca", "folder", "-o", "out", "--shape", "0x5"], "'0x5' is no height and width"),
        (["pca", "folder", "-o", "out", "--solver", "full"], "'full'"),
        (["pca", "folder", "-o", __file__], "is a file"),
        (["classify", "folder", "-o", "out", "--group-by", "0"], "'0' is neither a level of folders"),
        (["sample", "cats", "folder"], "'cats'"),
        (["sample", "faces", "folder", "--seed", "1"], "always the same"),
    ],
    ids=lambda value: " ".join(map(os.path.basename, value)) if isinstance(value, list) else "",
)
def test_wrong_usage_is_exit_code_2(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "position", "expected"),
    [
        ("imgstack-ml tr", 1, ["plain,transform"]),
        ("imgstack-ml pca --so", 2, ["plain,--solver"]),
        ("imgstack-ml pca --solver ran", 3, ["plain,randomized"]),
        ("imgstack-ml pca ph", 2, ["file,ph"]),  # bash then looks for files
    ],
)
def test_completion(words, position, expected):
    environment = {"_IMGSTACK_ML_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    result = CliRunner().invoke(main, [], env=environment, prog_name="imgstack-ml")
    assert result.stdout.split() == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_documented_line_sets_bash_up(tmp_path):
    script = tmp_path / "imgstack-ml"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m imgstack_ml "$@"\n')
    script.chmod(0o755)
    line = 'eval "$(_IMGSTACK_ML_COMPLETE=bash_source imgstack-ml)"'
    assert line in " ".join(run("--help").stdout.split())
    ask = 'COMP_WORDS=(imgstack-ml rec); COMP_CWORD=1; _imgstack_ml_completion imgstack-ml; echo "${COMPREPLY[@]}"'
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = subprocess.run(
        ["bash", "-c", f"{line}\n{ask}"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.stdout.split() == ["reconstruct"], process.stderr


WITH_A_LOST_THREAD = """
import concurrent.futures.thread as thread, sys
from imgstack_ml import __main__ as program, cli
pool = thread.ThreadPoolExecutor(1)
pool.submit(int).result()
thread._threads_queues.clear()
cli.main = lambda **_: sys.exit(130)
program.main()
"""


def test_a_command_that_is_stopped_ends_though_python_lost_a_thread():
    """Ctrl-C can come between the start of a thread and its entry in the list that Python ends at the end."""
    assert subprocess.run([sys.executable, "-c", WITH_A_LOST_THREAD], timeout=60, check=False).returncode == 130
