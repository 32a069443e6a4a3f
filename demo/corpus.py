"""The documentation that every Python already has, language reference and docstrings, as (source, text) pairs."""

import ast
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from pydoc_data import topics

MIN_WORDS = 25
"""Shorter docstrings say little more than the name they document."""

INSTALLED = ("typer",)
"""Installed packages, dependencies of this project, whose docstrings join the corpus."""

MODULES = """
    argparse ast asyncio base64 bisect calendar cmd collections concurrent configparser contextlib copy csv
    dataclasses datetime difflib email enum fileinput functools glob graphlib hashlib heapq http inspect io
    ipaddress json logging multiprocessing operator os pathlib pdb pickle queue random re shelve shutil smtplib
    socket statistics subprocess tempfile textwrap threading time timeit traceback types typing unittest urllib
    uuid weakref xml zipfile
""".split()
"""Well-known modules of the standard library, in every Python from 3.11 on."""


def python_documentation() -> list[tuple[str, str]]:
    """
    Collect the corpus of the demo from this Python and its installed packages. No module is imported to be read.

    :returns: One pair a document: where it comes from (`topics/with`, `argparse.ArgumentParser`) and its text.
    """
    documents = [(f"topics/{name}", text) for name, text in sorted(topics.topics.items())]
    documents += _builtin_docstrings()
    standard_library = Path(sysconfig.get_path("stdlib"))
    for module in MODULES:
        documents += _docstrings_of(standard_library, module)
    for package in INSTALLED:
        documents += _docstrings_of(Path(str(metadata.distribution(package).locate_file(""))), package)
    once = {text: source for source, text in reversed(documents)}
    return [(source, text) for text, source in reversed(once.items())]


def _builtin_docstrings() -> Iterator[tuple[str, str]]:
    """The docstrings of what is written in C: the built-in types with their methods, and the built-in functions."""
    import builtins
    import inspect

    for name, thing in sorted(vars(builtins).items()):
        if name.startswith("_") or (inspect.isclass(thing) and issubclass(thing, BaseException)):
            continue
        yield from _long_enough(name, inspect.getdoc(thing))
        if inspect.isclass(thing):
            for method, function in sorted(vars(thing).items()):
                if not method.startswith("_") and callable(function):
                    yield from _long_enough(f"{name}.{method}", inspect.getdoc(function))


def _docstrings_of(folder: Path, module: str) -> Iterator[tuple[str, str]]:
    package = folder / module
    files = sorted(package.rglob("*.py")) if package.is_dir() else [folder / f"{module}.py"]
    for file in files:
        relative = file.relative_to(folder)
        if file.exists() and not any(part in {"tests", "test"} or part.startswith("_") for part in relative.parts[:-1]):
            dotted = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            try:
                tree = ast.parse(file.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):  # templates and test fixtures live among the sources
                continue
            yield from _walk(tree, dotted)


def _walk(node: ast.AST, dotted: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield from _long_enough(dotted, ast.get_docstring(node))
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith(
                "_"
            ):
                yield from _walk(child, f"{dotted}.{child.name}")


def _long_enough(source: str, text: str | None) -> Iterator[tuple[str, str]]:
    if text and len(text.split()) >= MIN_WORDS:
        yield source, text
