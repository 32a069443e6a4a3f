"""Packages that are not installed, and which extra of this one brings them."""

import re
from collections import Counter
from importlib import metadata

REQUIREMENT = re.compile(r"(?P<package>[\w.-]+).*extra == ['\"](?P<extra>[\w-]+)['\"]")


def extra_for(error: BaseException | None) -> str | None:
    """
    Say what to install where a module of another package is missing.

    :param error: What was raised; its causes are looked at, too.
    :returns: None if nothing is missing that an extra brings.
    """
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            package = error.name.partition(".")[0].replace("_", "-")
            places = filter(None, map(REQUIREMENT.match, metadata.requires("haystack-distill") or ()))
            extras = [(place["package"].removesuffix("-cpu"), place["extra"]) for place in places]
            sizes = Counter(extra for _, extra in extras)  # an extra may hold another one
            if bringing := {extra for name, extra in extras if name == package}:
                least = min(bringing, key=sizes.__getitem__)
                return f"{package} is not installed: pip install 'haystack-distill[{least}]'."
        error = error.__cause__
    return None
