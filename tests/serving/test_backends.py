"""The table of backends: what is said of them elsewhere is what it says."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from haystack_distill.serving.backends import BACKENDS, EXPORTS, TABLE, export_name, split_name

ROOT = Path(__file__).parents[2]


def test_the_docs_list_the_backends():
    """A row for each backend of the table, in its order, and one for token tables."""
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    rows = page[page.index("| `onnx` |") :].split("\n\n")[0].splitlines()
    expected = []
    for row in [*BACKENDS.values(), TABLE]:
        name = "token table" if row is TABLE else f"`{row.name}`"
        extra = "" if row is TABLE else f"[{row.name if row.package else 'train'}]"
        needs = f"`haystack-distill{extra}`"
        expected.append(f"| {name} | {', '.join(row.precisions)} | {row.how} | {needs} |")
    assert rows == expected


def test_every_backend_with_a_package_has_an_extra_that_installs_it():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for row in BACKENDS.values():
        if row.package:
            assert any(wanted.startswith(row.package) for wanted in extras[row.name])


def test_names_are_taken_apart_as_they_are_put_together():
    names = [name for row in BACKENDS.values() for name in row.names]
    assert [export_name(*split_name(name)) for name in names] == names
    assert EXPORTS == [name for name in names if name != "torch-fp32"]
    for wrong in ("onnx", "onnx-fp16", "tensorrt-fp32", "table-fp32", "auto-fp32"):
        with pytest.raises(ValueError, match=r"There is no backend .* with precision .*: choose one of onnx-fp32, "):
            split_name(wrong)


def test_the_table_is_read_without_any_runtime():
    """The command line and the components read it at their start."""
    code = (
        "import sys\n"
        "import haystack_distill.serving.backends\n"
        "heavy = {'numpy', 'torch', 'onnx', 'onnxruntime', 'openvino', 'tokenizers', 'haystack'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} came with it' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
