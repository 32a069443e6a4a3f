"""Every notebook of the cookbook runs from its first cell to its last, on real models, in an empty folder."""

import ast
import asyncio
import json
from pathlib import Path

import pytest

COOKBOOK = Path(__file__).parents[2] / "docs" / "cookbook"
NOTEBOOKS = sorted(COOKBOOK.glob("*.ipynb"))


def cells_of(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.usefixtures("named_on_the_hub")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs(notebook, request):
    cells = cells_of(notebook)
    if "SmolLM2" in "".join(cells):
        request.getfixturevalue("generator_on_the_hub")

    async def run() -> None:
        # A notebook's cells run while its kernel's event loop does.
        names: dict[str, object] = {}
        for number, cell in enumerate(cells):
            exec(compile(cell, f"{notebook.name}, cell {number}", "exec"), names)  # noqa: S102

    asyncio.run(run())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_is_kept_without_what_it_printed(notebook):
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            ast.parse("".join(cell["source"]))  # no magics: it runs anywhere
