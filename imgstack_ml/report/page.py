"""Pages from templates: text is escaped, and no script runs but the page's own."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["render"]


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("imgstack_ml", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, *, title: str, data: str | None = None, **values: Any) -> str:
    """Fill a template.

    Parameters
    ----------
    template : str
        Its file in this folder.
    title : str
    data : str, optional
        JSON for the script of the page, which has no script without; see `as_json`. The page allows this script, by
        its hash, and no other.
    **values
        What the template shows.
    """
    from markupsafe import Markup

    script = "" if data is None else Path(__file__).with_name("report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values |= {"data": Markup(data or ""), "script": Markup(script)}
    values["policy"] = f"; script-src 'sha256-{digest}'" if script else ""
    page: str = _environment().get_template(template).render(title=title, **values)
    return page
