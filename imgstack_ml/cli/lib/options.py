"""Options that several commands have, each with one text."""

import functools
from collections.abc import Callable
from typing import Any

import click

from ...errors import StoreError
from ...files.names import refuse_url
from .terminal import Terminal

__all__ = [
    "DEFAULT_COMPONENTS",
    "ComponentNumbers",
    "OutputPath",
    "add_options",
    "memory_limit_option",
    "n_components_option",
    "overwrite_option",
    "results_option",
    "run_options",
    "seed_option",
]

DEFAULT_COMPONENTS = 16


class OutputPath(click.Path):
    """A file or folder to write; a URL is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the value of an option or argument."""
        try:
            refuse_url(value)
        except StoreError as error:
            self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


class ComponentNumbers(click.ParamType):
    """Numbers of components from 1 on, as their files have them: ``1,3-5`` becomes ``[1, 3, 4, 5]``."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Check the value of an option."""
        numbers: list[int] = []
        for part in value.split(","):
            first, _, last = part.strip().partition("-")
            if not first.isdecimal() or not (last or first).isdecimal() or not 1 <= int(first) <= int(last or first):
                self.fail(f"{part!r} is no number from 1 on, nor a range such as 3-5", param, ctx)
            if int(last or first) > 1_000_000:
                self.fail(f"{part!r} is more components than any model has", param, ctx)
            numbers += range(int(first), int(last or first) + 1)
        if len(set(numbers)) < len(numbers):
            twice = next(number for number in numbers if numbers.count(number) > 1)
            self.fail(f"{value!r} has component {twice} twice", param, ctx)
        return numbers


_quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print the record of the run as JSON.")
_debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
_scheduler_option = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Compute on the Dask cluster with this scheduler, e.g. tcp://10.0.0.1:8786; its workers must see the files "
    "under the same names.  [default: threads of this machine]",
)


def _check_memory_size(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse a malformed size at once, before the headers of a million files are read."""
    if value == "auto":
        return value
    from dask.utils import parse_bytes

    try:
        if parse_bytes(value) > 0:
            return value
    except ValueError:
        pass
    raise click.BadParameter(f"{value!r} is no size; give auto, a number of bytes, or a size such as 500MB or 2GB")


memory_limit_option = click.option(
    "--memory-limit",
    default="auto",
    show_default=True,
    metavar="SIZE",
    callback=_check_memory_size,
    help="Memory that a fit may use, e.g. 1GB; auto stays below half of the free memory.",
)


def results_option(*, required: bool = True) -> Callable:
    """Make the option that names the folder of the results."""
    return click.option(
        "-o", "--out", required=required, type=OutputPath(file_okay=False), help="Folder for the results."
    )


def overwrite_option(what: str = "the results of an earlier run") -> Callable:
    """Make the option that allows a command to replace `what`."""
    return click.option("--overwrite", is_flag=True, help=f"Replace {what}.")


def n_components_option(
    text: str = f"Number of principal components.  [default: {DEFAULT_COMPONENTS}, or fewer for few images]",
) -> Callable:
    """Make the option that sets the number of components, with `text` as its help."""
    return click.option("-k", "n_components", metavar="N", type=click.IntRange(min=1), help=text)


def seed_option(text: str, *, default: int | None = 0) -> Callable:
    """Make the option that seeds random numbers, with `text` as its help."""
    return click.option(
        "--seed", metavar="N", type=click.IntRange(min=0), default=default, show_default=True, help=text
    )


def run_options(*, scheduler: bool = True, json: bool = True) -> Callable[[Callable], Callable]:
    """Make the decorator that adds the options of every run, and passes them to the command as its `terminal`.

    Parameters
    ----------
    scheduler, json : bool
        Whether the command computes on a cluster, and has a record to print.
    """
    options = [_scheduler_option] * scheduler + [_json_option] * json + [_quiet_option, _debug_option]

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def with_terminal(*, quiet: bool, as_json: bool = False, **others: Any) -> Any:
            for read_by_task in ("debug", "scheduler"):
                others.pop(read_by_task, None)
            return command(terminal=Terminal(quiet, as_json), **others)

        return add_options(options, with_terminal)

    return decorate


def add_options(options: list[Callable], command: Callable) -> Callable:
    """Add options to a command, in the order in which its help lists them."""
    return functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)
