"""Exported encoders and token tables: the same vectors as sentence-transformers makes, alone and under load."""

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from haystack import Pipeline
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from haystack_distill import KaleQueryEncoder
from haystack_distill.evaluation.comparison import student_system
from haystack_distill.evaluation.dev_set import DevSet, dev_set_of_texts, write_dev_set
from haystack_distill.serving import opening
from haystack_distill.serving.backends import BACKENDS, EXPORTS
from haystack_distill.serving.encoder import Encoder, forgiving
from haystack_distill.serving.export import export
from haystack_distill.serving.exports import digest, read_export
from haystack_distill.serving.opening import open_encoder
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import cut
from tests.conftest import FAMILIES, sentences
from tests.serving.conftest import edit_manifest, read_files

QUERIES = ["river", "the stone bridge", "winter market garden letter?", "engine doctor harbour " * 40]


@pytest.fixture(scope="module")
def real(minilm, tmp_path_factory) -> tuple[Path, DevSet]:
    """MiniLM cut to two layers, with every export beside it."""
    teacher = BiEncoder.load(minilm, device="cpu")
    folder = tmp_path_factory.mktemp("real") / "student"
    cut(teacher, (0, 5)).save(str(folder), create_model_card=False)
    texts = [text for topic in topics.values() for text in topic.split("\n\n")][:400]
    dev = dev_set_of_texts(texts, BiEncoder.load(str(folder), device="cpu"))
    write_dev_set(folder, dev)
    for name in EXPORTS:
        export(folder, *name.split("-"), dev)
    return folder, dev


@pytest.fixture(scope="module")
def words_table(minilm, tmp_path_factory) -> str:
    """A table with MiniLM's tokenizer and window, and rows of chance."""
    tokenizer = Tokenizer.from_file(str(Path(minilm) / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    rows = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 8)).astype(np.float32)
    folder = str(tmp_path_factory.mktemp("words") / "table")
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=rows)]).save(folder)
    return folder


class TestSameVectors:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_family_on_onnx(self, make_encoder, family, dev, tmp_path):
        teacher = BiEncoder.load(make_encoder(family), device="cpu", query_prefix="query: ")
        cut(teacher, (0, 1)).save(str(tmp_path / "student"), create_model_card=False)
        export(tmp_path / "student", "onnx", "fp32", dev)
        expected = SentenceTransformer(str(tmp_path / "student"), device="cpu").encode(QUERIES)
        encoder = open_encoder(tmp_path / "student", "onnx")
        np.testing.assert_allclose(encoder.encode_batch(QUERIES), expected, atol=1e-4)
        np.testing.assert_allclose(np.stack([encoder.encode(query) for query in QUERIES]), expected, atol=1e-4)

    def test_a_plain_encoder_is_asked_with_its_prompt_for_queries(self, bert, dev, tmp_path):
        """As it is when it teaches and when it is judged; plain `encode` leaves such a prompt out."""
        model = SentenceTransformer(bert, device="cpu")
        model.prompts, model.default_prompt_name = {"query": "river stone: ", "document": "winter: "}, None
        model.save(str(tmp_path / "plain"), create_model_card=False)
        export(tmp_path / "plain", "onnx", "fp32", dev)
        expected = BiEncoder.load(str(tmp_path / "plain"), device="cpu").encode_queries(QUERIES)
        assert not np.allclose(model.encode(QUERIES), expected, atol=1e-2)
        for backend in ("torch", "onnx"):
            found = open_encoder(tmp_path / "plain", backend, device="cpu").encode_batch(QUERIES)
            np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_allclose(student_system("plain", model).encode(QUERIES), expected, atol=1e-4)

    @pytest.mark.parametrize("pooling", ["cls", "lasttoken"])
    def test_other_poolings_and_cut_dimensions(self, make_encoder, pooling, passages, tmp_path):
        name = make_encoder("bert", pooling=pooling, normalize=False)
        teacher = BiEncoder.load(name, device="cpu", dim=16, normalize=True)
        cut(teacher, (0, 1)).save(str(tmp_path / "student"), create_model_card=False)
        student = BiEncoder.load(str(tmp_path / "student"), device="cpu")
        export(tmp_path / "student", "onnx", "fp32", dev_set_of_texts(list(passages.values()), student))
        vectors = open_encoder(tmp_path / "student", "onnx").encode_batch(QUERIES)
        assert vectors.shape == (4, 16)
        np.testing.assert_allclose(vectors, student.encode_queries(QUERIES), atol=1e-4)

    @pytest.mark.parametrize(
        ("backend", "precision"), [name.split("-") for backend in BACKENDS.values() for name in backend.names]
    )
    def test_every_backend_on_a_real_model(self, real, backend, precision):
        folder, _ = real
        tolerance = 0.05 if precision == "int8" else 1e-6 if backend == "torch" else 1e-4
        expected = SentenceTransformer(str(folder), device="cpu").encode(QUERIES)
        encoder = KaleQueryEncoder(str(folder), backend=backend, precision=precision)
        alone = [encoder.run(text=query)["embedding"] for query in QUERIES]
        np.testing.assert_allclose(alone, expected, atol=tolerance)
        np.testing.assert_allclose(encoder.run_batch(QUERIES)["embeddings"], alone, atol=1e-6)
        if precision == "int8":
            assert read_export(folder / f"{backend}-int8").share >= 0.99
            assert np.abs(np.array(alone) - expected).max() > 1e-5  # it really is another precision

    def test_a_table_needs_no_torch_and_no_export(self, table):
        expected = SentenceTransformer(str(table), device="cpu").encode(QUERIES)
        encoder = KaleQueryEncoder(str(table))
        np.testing.assert_allclose([encoder.run(text=query)["embedding"] for query in QUERIES], expected, atol=1e-6)
        np.testing.assert_allclose(encoder.run_batch(QUERIES)["embeddings"], expected, atol=1e-6)

    def test_an_export_is_served_without_its_model(self, student, tmp_path):
        alone = tmp_path / "alone"
        os.rename(student / "onnx-fp32", alone)
        vector = KaleQueryEncoder(str(alone)).run(text="river")["embedding"]
        np.testing.assert_allclose(vector, SentenceTransformer(str(student), device="cpu").encode("river"), atol=1e-4)
        with pytest.raises(ValueError, match="leave `backend` and `precision` out"):
            open_encoder(alone, "openvino")


