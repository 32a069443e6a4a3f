"""Making exports: what is refused, and that the aligner and the command line make them."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from haystack_distill import KaleAligner
from haystack_distill.cli import app
from haystack_distill.evaluation.dev_set import read_dev_set, write_dev_set
from haystack_distill.serving import export as exporting
from haystack_distill.serving.export import export
from haystack_distill.serving.exports import read_export
from haystack_distill.serving.opening import open_encoder
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import cut


class TestExport:
    def test_an_export_that_loses_quality_is_refused_and_leaves_nothing(self, student, dev, monkeypatch):
        monkeypatch.setattr(exporting, "MIN_SHARE", 2.0)
        with pytest.raises(ValueError, match=r"keeps .* % of the student's dev nDCG@10"):
            export(student, "onnx", "int8", dev)
        assert not (student / "onnx-int8").exists()

    def test_an_export_that_computes_otherwise_is_refused(self, bert, dev, tmp_path, monkeypatch):
        cut(BiEncoder.load(bert, device="cpu"), (0, 1)).save(str(tmp_path / "m"), create_model_card=False)
        monkeypatch.setattr(
            exporting._Graph, "forward", lambda self, ids: self.transformer(ids).last_hidden_state[:, 0]
        )
        with pytest.raises(ValueError, match="does not compute what the student does"):
            export(tmp_path / "m", "onnx", "fp32", dev)

    def test_exports_are_never_overwritten(self, student, dev):
        with pytest.raises(FileExistsError, match="exists already"):
            export(student, "onnx", "fp32", dev)

    def test_what_has_nothing_to_export(self, student, table, dev):
        with pytest.raises(ValueError, match="token table is served with numpy"):
            export(table, "onnx", "fp32", dev)
        with pytest.raises(ValueError, match="nothing to export"):
            export(student, "torch", "fp32", dev)

    def test_a_missing_package_is_found_before_training(self, store, bert, tmp_path, monkeypatch):
        monkeypatch.setattr(exporting, "find_spec", lambda _: None)
        aligner = KaleAligner(document_store=store, teacher=bert, output=str(tmp_path / "out"), export=["onnx-int8"])
        with pytest.raises(ImportError, match=r"pip install 'haystack-distill\[export,onnx\]'"):
            aligner.run()

    def test_the_dev_set_survives_its_folder(self, dev, tmp_path):
        write_dev_set(tmp_path, dev)
        loaded = read_dev_set(tmp_path)
        assert (loaded.queries, loaded.qrels, loaded.index.ids) == (dev.queries, dev.qrels, dev.index.ids)
        np.testing.assert_allclose(loaded.index.vectors, dev.index.vectors, atol=1e-3)

    def test_the_aligner_exports(self, store, bert, tmp_path):
        output = str(tmp_path / "student")
        KaleAligner(
            document_store=store,
            teacher=bert,
            output=output,
            layers=1,
            epochs=1,
            export=["onnx-fp32"],
            progress_bar=False,
        ).run()
        made = read_export(Path(output) / "onnx-fp32")
        assert made.cosine > 0.9999
        assert set(made.check_queries) <= set(read_dev_set(Path(output)).texts)
        assert open_encoder(output).name == "onnx-fp32"

    def test_the_command_line_exports(self, bert, beir, tmp_path):
        cut(BiEncoder.load(bert, device="cpu"), (0, 1)).save(str(tmp_path / "m"), create_model_card=False)
        arguments = ["export", str(tmp_path / "m"), "--precision", "fp32"]
        without = CliRunner().invoke(app, arguments)
        assert without.exit_code == 1
        assert "no dev queries" in without.output
        done = CliRunner().invoke(app, [*arguments, "--data", str(beir)])
        assert done.exit_code == 0, done.output
        assert "100.0 % of the dev nDCG@10" in done.output
        assert re.search(r"ms a query here, one at a time, [\d.]+ times as fast as on torch", done.output)
