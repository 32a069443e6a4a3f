"""The table of losses: what is said of them elsewhere is what it says."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from haystack_distill.losses.table import ALIGNMENT, RETRIEVER, mines_negatives

ROOT = Path(__file__).parents[2]


def test_the_docs_list_the_losses_of_a_retriever():
    page = (ROOT / "docs/dkrr.md").read_text(encoding="utf-8")
    rows = page.split("| loss | what it compares |\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    default = " (default)"
    assert [row.replace(default, "") for row in rows] == [
        f"| `{loss.name}` | {loss.compares} |" for loss in RETRIEVER.values()
    ]
    assert default in rows[0]


@pytest.mark.parametrize("loss", [*RETRIEVER.values(), *ALIGNMENT.values()], ids=lambda loss: loss.name)
def test_a_loss_is_called_with_what_its_row_says(loss):
    assert tuple(inspect.signature(loss.load()).parameters) == loss.needs


def test_only_contrastive_has_negatives_mined():
    assert [name for name in RETRIEVER if mines_negatives([name])] == ["contrastive"]
    assert not mines_negatives([])
    assert mines_negatives({"listwise": 1.0, "contrastive": 0.1})


def test_the_names_are_read_without_torch():
    """The command line checks them before anything long begins."""
    code = (
        "import sys\n"
        "from haystack_distill.losses.table import ALIGNMENT, RETRIEVER\n"
        "from haystack_distill.losses.weights import checked_weights\n"
        "checked_weights({'listwise': 1}, RETRIEVER), checked_weights({'kale': 1}, ALIGNMENT)\n"
        "heavy = {'numpy', 'torch', 'sentence_transformers'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} came with it' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