class TestAuto:
    def test_the_fastest_is_taken_and_the_log_says_so(self, real, caplog):
        folder, _ = real
        with caplog.at_level("INFO"):
            encoder = open_encoder(folder)
        timed = [name for backend in BACKENDS.values() if backend.open_graph for name in backend.names]
        assert encoder.name in timed
        assert f"served by {encoder.name}, the fastest here" in caplog.text
        assert all(f"{name} " in caplog.text for name in timed)

    def test_precision_narrows_the_choice(self, real):
        assert open_encoder(real[0], precision="fp32").name in {"onnx-fp32", "openvino-fp32"}

    def test_without_exports_torch_serves(self, bert, caplog):
        with caplog.at_level("INFO"):
            assert open_encoder(bert).name == "torch-fp32"
        assert "no export beside it can be used" in caplog.text

    def test_an_export_that_computes_otherwise_here_is_left_out(self, student, caplog):
        vectors = np.load(student / "onnx-fp32" / "check.npy")
        np.save(student / "onnx-fp32" / "check.npy", vectors[::-1])
        files = {**read_files(student), "check.npy": digest(student / "onnx-fp32" / "check.npy")}
        edit_manifest(student / "onnx-fp32", files=files)
        assert open_encoder(student).name == "torch-fp32"
        assert "differ from full precision" in caplog.text

    def test_an_export_without_its_package_is_left_out(self, student, caplog, monkeypatch):
        monkeypatch.setattr(opening, "find_spec", lambda _: None)
        assert open_encoder(student).name == "torch-fp32"
        assert "onnxruntime is not installed" in caplog.text


LONG = [
    " ".join(text for topic in topics.values() for text in topic.split())[:200_000],  # more than any window
    *(" ".join(["the stone bridge"] * words) for words in (84, 85, 86, 300)),  # around 256 tokens, with special ones
    "unseen " + "x" * 5_000 + " after a word that no tokenizer knows",
    "river" + " " * 4_000 + "bridge",
    "\U0001f600" * 4_000,
]
"""Within 32 letters a token of MiniLM's window: what is cut off is not read by sentence-transformers either."""


