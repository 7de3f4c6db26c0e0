"""Mutants: small faults put into the package one at a time, to see which of them the tests find.

Draw mutants of statements that tests execute, and run on each the tests that execute its line::

    COVERAGE_FILE=cov pytest --cov=imgstack_ml --cov-context=test --cov-report= --durations=0 > times.log
    python -m tests.campaigns.mutants draw --coverage cov --seed 1 --number 60 --under linalg io --output drawn.json
    python -m tests.campaigns.mutants run --coverage cov --times times.log --output drawn.json

The output is written after every mutant, and the same command continues it. A mutant is killed by a test that fails
with it and passes without it; or by one that hangs, that is, takes less than 10 s without it, and more than a minute
and ten times as long with it. It is undecided where its time is over otherwise.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from coverage import CoverageData

from tests.lib.mutations import COMPOUND, all_statements, changes, mutated, spliced

PACKAGE = "imgstack_ml"
SHORT, HANGS = 10.0, 60.0  # seconds


def covering(files):
    """Return {(file of the package, line): names of tests}."""
    found = {}
    for file in files:
        data = CoverageData(file)
        data.read()
        for path in data.measured_files():
            for line, contexts in data.contexts_by_lineno(path).items():
                tests = {context.rpartition("|")[0] for context in contexts if context}
                tests = {re.sub(r"\[.*0x[0-9a-f]{6}.*", "", test) for test in tests}  # addresses differ between runs
                found.setdefault((PACKAGE + path.rpartition(f"/{PACKAGE}")[2], line), set()).update(tests)
    return found


def tests_of(path, statement, covered):
    """Return the tests that execute a statement; of a compound one, what stands before its body."""
    end = statement.body[0].lineno if isinstance(statement, COMPOUND) else statement.end_lineno + 1
    return set().union(*(covered.get((str(path), n), ()) for n in range(statement.lineno, end)))


def draw(args):
    """Draw mutants, at most one a statement, of all kinds and all files as equally often as possible."""
    covered, pool, drawn, often = covering(args.coverage), [], [], Counter()
    for module, path, function, statement in all_statements(args.tree / PACKAGE):
        if any(f"{module}.".startswith(f"{PACKAGE}.{under}.") for under in args.under):
            found = changes(statement) if tests_of(path, statement, covered) else ()
            pool += [(kind, module, function, statement, change) for kind, change in found]
    random.Random(args.seed).shuffle(pool)
    while pool and len(drawn) < args.number:
        kind, module, function, statement, path = min(pool, key=lambda c: (often[c[0]], often[c[1]]))
        often.update([kind, module])
        pool = [candidate for candidate in pool if candidate[3] is not statement]
        before, after = mutated(statement, kind, path)
        place = {"module": module, "function": function, "line": statement.lineno}
        drawn.append({"id": len(drawn) + 1, **place, "kind": kind, "path": path, "before": before, "after": after})
    args.output.write_text(json.dumps(drawn, indent=1))


class Tree:
    """A copy of a tree, to change a file of and run tests in."""

    def __init__(self, args, folder):
        self.folder, self.root, self.seconds = folder, folder / "tree", args.seconds
        self.sound, self.usual = {}, Counter()  # tests: whether they pass without a mutant, and their seconds
        shutil.copytree(args.tree, self.root, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        for line in (line for log in args.times for line in Path(log).read_text().splitlines()):
            if found := re.match(r"([\d.]+)s (?:setup|call) +(.*)", line):
                self.usual[found[2]] += float(found[1])

    def ordered(self, tests):
        """Sort tests: one variant of each first, quick ones first, but all of a file together."""
        names, groups, seconds = set(), {}, Counter()
        for test in sorted(tests, key=lambda test: (self.usual[test], test)):
            name = test.partition("[")[0]
            groups[test] = name in names, name.partition("::")[0]
            seconds[groups[test]] += self.usual[test]
            names.add(name)
        return sorted(groups, key=lambda test: (groups[test][0], seconds[groups[test]], groups[test], self.usual[test]))

    def pytest(self, tests):
        """Run tests until one fails; return result, test and reason."""
        output = self.folder / "output"
        command = [sys.executable, "-m", "pytest", "-n0", "-x", "-v", "--tb=short", "-p", "no:cacheprovider"]
        env = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        streams = {"stdout": output.open("w"), "stderr": subprocess.STDOUT, "start_new_session": True}
        run = subprocess.Popen(
            [*command, f"--basetemp={self.folder / 'base'}", *tests], cwd=self.root, env=env, **streams
        )
        try:
            late = self.watch(run, output)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
        told = output.read_text()
        failed = re.search(r"^(\S+\.py::.+?) (?:FAILED|ERROR)\b|^ERROR (\S+\.py)", told, re.MULTILINE)
        test = (failed[1] or failed[2]) if failed else running(told)
        if not late and (run.returncode < 0 or (failed and run.returncode in (1, 2))):
            return "killed", test, "; ".join(re.findall("^E  +(.*)", told, re.MULTILINE)[:2]) or told[-200:]
        return late or ("undecided" if run.returncode else "survived", "", told[-200:])

    def watch(self, run, output):
        """Wait for pytest; return a result where its time is over."""
        end, late = time.time() + self.seconds, None
        while run.poll() is None:
            time.sleep(0.2)
            if time.time() > end:
                test = running(output.read_text())
                late, usual = late or test, self.usual[test] if self.usual else SHORT
                if test != late or not test or usual >= SHORT:
                    return "undecided", "", f"time over in {late}"
                if time.time() - output.stat().st_mtime > max(HANGS, 10 * usual):
                    return "killed", test, f"hangs; takes {usual:.2f} s without the mutant"
        return None

    def verdict(self, path, statement, kind, after, tests):
        """Put a mutant in, run its tests, take it out."""
        source, result, test, reason = (self.root / path).read_text(), "undecided", "", "all fail without it, too"
        while tests := self.ordered(t for t in tests if self.sound.get(t, True)):
            (self.root / path).write_text(spliced(source, statement, kind, after))
            result, test, reason = self.pytest(tests)
            (self.root / path).write_text(source)
            if result != "killed" or self.sound.setdefault(test, self.pytest([test])[0] == "survived"):
                break
            self.sound[test.partition("[")[0]] = False
        return {"result": result, "test": test, "reason": reason}


def running(told):
    """Return the test that pytest is in, from what it has printed."""
    last = told.rpartition("\n")[2]
    return last.strip() if ".py::" in last and last.endswith(" ") else ""


def decide(args, mutants, places):
    """Run the mutants that have no result yet, at (file, statement, text)."""
    covered = covering(args.coverage)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without the end of pytest
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(args, Path(folder))
        for mutant, (path, statement, after) in zip(mutants, places, strict=True):
            if mutant.get("result", "") in args.again and path:
                begun, tests = time.time(), tests_of(path, statement, covered) or set(args.tests)
                mutant |= tree.verdict(path, statement, mutant["kind"], after, tests)
                mutant |= {"seconds": round(time.time() - begun), "n_tests": len(tests)}
                args.output.write_text(json.dumps(mutants, indent=1))
                print(mutant["id"], *(mutant[key] for key in ("result", "test", "seconds")), flush=True)


def run(args):
    """Run the tests on the mutants drawn."""
    at = {(m, function, s.lineno): (path, s) for m, path, function, s in all_statements(args.tree / PACKAGE)}
    mutants = json.loads(args.output.read_text())
    decide(args, mutants, [(*at[m["module"], m["function"], m["line"]], m["after"]) for m in mutants])
    show(mutants)


def show(mutants):
    for m in mutants:
        print(f"{m['id']:3} {m.get('result', '-'):9} {m['kind']:10} {m['module']}:{m['line']} {m['function']}")
        print(f"      - {m['before']}\n      + {m['after']}".replace("\n    ", "\n          "))
        print(f"      {m.get('test')} ({m.get('seconds')} s, {m.get('n_tests')} tests) {m.get('reason', '')[:120]!r}")
    print(dict(Counter(m.get("result", "-") for m in mutants)))


def options():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", help="draw or run")
    parser.add_argument("--tree", type=Path, default=Path(), help="folder of package and tests")
    parser.add_argument("--coverage", nargs="+", default=[], help="data of coverage.py, with a context a test")
    parser.add_argument("--times", nargs="+", default=[], help="what pytest --durations=0 printed")
    parser.add_argument("--tests", nargs="+", default=["tests"], help="tests to run where coverage names none")
    parser.add_argument("--under", nargs="+", default=[], help="modules and sub-packages to draw from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=120.0, help="for the tests of a mutant")
    parser.add_argument("--again", nargs="+", default=[""], help="results to decide again: undecided, survived")
    parser.add_argument("--output", type=Path, required=True)
    return parser


if __name__ == "__main__":
    chosen = options().parse_args()
    {"draw": draw, "run": run}[chosen.command](chosen)
