"""JSON and YAML from outside, against the shape that they must have: a refusal names file, line and field."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError

PLAIN = re.compile(r"[\w-]{1,40}")
HALVES = "hex escape"
"""What the parser says of half an emoji, which no file that is UTF-8 can hold but as an escape."""


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Id = Annotated[str, BeforeValidator(_as_text)]
"""A text; numbers are read as they are written."""


def checked(content: str | bytes, shape: Any, before: str, after: str = ".") -> Any:
    """
    Read JSON of a shape.

    Brackets without end, numbers without end and half an emoji are refused as what is no JSON.

    :param shape: What it must be, as `pydantic` takes it: a type, a dataclass, a `TypedDict`.
    :param before: What to say before the reason if it is not: file, line and what was expected.
    :param after: What to say after the reason: the way out.
    :raises ValueError: If it is not of this shape.
    """
    try:
        return _adapter(shape).validate_json(content, strict=True)
    except ValidationError as error:
        msg = f"{before} ({_reason(error, content)}){after}"
        raise ValueError(msg) from error


def shaped(values: Any, shape: Any, before: str, after: str = ".") -> Any:
    """Give values that were read from something else than JSON a shape, see `checked`."""
    try:
        return _adapter(shape).validate_python(values, strict=False)
    except ValidationError as error:
        msg = f"{before} ({_reason(error)}){after}"
        raise ValueError(msg) from error


def read_json(file: Path, shape: Any, way_out: str) -> Any:
    """
    Read a file of JSON, see `checked`.

    :param way_out: What to do if it is not of this shape.
    :raises FileNotFoundError: If it is missing.
    :raises ValueError: If it is not of this shape.
    """
    return checked(file.read_bytes(), shape, f"{file} is damaged", f": {way_out}")


def read_yaml(file: Path) -> Any:
    """
    Read a file of YAML, which makes plain values of it and never objects.

    :raises FileNotFoundError: If it is missing.
    :raises ValueError: If it is no YAML, or not UTF-8.
    """
    import yaml

    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError) as error:
        msg = f"{file} is not YAML: {' '.join(str(error).split())}"
        raise ValueError(msg) from error


def read_tensors(file: Path, way_out: str) -> dict[str, Any]:
    """
    Read a safetensors file, see `read_json`.

    :returns: Name -> array.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except (SafetensorError, ValueError, KeyError) as error:
        msg = f"{file} is damaged ({error}): {way_out}"
        raise ValueError(msg) from error


def refuse_halves(text: str, whose: str) -> None:
    """
    Refuse half an emoji before it is written.

    :param whose: What the text is, to begin the message with.
    :raises ValueError: If the text holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = (
            f"{whose} holds half a character ({text[error.start]!r}, a lone surrogate), which UTF-8 can't write: write "
            "it again without it."
        )
        raise ValueError(msg) from error


@lru_cache
def _adapter(shape: Any) -> TypeAdapter[Any]:
    return TypeAdapter(shape)


def _reason(error: ValidationError, content: str | bytes = "") -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        fault = first["msg"].removeprefix("Invalid JSON: ").replace("line 1 column", "column")
        start = content[:3] if isinstance(content, bytes) else content[:1].encode("utf-8", "replace")
        if start == b"\xef\xbb\xbf":
            return "it begins with a BOM: save it as UTF-8 without one"
        return f"half a character, a lone surrogate: {fault}" if HALVES in fault else fault
    field = ".".join(part if PLAIN.fullmatch(part) else _short(part) for part in map(str, first["loc"]))
    fault = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] == "missing":
        return f"{field} is missing"
    shown = _short(first["input"])
    return f"{field}: {fault}, not {shown}" if field else f"{fault}, not {shown}"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."