class TestLongAndBrokenQueries:
    @pytest.mark.parametrize(
        ("backend", "precision"), [name.split("-") for backend in BACKENDS.values() for name in backend.names]
    )
    def test_long_queries_are_what_sentence_transformers_makes_of_them(self, real, backend, precision):
        encoder = open_encoder(real[0], backend, precision)
        expected = SentenceTransformer(str(real[0]), device="cpu").encode(LONG)
        found = np.stack([encoder.encode(text) for text in LONG])
        if precision == "fp32":
            np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.sum(found * expected, axis=1).min() > 0.98
        np.testing.assert_allclose(encoder.encode_batch(LONG), found, atol=1e-4)

    def test_long_queries_to_a_table(self, words_table):
        expected = SentenceTransformer(words_table, device="cpu").encode(LONG)
        encoder = open_encoder(words_table)
        np.testing.assert_allclose([encoder.encode(text) for text in LONG], expected, atol=1e-5)
        np.testing.assert_allclose(encoder.encode_batch(LONG), expected, atol=1e-5)

    @pytest.mark.parametrize(("window", "letters"), [(256, 8_192), (512, 16_384)])
    @pytest.mark.parametrize("letter", ["x", "\U0001f600", "\u4e2d", " "])
    def test_no_tokenizer_sees_more_than_the_window_can_hold(self, letter, window, letters):
        """Three million letters held up every other query for seconds."""
        seen = []

        def encode(text):
            seen.append(len(text))
            return np.zeros(1)

        encoder = forgiving(Encoder("any", encode, lambda texts: np.stack([encode(text) for text in texts]), window))
        encoder.encode(letter * 3_000_000)
        encoder.encode_batch([letter * 3_000_000, "short"])
        assert seen == [letters, letters, 5]

    @pytest.mark.parametrize("name", ["onnx-fp32", "torch-fp32", "table"])
    def test_half_an_emoji_is_a_letter_that_nobody_knows(self, name, real, words_table):
        """`json.loads` gives it for the text that a client cut between the two halves."""
        half, whole = json.loads(r'["the stone bridge \ud83d", "the \ud83d\ude00 bridge"]')
        encoder = open_encoder(words_table) if name == "table" else open_encoder(real[0], *name.split("-"))
        reference = SentenceTransformer(words_table if name == "table" else str(real[0]), device="cpu")
        expected = reference.encode(["the stone bridge \ufffd", "the \U0001f600 bridge"])
        np.testing.assert_allclose([encoder.encode(half), encoder.encode(whole)], expected, atol=1e-4)
        np.testing.assert_allclose(encoder.encode_batch([half, whole]), expected, atol=1e-4)
        np.testing.assert_allclose(encoder.encode("the \ud83d" + "\ude00 bridge"), expected[1], atol=1e-4)


