import pytest
from typer.testing import CliRunner

from haystack_distill.cli import app
from tests.conftest import write_beir

RUN = CliRunner()


@pytest.fixture(scope="package")
def aligned(bert, tmp_path_factory, passages):
    """One alignment through the command line, for the tests that look at what it left."""
    folder = tmp_path_factory.mktemp("cli")
    queries = {f"q{number}": passages[f"d{number}"].split(". ")[0] for number in range(20)}
    beir = write_beir(folder / "beir", passages, queries, {"test": {f"q{n}": f"d{n}" for n in range(20)}})
    output = folder / "student"
    arguments = ["align", beir, "--model", bert, "--layers", "1", "--no-queries", "--epochs", "1", "--no-progress"]
    result = RUN.invoke(app, [*map(str, arguments), "--output", str(output)])
    return beir, output, result


@pytest.fixture
def command():
    """Run a command: its exit code, and what it printed in one line."""

    def run(*arguments):
        result = RUN.invoke(app, list(map(str, arguments)))
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result.exit_code, " ".join(result.output.replace("│", " ").split())

    return run
