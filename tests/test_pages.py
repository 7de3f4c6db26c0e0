"""Every page keeps its word: names have examples, links lead somewhere, commands can be typed, figures are stored."""

import importlib
import inspect
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from imgstack_ml.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(page for page in sorted(DOCS.rglob("*.md")) if not {"_build", "_api"} & set(page.parts)),
    *(ROOT / folder / page.name for folder in (".", ".github", "benchmarks") for page in (ROOT / folder).glob("*.md")),
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OTHER_PROGRAMS = {"pip": "install", "uv": "pip venv", "python": "-m build"}


def name_of(page):
    return page.relative_to(ROOT).as_posix()


# Names -------------------------------------------------------------------------------------------------


def names_in_the_reference():
    """Yield (module, name) of each entry of the tables in api.md."""
    module = ""
    for line in next(DOCS.rglob("api.md")).read_text(encoding="utf-8").splitlines():
        module = line.rpartition(" ")[2] if line.startswith(".. currentmodule::") else module
        if entry := re.fullmatch(r"   (\w+)", line):
            yield module, entry[1]


def test_the_reference_is_complete_and_each_name_has_an_example():
    """.ci/run runs them, as doctests."""
    listed = set(names_in_the_reference())
    for module in {module for module, _ in listed}:
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            public = f"imgstack_ml.{name}" if ("imgstack_ml", name) in listed else f"{module}.{name}"
            assert (public.rpartition(".")[0], name) in listed, public
            assert isinstance(value, dict) or ">>> " in inspect.cleandoc(value.__doc__), f"{public} needs an example"