class TestServing:
    def test_onnx_loads_without_torch(self, real):
        """In a process where torch and its like can't be imported."""
        code = (
            "import sys\n"
            "for name in ('torch', 'transformers', 'sentence_transformers', 'scipy'): sys.modules[name] = None\n"
            "from haystack_distill import KaleQueryEncoder\n"
            f"print(len(KaleQueryEncoder({str(real[0])!r}, backend='onnx').run(text='river')['embedding']))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "384", done.stderr

    def test_openvino_does_not_report_to_its_maker(self, real):
        code = (
            "import sys\n"
            "from haystack_distill import KaleQueryEncoder\n"
            f"KaleQueryEncoder({str(real[0])!r}, backend='openvino').warm_up()\n"
            "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules\n"
            "print(sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub", done.stderr

    @pytest.mark.parametrize("name", ["onnx-int8", "openvino-fp32", "torch-fp32"])
    def test_a_fork_after_warm_up(self, real, name):
        code = (
            "import os, sys, numpy as np\n"
            "from haystack_distill import KaleQueryEncoder\n"
            f"backend, precision = {name.split('-')!r}\n"
            f"encoder = KaleQueryEncoder({str(real[0])!r}, backend=backend, precision=precision, threads=2)\n"
            "before = encoder.run(text='the stone bridge')['embedding']\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    after = encoder.run(text='the stone bridge')['embedding']\n"
            "    sys.exit(0 if np.allclose(before, after, atol=1e-3) else 1)\n"
            "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

    def test_a_fork_while_another_thread_loads(self, table):
        """The lock that the other thread holds is never given back in the child, which would wait for ever."""
        code = (
            "import os, signal, sys\n"
            "from haystack_distill import KaleQueryEncoder\n"
            f"encoder = KaleQueryEncoder({str(table)!r})\n"
            "encoder._lock.acquire()\n"
            "child = os.fork()\n"
            "if child == 0:\n"
            "    signal.alarm(60)\n"
            "    encoder.run(text='the stone bridge')\n"
            "    os._exit(0)\n"
            "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("name", ["onnx-int8", "openvino-fp32"])
    def test_many_threads_at_once(self, real, name):
        backend, precision = name.split("-")
        encoder = KaleQueryEncoder(str(real[0]), backend=backend, precision=precision)
        queries = sentences(20, seed=9)
        expected = [encoder.run(text=query)["embedding"] for query in queries]
        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(lambda query: encoder.run(text=query)["embedding"], queries * 20))
        np.testing.assert_allclose(found, expected * 20, atol=1e-6)

    async def test_thousands_of_concurrent_queries(self, student):
        encoder = KaleQueryEncoder(str(student), backend="onnx")
        queries = sentences(50, seed=9)
        found = await asyncio.gather(*(encoder.run_async(text=query) for query in queries * 60))
        expected = encoder.run_batch(queries)["embeddings"]
        np.testing.assert_allclose([one["embedding"] for one in found], expected * 60, atol=1e-5)

    def test_texts_of_a_hundred_thousand_characters(self, real, table):
        long = "engine doctor harbour lantern " * 4000
        for encoder in (KaleQueryEncoder(str(real[0]), backend="onnx"), KaleQueryEncoder(str(table))):
            vector = encoder.run(text=long)["embedding"]
            np.testing.assert_allclose(vector, encoder.run(text=long[:20_000])["embedding"], atol=1e-5)

    def test_close_lets_go_of_the_model(self, student):
        encoder = KaleQueryEncoder(str(student), backend="onnx")
        encoder.warm_up()
        loaded = weakref.ref(encoder._loaded[1].encode)
        encoder.close()
        gc.collect()
        assert loaded() is None

    def test_the_cache_is_bounded_and_keeps_its_vectors(self, student):
        encoder = KaleQueryEncoder(str(student), backend="onnx", cache_size=2)
        first = encoder.run(text="river")["embedding"]
        before = list(first)
        first[0] = 99.0
        assert encoder.run(text="river")["embedding"] == before
        for query in ("stone", "winter", "market"):
            encoder.run(text=query)
        assert encoder._loaded[1].encode.cache_info().currsize == 2
        assert encoder._loaded[1].encode.cache_info().hits == 1

    def test_yaml_round_trip(self, student):
        pipeline = Pipeline()
        settings = {"backend": "onnx", "precision": "fp32", "threads": 2, "cache_size": 10}
        pipeline.add_component("encoder", KaleQueryEncoder(str(student), **settings))
        loaded = Pipeline.loads(pipeline.dumps())
        assert loaded.to_dict() == pipeline.to_dict()
        assert len(loaded.run({"encoder": {"text": "river"}})["encoder"]["embedding"]) == 32


def test_a_runtime_that_cannot_be_imported_is_left_out(student, caplog, monkeypatch):
    """It is installed, and a library of the system is missing: torch serves, and the log says why."""

    def broken(*_):
        msg = "libgomp.so.1 is missing"
        raise ImportError(msg)

    monkeypatch.setattr("haystack_distill.serving.opening.graph_encoder", broken)
    with caplog.at_level(logging.WARNING):
        assert open_encoder(str(student)).name == "torch-fp32"
    assert "onnx-fp32 is left out: libgomp.so.1 is missing" in caplog.text


def test_int8_on_torch_runs_on_the_cpu_of_a_machine_with_a_gpu(student, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert KaleQueryEncoder(model=str(student), backend="torch", precision="int8")._torch_device() is None
