"""The house is as docs/architecture.md says: its layers hold, its picture is today's, its links lead somewhere."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_imports_point_down_and_never_in_a_circle():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_contract_sees_an_import_that_points_up(tmp_path):
    """The contract of this repository, on a house in which the ground imports a job."""
    for room in ("files", "align"):
        (tmp_path / "haystack_distill" / room).mkdir(parents=True)
        (tmp_path / "haystack_distill" / room / "__init__.py").touch()
    (tmp_path / "haystack_distill" / "__init__.py").touch()
    (tmp_path / "haystack_distill" / "files" / "__init__.py").write_text("import haystack_distill.align\n")
    layers = re.search(r"layers = \[\n.*?\n\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL).group()
    rooms = [room for room in re.findall(r"\w+", layers) if room in {"files", "align"}]
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_package = "haystack_distill"\n[[tool.importlinter.contracts]]\nid = "layers"\n'
        f'name = "layers"\ntype = "layers"\ncontainers = ["haystack_distill"]\nlayers = {rooms}\n'
    )
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "haystack_distill.files is not allowed to import haystack_distill.align" in done.stdout


def test_the_picture_is_drawn_from_todays_imports():
    drawn = runpy.run_path(str(ROOT / "docs" / "architecture.py"))
    assert drawn["picture"]() in (ROOT / "docs" / "architecture.md").read_text()


def test_few_modules_stand_at_the_root_of_the_engine():
    assert len(list((ROOT / "haystack_distill").glob("*.py"))) <= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    files = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in files if not (page.parent / link).exists()] == []
