"""
What mkdocs does not know of this project: pages that lie elsewhere in the repository, and links that leave docs/.

The figures of the benchmarks become pages. A link from a page to any other file of the repository becomes an address of
the repository in the site, so that the same Markdown can be read in both places. A link to nothing stays as it is, and
mkdocs refuses it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#|/)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the figures of the benchmarks, as `results/`."""
    for file in sorted((ROOT / RESULTS).glob("*.md")):
        files.append(File.generated(config, f"results/{file.name}", abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point each link of a page to where its target lies in the site, or else in the repository."""
    folder = posixpath.dirname(in_repository(page.file.src_uri))

    def pointed(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[0]))
        inside = in_site(target)
        file = files.get_file_from_path(inside)
        if (file and file.inclusion.is_included()) or not (ROOT / target).exists():
            return posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".")
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        return f"{config.extra['repository']}/{kind}/main/{target}"

    return LINK.sub(pointed, markdown)


def in_repository(page: str) -> str:
    """Where a page of the site lies in the repository."""
    return page.replace("results/", f"{RESULTS}/", 1) if page.startswith("results/") else f"docs/{page}"


def in_site(path: str) -> str:
    """Where a file of the repository would lie in the site."""
    if path.startswith(f"{RESULTS}/"):
        return path.replace(RESULTS, "results", 1)
    return path.removeprefix("docs/")
