"""Help: quick, in the order of work, with examples that could be typed."""

import re
import shlex
import subprocess
import sys
from importlib import metadata

import pytest
import typer

from haystack_distill.cli import app

COMMANDS = typer.main.get_command(app).commands
SLOW = {"torch", "haystack", "transformers", "sentence_transformers", "pyarrow", "matplotlib"}


def test_help_imports_nothing_slow():
    code = (
        "import sys; from haystack_distill.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not SLOW & set(done.stdout.split())


def test_commands_stand_in_the_order_of_work(command):
    code, said = command("--help")
    assert code == 0
    panels = [
        "Begin: your store and your encoder",
        "Data: what is learnt from",
        "Models: made and measured",
        "Use: what was made serves",
    ]
    assert sorted(panels, key=said.index) == panels
    assert sorted(COMMANDS, key=lambda name: said.index(f" {name} ")) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_two_examples_whose_options_exist(name, command):
    code, said = command(name, "--help")
    assert code == 0
    assert "Examples: haystack-distill" in said
    examples = re.findall(r"^ *haystack-distill (.*)$", COMMANDS[name].callback.__doc__, re.MULTILINE)
    assert len(examples) == 2
    for example in examples:
        called, *typed = shlex.split(example)
        assert called == name
        known = {
            option for parameter in COMMANDS[name].params for option in [*parameter.opts, *parameter.secondary_opts]
        }
        assert {one for one in typed if one.startswith("--")} <= known


def test_version(command):
    assert command("--version") == (0, metadata.version("haystack-distill"))
