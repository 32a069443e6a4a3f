"""What can't be served is named, with the way out."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.utils import ComponentDevice
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from haystack_distill import DistilledRetriever, KaleQueryEncoder
from haystack_distill.serving.exports import digest
from haystack_distill.serving.opening import open_encoder
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import cut
from tests.serving.conftest import edit_manifest, read_files


class TestRefusals:
    def test_a_damaged_export(self, student):
        graph = student / "onnx-fp32" / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:-100])
        for backend in ("onnx", "auto"):
            with pytest.raises(ValueError, match=r"model.onnx is damaged .* export` again"):
                open_encoder(student, backend)

    def test_an_export_of_other_weights(self, student, make_encoder):
        other = cut(BiEncoder.load(make_encoder("bert", seed=5), device="cpu"), (0, 1))
        other.save(str(student), create_model_card=False)
        with pytest.raises(ValueError, match="exported from other weights"):
            open_encoder(student, "onnx")

    def test_an_export_of_another_version(self, student):
        edit_manifest(student / "onnx-fp32", format=99)
        with pytest.raises(ValueError, match=r"another version of haystack-distill \(format 99\)"):
            open_encoder(student, "onnx")

    def test_an_opset_from_the_future(self, student):
        file = student / "onnx-fp32" / "model.onnx"
        graph = onnx.load(str(file))
        graph.opset_import[0].version = 9999
        onnx.save(graph, str(file))
        edit_manifest(student / "onnx-fp32", files={**read_files(student), "model.onnx": digest(file)})
        with pytest.raises(ValueError, match=r"ONNX Runtime .* can't run .*opset.* export again"):
            open_encoder(student, "onnx")

    def test_a_graph_that_openvino_cannot_read(self, student):
        file = student / "onnx-fp32" / "model.onnx"
        file.write_bytes(b"no graph")
        files = {**read_files(student), "model.onnx": digest(file)}
        edit_manifest(student / "onnx-fp32", backend="openvino", files=files)
        with pytest.raises(ValueError, match=r"OpenVINO .* can't run .* export again"):
            open_encoder(student / "onnx-fp32")

    def test_an_export_that_is_not_there(self, student):
        with pytest.raises(FileNotFoundError, match="--backend openvino --precision int8"):
            open_encoder(student, "openvino", "int8")

    @pytest.mark.parametrize(("backend", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
    def test_a_package_that_is_not_there(self, student, backend, module, monkeypatch):
        edit_manifest(student / "onnx-fp32", backend=backend)
        (student / "onnx-fp32").rename(student / f"{backend}-fp32")
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"pip install 'haystack-distill\[{backend}\]'"):
            open_encoder(student, backend)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"backend": "tensorrt"}, "no backend 'tensorrt'"),
            ({"backend": "onnx", "precision": "fp8"}, "precision 'fp8'"),
            ({"precision": "fp8"}, "precision 'fp8'"),
            ({"threads": 0}, "at least 1"),
            ({"backend": "onnx", "device": ComponentDevice.from_str("cuda:0")}, "onnx backend runs on the CPU"),
        ],
    )
    def test_settings_that_do_not_fit(self, student, arguments, message):
        with pytest.raises(ValueError, match=message):
            KaleQueryEncoder(str(student), **arguments).warm_up()

    def test_a_query_without_tokens(self, minilm, tmp_path):
        tokenizer = Tokenizer.from_file(str(Path(minilm) / "tokenizer.json"))
        table = StaticEmbedding(tokenizer, embedding_weights=np.ones((tokenizer.get_vocab_size(), 4), np.float32))
        SentenceTransformer(modules=[table]).save(str(tmp_path / "table"), create_model_card=False)
        with pytest.raises(ValueError, match="no token that the encoder knows"):
            KaleQueryEncoder(str(tmp_path / "table")).run(text="\u200b")

    def test_an_empty_batch(self, table):
        with pytest.raises(ValueError, match="no queries"):
            KaleQueryEncoder(str(table)).run_batch([])
        with pytest.raises(ValueError, match="query is empty"):
            KaleQueryEncoder(str(table)).run_batch(["river", " "])


def test_damaged_records_are_named(student, store):
    (student / "onnx-fp32" / "export.json").write_text('{"format": ')
    with pytest.raises(ValueError, match=r"export\.json is damaged .*export. again"):
        open_encoder(str(student), "onnx")
    (student / "haystack_distill.json").write_text("[]")
    served = DistilledRetriever(
        retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder(model=str(student), backend="torch")
    )
    with pytest.raises(ValueError, match=r"haystack_distill\.json is damaged"):
        served.warm_up()
