"""`--json`: one JSON document on stdout, and nothing else there."""

import json

import pytest
import typer
from typer.testing import CliRunner

from haystack_distill.cli import app
from haystack_distill.cli.machines import Failed, with_json

RUN = CliRunner()


def test_every_command_has_it():
    for command in typer.main.get_command(app).commands.values():
        assert [name for parameter in command.params for name in parameter.opts if name == "--json"] == ["--json"]


def test_align_for_a_machine(beir, bert, tmp_path):
    arguments = [
        "align",
        beir,
        "--model",
        bert,
        "--layers",
        "0",
        "--fit",
        "ridge",
        "--output",
        tmp_path / "t",
        "--json",
    ]
    result = RUN.invoke(app, [*map(str, arguments), "--no-progress"])
    assert json.loads(result.stdout) == json.loads((tmp_path / "t" / "metrics.json").read_text())
    assert "of the teacher's nDCG@10" in result.stderr


def test_a_result_that_is_not_what_was_hoped_for():
    shell = typer.Typer()

    @shell.command()
    @with_json
    def command() -> dict[str, int]:
        raise Failed({"found": 0})

    result = RUN.invoke(shell, ["--json"])
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"found": 0})
    assert RUN.invoke(shell, []).stdout == ""


@pytest.mark.parametrize("wanted", [True, False])
def test_people_read_stdout_unless_a_machine_does(wanted, beir, bert, table, tmp_path):
    arguments = ["evaluate", beir, "--model", bert, "--student", table, "--output", tmp_path / "e"]
    result = RUN.invoke(app, [*map(str, arguments), *(["--json"] if wanted else [])])
    assert ("metrics.json and report.html are in" in result.stdout) is not wanted
