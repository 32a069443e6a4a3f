"""The record beside an export, and changes to it."""

import json
from pathlib import Path


def edit_manifest(folder: Path, **changes) -> None:
    content = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps({**content, **changes}))


def read_files(student: Path) -> dict[str, str]:
    return json.loads((student / "onnx-fp32" / "export.json").read_text())["files"]
