"""Stacks larger than the memory that the system lets a process take: RLIMIT_DATA, in processes of their own."""

import json
import sys
from pathlib import Path

import pytest

from tests.lib.workers import run_code, run_script

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="caps and peaks are Linux's")

SCRIPT = Path(__file__).parents[1] / "lib" / "capped.py"
CASES = ["stack", "wide", "pipeline", "features", "save"]


def run_capped(scale, names):
    done = run_script(SCRIPT, scale, *names)
    print("\n" + done.stdout)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["case"] for one in found] == names
    return found


@pytest.mark.parametrize("names", [["save"], pytest.param(CASES, marks=pytest.mark.slow)])
def test_stacks_larger_than_the_memory_left(names):
    for one in run_capped("small", names):
        assert one["peak"] <= one["room"] < one["stack"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_gigabytes_in_a_process_of_one(case):
    (one,) = run_capped("large", [case])
    assert one["peak"] <= one["room"] < 1024
    assert one["stack"] >= (2000 if case == "wide" else 8000)


@pytest.mark.parametrize(("limit", "used"), [("RLIMIT_DATA", "data"), ("RLIMIT_AS", "vms")])
def test_auto_heeds_a_limit_of_the_process(limit, used):
    program = f"""
import psutil, resource
from imgstack_ml.passes.memory import allowance
assert allowance("auto").limit > 250e6
most = psutil.Process().memory_info().{used} + 400_000_000
resource.setrlimit(resource.{limit}, (most, most))
print(allowance("auto").limit)
"""
    done = run_code(program)
    assert 180e6 < int(done.stdout) <= 200e6
