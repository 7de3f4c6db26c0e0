"""The line to type: that of a run, to make it again, to resume it, or for the next command."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

import click

__all__ = ["NOT_RECORDED", "command_line", "typed"]

NOT_RECORDED = ("as_json", "quiet", "debug", "resume", "scheduler", "plan")  # they change no result
_UNTYPABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def command_line(command: click.Command, values: dict[str, Any], *more: str, anywhere: bool = False) -> str:
    """Write a command with its parameters as a shell takes it; defaults are left out.

    Parameters
    ----------
    command : click.Command
    values : dict
        Parameters by their names, as click or ``run.json`` has them.
    *more : str
        Options at the end.
    anywhere : bool, default=False
        Whether the line is to work in any folder: paths become absolute, and options that change no result are left
        out.
    """
    arguments, options = [], []
    left_out = (*NOT_RECORDED, "overwrite") if anywhere else ("resume",)
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if value is None or parameter.name in left_out:
            continue
        if anywhere and isinstance(parameter.type, click.Path):
            value = tuple(map(_absolute, value)) if isinstance(value, list | tuple) else _absolute(value)
        if isinstance(parameter, click.Argument):
            arguments.append(f"./{value}" if str(value).startswith("-") else str(value))
        elif isinstance(parameter, click.Option):
            options += _words(parameter, value)
    return typed("imgstack-ml", command.name or "", *arguments, *options, *more)


def typed(*words: str) -> str:
    """Join words as a shell takes them; bytes that cannot be typed are written in hexadecimal, as bash reads them."""
    return " ".join(_quoted(word) if _UNTYPABLE.search(word) else shlex.quote(word) for word in words)


def _words(option: click.Option, value: Any) -> list[str]:
    default = option.default if isinstance(option.default, bool | int | str | tuple) else None
    if option.is_flag:
        names = option.opts if value else option.secondary_opts
        return [] if value is bool(default) else names[:1]
    if option.multiple:
        value = [] if tuple(value) == default else value
        return [word for each in value for word in (option.opts[0], str(each))]
    if isinstance(value, list | tuple):  # of numbers: a shape, or components
        value = ("x" if option.name == "shape" else ",").join(map(str, value))
    return [] if value == default else [option.opts[0], str(value)]


def _quoted(word: str) -> str:
    text = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}" for byte in os.fsencode(word)
    )
    return f"$'{text}'"


def _absolute(path: str) -> str:
    from ...io.locations.names import absolute_name

    return absolute_name(path)