@pytest.mark.slow
def test_a_typed_program_passes_mypy_strict(tmp_path):
    """As a user runs it, in a folder of the user's own; `mypy` in .ci/run checks the same program."""
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(DOCS / "examples" / "typed.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


# Links -------------------------------------------------------------------------------------------------


def anchors_of(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles} | set(
        re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_titles(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            file = page.parent / target if target else page
            assert file.exists(), target
            assert not anchor or file.suffix != ".md" or anchor in anchors_of(file), f"{target}#{anchor}"


# Commands ----------------------------------------------------------------------------------------------


def commands_of(page):
    """Yield the words of each command of shells' blocks; those in a sentence may lack arguments, and end with "…"."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^ *```(?:bash|sh|console)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [f"{line} …" for line in re.findall(r"`((?:imgstack-ml|python|pytest|bash|pip install) [^`]+)`", prose)]
    for line in lines:
        lexer = shlex.shlex(re.sub(r"(^|\s)#.*", "", line), posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words = list(lexer)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("&&", ";", "|", "&", ";;")), len(words))
            yield words[:end]
            words = words[end + 1 :]


def refusal_of_arguments(args):
    """What the real parser says against the arguments of imgstack-ml; None if it takes them."""
    words = [{"...": "pca"}.get(word, word) for word in args if word != "…"]  # "..." stands for any command
    try:
        with main.make_context("imgstack-ml", list(words)) as group:
            name, command, rest = main.resolve_command(group, list(words))
            command.make_context(name, rest, parent=group)
    except click.exceptions.Exit:  # --help
        return None
    except (click.MissingParameter, click.BadOptionUsage) as error:
        return None if "…" in args else error.format_message()
    except click.ClickException as error:  # files of the user's are not here, and N stands for a number
        message = error.format_message()
        return None if re.search(r"does not exist|'[\w-]+\.\w+|'N'", message) else message


def missing_part(program, args):
    """What a command names that the repository does not have; None if there is nothing."""
    if program == "imgstack-ml":
        return refusal_of_arguments(args)
    if program == "pip" and args[:1] == ["install"]:
        extras = re.findall(r"\[([\w,]+)\]", " ".join(arg for arg in args if arg.startswith((".", "imgstack_ml"))))
        return next((name for name in ",".join(extras).split(",") if name and name not in EXTRAS), None)
    if program == "python" and args[0] == "-m" and args[1].startswith("benchmarks."):
        file = ROOT / (args[1].replace(".", "/").replace("/NAME", "/peers") + ".py")
        known = "".join(path.read_text(encoding="utf-8") for path in (file, *(ROOT / "benchmarks/lib").glob("*.py")))
        return next(
            (arg for arg in args[2:] if arg.startswith("--") and arg != "--help" and f'"{arg}"' not in known), None
        )
    files = [arg for arg in args if re.match(r"(tests|docs|benchmarks|\.ci|imgstack_ml)(/[\w./-]*)?$", arg)]
    outputs = ("docs/_build",)
    return next((file for file in files if not (ROOT / file).exists() and file not in outputs), None)


EXTRAS = PROJECT["optional-dependencies"]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_commands_can_be_typed(page):
    for program, *args in filter(None, commands_of(page)):
        assert missing_part(program, args) is None, shlex.join([program, *args])


# Figures -----------------------------------------------------------------------------------------------

MEASURED = json.loads((DOCS / "peers.json").read_text(encoding="utf-8"))
# Rows of the README's table, and the fits that they sum up.
SUMMED_UP = {
    "scikit-learn's `PCA`": "scikit-learn PCA, randomized",
    "svd_compressed": "Dask svd_compressed, q=1",
    "dask-ml's `PCA`": "dask-ml PCA, tsqr",
    "xeofs, HyperSpy": "xeofs|HyperSpy lazy",
    "IncrementalPCA": "scikit-learn IncrementalPCA",
}
NUMBERS = {
    word: str(number)
    for number, word in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], 1)
}
UNITS = r"[mµ]?s|min|seconds?|minutes?|hours?|[kKMGT]i?B|%|×(?! ?\d)|times (?:as|the|less|more|\w+er)\b"
FIGURE = re.compile(rf"(?<![\w.])(\d[\d,.]*) ?(?:{UNITS})(?!\w)")
MEASURED_BY = re.compile(r"python -m (?:benchmarks|tests)\.|python docs/|asv run|pytest|`test_|`tests/")
# Figures that nothing measures, such as limits: the file that holds them, and its words.
HELD_BY = {
    ("docs/guide/decompose.md", "90 %"): ("docs/guide/decompose.md", "`ImagePCA(0.9)`"),
    ("docs/guide/deploy.md", "14.9 GiB"): ("docs/guide/deploy.md", "--memory-limit 14.90GiB"),
    ("docs/guide/faq.md", "15 s"): ("tests/contracts/test_hostile.py", "assert seconds < 15\n"),
    ("docs/guide/faq.md", "600 MB"): ("docs/guide/faq.md", "(https://github.com/pyxem/kikuchipy/issues/31)"),
    ("docs/guide/faq.md", "15 GB"): ("docs/guide/faq.md", "(https://github.com/pyxem/kikuchipy/issues/31)"),
    ("docs/guide/formats.md", "4 GB"): ("imgstack_ml/io/formats/tiff_series.py", "compressed or larger than 4 GB"),
    ("docs/guide/report.md", "8 MB"): ("imgstack_ml/report/report.py", "_MAX_BYTES = 8_000_000 "),
    ("docs/guide/solver.md", "1.3 times as"): ("imgstack_ml/decomposition/plan.py", "_PREFER_EXACT = 1.3 "),
    ("docs/guide/solver.md", "25 MB"): ("tests/test_architecture.py", "assert float(done.stdout) < 25,"),
    ("docs/guide/solver.md", "512 MiB"): ("imgstack_ml/passes/memory.py", "_KEEP_BYTES = 2**29 "),
    ("docs/notebooks/tutorial.md", "512 MiB"): ("imgstack_ml/passes/memory.py", "_KEEP_BYTES = 2**29 "),
}


def in_digits(text):
    return re.sub(rf"\b({'|'.join(NUMBERS)})\b", lambda word: NUMBERS[word[1]], text)


def figures_without_a_measurement(page):
    """Yield the figures of sections where neither they nor the beginning of the page name what measures them."""
    intro, *sections = re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for section in (intro, *sections):
        if not MEASURED_BY.search(intro + section):
            prose = re.sub(r"^ *```.*?^ *```|`[^`\n]*`", "", section, flags=re.DOTALL | re.MULTILINE)
            yield from (figure[0] for figure in FIGURE.finditer(in_digits(prose)))


def test_figures_are_measured_by_a_named_command_or_held_by_code():
    """Figures with a unit of time, memory or speed. The README's are compared below; a changelog's are of their day."""
    others = [page for page in PAGES if page not in (ROOT / "README.md", ROOT / "CHANGELOG.md")]
    found = {(name_of(page), figure) for page in others for figure in figures_without_a_measurement(page)}
    assert found == set(HELD_BY)
    for figure, (file, words) in HELD_BY.items():
        assert words in (ROOT / file).read_text(encoding="utf-8"), figure


def test_figures_in_sentences_about_benchmarks_stand_in_a_table_too():
    """Rounded as the sentence has them, thousands of a unit included (MB as GB)."""
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    prose = re.sub(r"^ *```.*?^ *```", "", page, flags=re.DOTALL | re.MULTILINE)
    tables = "\n".join(re.findall(r"^(?:\||\*\*).*", prose, re.MULTILINE))
    prose = re.sub(r"^(?:\||\*\*|\d{4}-\d\d-\d\d, ).*|`[^`\n]*`", "", prose, flags=re.MULTILINE)  # dates: machines
    measured = [float(number.replace(",", "")) for number in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", tables)]
    for figure in FIGURE.finditer(in_digits(prose)):
        number = figure[1].rstrip(".,").replace(",", "")
        digits = len(number.partition(".")[2])
        found = any(round(x / unit, digits) == float(number) for x in measured for unit in (1, 1000))
        assert found, figure[0]


def test_the_pages_tables_are_those_of_the_stored_figures():
    from benchmarks.comparisons.image_sizes import table
    from benchmarks.comparisons.incomplete import tables
    from benchmarks.comparisons.peers import table_of_stack

    page = next(DOCS.rglob("benchmarks.md")).read_text(encoding="utf-8")
    for name, result in MEASURED.items():
        assert table_of_stack(result).strip() in page, name
    for make, file in ((tables, "incomplete.json"), (table, "image_sizes.json")):
        assert make(json.loads((DOCS / file).read_text(encoding="utf-8"))) in page


def test_the_readmes_table_sums_up_the_stored_figures():
    text = in_digits((ROOT / "README.md").read_text(encoding="utf-8"))
    table = [line for line in text.splitlines() if FIGURE.search(line)]  # in the README no figure stands elsewhere
    assert len(table) == len(SUMMED_UP)
    for row, fits in SUMMED_UP.items():
        (line,) = [line for line in table if row in line.split("|")[1]]
        found = {"times the time": [], "reads?": [], "GiB": []}
        for result in MEASURED.values():
            own = next(fit["seconds"] for fit in result["rows"] if fit["name"] == "ImagePCA(10)")
            for fit in (fit for fit in result["rows"] if re.match(fits, fit["name"])):
                found["times the time"] += [fit["seconds"] / own] if "seconds" in fit else []
                found["reads?"] += [fit["reads"]] if "reads" in fit else []
                found["GiB"] += map(float, re.findall(r"allocate ([\d.]+) GiB", fit.get("failed", ""))[:1])
        said = {unit: re.search(rf"(\d+)(?: to (\d+))? {unit}", line) for unit in found}
        assert any(said.values()), line
        for unit, figure in said.items():
            if figure:
                least = max if unit == "GiB" else min  # the largest stack's alone
                bounds = [round(least(found[unit])), round(max(found[unit]))]
                assert bounds == [int(figure[1]), int(figure[2] or figure[1])], line


# Dependencies and versions -----------------------------------------------------------------------------


def test_the_page_about_dependencies_lists_those_of_the_package():
    page = next(DOCS.rglob("dependencies.md")).read_text(encoding="utf-8").partition("\n## What was rejected")[0]
    listed = set(re.findall(r"^\| ([\w-]+)", page, re.MULTILINE)) - {"package"}
    required = PROJECT["dependencies"] + [
        text
        for extra, texts in EXTRAS.items()
        if extra not in ("test", "bench", "peers", "dev", "docs")
        for text in texts
    ]
    assert listed == {re.split(r"[^\w-]", text)[0] for text in required}


def test_figures_on_the_page_about_dependencies_are_the_stored_ones():
    page = next(DOCS.rglob("dependencies.md"))
    stored, text = json.loads(page.with_suffix(".json").read_text(encoding="utf-8")), page.read_text(encoding="utf-8")
    said = {name: [float(mb), float(alone)] for name, mb, alone in re.findall(SIZES, text, re.MULTILINE)}
    assert said == {name: row[1:3] for name, row in stored["packages"].items()}
    assert f"{stored['always']['packages']} packages of {stored['always']['MB']} MB" in text
    known = {str(figure) for figure in (stored["always"]["MB"], *stored["memory"].values())}
    assert {figure[1] for figure in FIGURE.finditer(text)} == known


SIZES = r"^\| ([\w-]+) \|.*\| ([\d.]+) \| ([\d.]+) \|.*\|$"


def test_all_files_name_the_same_version():
    from imgstack_ml import __version__

    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[1] == __version__
