"""What can be known beforehand is said before documents are embedded, and a failed try leaves nothing worthless."""

import json

import numpy as np
import pytest

from haystack_distill.align import proof
from haystack_distill.fusion.model import FILE, Fusion, Retriever
from haystack_distill.students.bi_encoder import BiEncoder
from tests.conftest import write_beir


@pytest.fixture
def embedded(monkeypatch):
    """How many documents are embedded at a time."""
    counts = []
    encode = BiEncoder.encode_documents

    def counted(self, texts, **settings):
        counts.append(len(texts))
        return encode(self, texts, **settings)

    monkeypatch.setattr(BiEncoder, "encode_documents", counted)
    return counts


def hidden(folder):
    return sorted(path.name for path in folder.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "mes=1"], "The loss 'mes' is not known: use mse, cosine, index_ranking, kale."),
        (["--loss", "mse"], "is not of the form name=weight"),
        (["--layers", "9"], "layers=9 does not fit: the encoder has 6 layers"),
        (["--layers", "-1"], "layers=-1 does not fit: the encoder has 6 layers"),
        (["--keep", "0,9"], "keep=[0, 9] does not fit: the encoder has the layers 0 to 5"),
        (["--keep", "kale", "--layers", "5"], 'keep="kale" has no map from 6 to 5 layers'),
        (["--update", "models/table", "--layers", "2"], "models/table stays what it is, a table or so many layers"),
        (["--update", "models/nothing"], "models/nothing is no folder here"),
        (["--student", "org/other", "--layers", "2"], "All layers of the student org/other stay: leave `layers`"),
        (["--export", "onx-int8"], "'onx-int8' is not one of 'onnx-fp32', 'onnx-int8'"),
        (["--export", "onnx-int8", "--layers", "0"], "A token table is served with numpy as it is"),
    ],
)
def test_align_knows_its_settings_first(arguments, message, beir, bert, embedded, command, tmp_path):
    code, said = command("align", beir, "--model", bert, "--output", tmp_path / "o", *arguments)
    assert code
    assert message in said
    assert embedded == []
    assert hidden(tmp_path) == []


def test_a_package_that_an_export_needs(beir, bert, embedded, command, tmp_path, monkeypatch):
    monkeypatch.setattr("haystack_distill.serving.export.find_spec", lambda _: None)
    code, said = command("align", beir, "--model", bert, "--output", tmp_path / "o", "--export", "onnx-int8")
    assert code == 1
    assert "needs onnx: pip install 'haystack-distill[export,onnx]'" in said
    assert (embedded, hidden(tmp_path)) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "foo=1"], "The loss 'foo' is not known: use listwise, kl"),
        (["--update", "sideways"], "'sideways' is not one of 'query', 'both'"),
        (["--signal", "qestion"], "'qestion' is not one of '"),
        (["--dtype", "flaot"], "'flaot' is not one of 'float32', 'bfloat16'"),
        (["--batch-size", "31"], "has 30 train queries, less than one batch of 31: give a smaller --batch-size"),
        (["--student", "models/nothing", "--batch-size", "8"], "models/nothing is no folder here"),
        (["--reader", "models/nothing", "--batch-size", "8"], "The reader models/nothing could not be loaded"),
    ],
)
def test_distill_knows_its_settings_first(arguments, message, beir, bert, embedded, command, tmp_path):
    code, said = command("distill", beir, "--model", bert, "--output", tmp_path / "o", *arguments)
    assert code
    assert message in said
    assert embedded == []
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--signal", "atention"], "'atention' is not one of '"),
        (["--split", "tarin"], "has no qrels/tarin.tsv: name one of its splits, dev, test, train."),
        ([], "The reader models/nothing could not be loaded"),
    ],
)
def test_label_knows_its_settings_first(arguments, message, beir, bert, embedded, command, tmp_path):
    common = ["--reader", "models/nothing", "--model", bert, "--output", tmp_path / "o"]
    code, said = command("label", beir, *common, *arguments)
    assert code
    assert message in said
    assert (embedded, hidden(tmp_path)) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--student", "models/nothing"], "The student models/nothing is no sentence-transformers model"),
        (["--split", "tset"], "has no qrels/tset.tsv: name one of its splits, dev, test, train."),
        (["--fusion", "models/nothing"], "models/nothing holds no fitted fusion (no fusion.json in it)"),
        (["--fusion", "others"], "The fusion others was fitted for words, dense, and here an encoder is joined with"),
    ],
)
def test_evaluate_knows_its_settings_first(arguments, message, aligned, beir, bert, embedded, command, place, tmp_path):
    (place / "others").mkdir()
    retrievers = tuple(Retriever(name, 0.5, True, (1.0, 1.0), (0.0, 1.0), 0.0, 1.0) for name in ("words", "dense"))
    (place / "others" / FILE).write_text(json.dumps(Fusion("rank", 100, retrievers).content()))
    common = ["--model", bert, "--student", aligned[1], "--output", tmp_path / "e"]
    code, said = command("evaluate", beir, *common, *arguments)
    assert code == 1
    assert message in said
    assert (embedded, hidden(tmp_path)) == ([], [])


def test_judgments_are_read_first(passages, bert, embedded, command, tmp_path):
    beir = write_beir(tmp_path / "beir", passages, {"q": "a river"}, {"test": {"q": "d999"}})
    code, said = command("align", beir, "--model", bert, "--output", tmp_path / "o")
    assert code == 1
    assert "the document 'd999' is judged but is not in the folder" in said
    assert (embedded, hidden(tmp_path)) == ([], [])


def test_what_a_stopped_command_computed_serves_the_next_one(beir, bert, embedded, command, tmp_path, monkeypatch):
    """Its output is called as if it were markup of the terminal, which changes nothing."""
    output = tmp_path / "[red]x" / "[" / "blue]"
    output.parent.mkdir(parents=True)
    arguments = ["align", beir, "--model", bert, "--layers", "0", "--epochs", "1", "--output", output, "--no-progress"]

    def stopped(*_, **__):
        raise KeyboardInterrupt

    def failed(*_, **__):
        msg = "it [/red] failed"
        raise ValueError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(proof, "align_and_prove", stopped)
        assert command(*arguments) == (130, "Stopped. The same command goes on where it was.")
        assert hidden(output.parent) == [".blue].index.run"], "the copy of the index serves no further try"
        patch.setattr(proof, "align_and_prove", failed)
        code, said = command(*arguments)
        assert code == 1
        assert said.startswith("Error: it [/red] failed What was computed is kept in ")
    code, said = command(*arguments)
    assert code == 0
    assert f"Model, metrics.json and report.html are in {output}" in said
    assert [count for count in embedded if count == 60] == [60], "all documents are embedded once in three tries"
    assert hidden(output.parent) == []
    np.testing.assert_equal(json.loads((output / "metrics.json").read_text())["queries"], 20)


def test_the_folder_of_another_process_is_left_alone(beir, bert, command, tmp_path, monkeypatch):
    def busy(*_, **__):
        msg = "Another process works on it."
        raise BlockingIOError(msg)

    (tmp_path / ".o.run" / "index").mkdir(parents=True)
    (tmp_path / ".o.run" / "index" / "vectors.f32").touch()
    monkeypatch.setattr("haystack_integrations.components.distill.kale_aligner.KaleAligner.run", busy)
    assert command("align", beir, "--model", bert, "--output", tmp_path / "o") == (
        1,
        "Error: Another process works on it.",
    )
    assert (tmp_path / ".o.run" / "index" / "vectors.f32").is_file()
