"""Pages that are one file: made from a template, with the look that all of them share."""

from importlib import resources
from typing import Any

import jinja2

from haystack_distill.evaluation import __name__ as here


def page_of(template: str, package: str = here, **content: Any) -> str:
    """
    Fill in a template; texts are escaped.

    :param template: Its file.
    :param package: Where the file is.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f}"
    environment.filters["points"] = lambda difference: f"{round(100 * difference, 1) + 0.0:+.1f}"
    environment.filters["p"] = lambda p: "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    style = _read(here, "page.css")
    return environment.from_string(_read(package, template)).render(**content, style=style)


def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
