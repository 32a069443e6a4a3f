import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, Pipeline, component
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.utils import Secret
from typer.testing import CliRunner

from haystack_distill import (
    DistilledRetriever,
    KaleQueryEncoder,
    TeacherAttentionScorer,
    TeacherLabeller,
    TeacherLikelihoodScorer,
    TrainingSetBuilder,
    load_pipeline,
)
from haystack_distill.cli import app
from haystack_distill.data.training_set import TrainingSet, write_training_set
from tests.completion_server import serving
from tests.conftest import sentences
from tests.data.test_training_set import rows
from tests.readers import save_reader

QUERY = "river bridge stone?"
RUN = CliRunner()


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return save_reader("llama", tmp_path_factory.mktemp("readers") / "llama")


@pytest.fixture
def documents():
    return [Document(id=f"d{n}", content=text, meta={"page": n}) for n, text in enumerate(sentences(5, 3))]


@pytest.fixture(params=["likelihood", "attention"])
def scorer(request, llama):
    kind = TeacherLikelihoodScorer if request.param == "likelihood" else TeacherAttentionScorer
    return kind(model=llama)


class TestScorersAsRankers:
    def test_documents_come_back_the_best_first(self, scorer, documents):
        ranked = scorer.run(query=QUERY, documents=documents)["documents"]
        scores = [document.meta["teacher_score"] for document in ranked]
        assert scores == sorted(scores, reverse=True)
        assert [document.score for document in ranked] == scores
        assert {document.id for document in ranked} == {document.id for document in documents}
        assert all(document.meta["page"] == int(document.id[1:]) for document in ranked)
        assert all(document.score is None for document in documents), "the input was changed"
        assert len(scorer.run(query=QUERY, documents=documents, top_k=2)["documents"]) == 2

    def test_async_and_threads_give_the_same(self, scorer, documents):
        expected = scorer.run(query=QUERY, documents=documents)["documents"]
        found = asyncio.run(scorer.run_async(query=QUERY, documents=documents))["documents"]
        assert found == expected
        with ThreadPoolExecutor(4) as pool:
            many = list(pool.map(lambda _: scorer.run(query=QUERY, documents=documents)["documents"], range(8)))
        for one in many:
            assert np.allclose([d.score for d in one], [d.score for d in expected], atol=1e-4)

    def test_no_documents_give_none(self, scorer):
        assert scorer.run(query=QUERY, documents=[])["documents"] == []

    def test_to_dict_and_back(self, scorer):
        pipeline = Pipeline()
        pipeline.add_component("scorer", scorer)
        assert Pipeline.loads(pipeline.dumps()).to_dict() == pipeline.to_dict()
        assert pipeline.to_dict()["components"]["scorer"]["init_parameters"]["device"] is None

    def test_yaml_loads_in_a_fresh_process(self, llama, tmp_path):
        pipeline = Pipeline()
        pipeline.add_component("scorer", TeacherLikelihoodScorer(model=llama, api_key=Secret.from_env_var("KEY")))
        pipeline.add_component("labeller", TeacherLabeller(scorer=TeacherAttentionScorer(model=llama)))
        (tmp_path / "p.yaml").write_text(pipeline.dumps())
        code = f"from haystack import Pipeline; Pipeline.loads(open({str(tmp_path / 'p.yaml')!r}).read())"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"query": " "}, "query is empty"),
            ({"documents": [Document(id="x", content=" \n")]}, "document 'x' has no text"),
            ({"documents": [Document(id="x", content=None)]}, "document 'x' has no text"),
            ({"documents": [Document(id="x", content="a"), Document(id="x", content="b")]}, "'x' comes twice"),
            ({"top_k": 0}, "top_k must be at least 1"),
            (
                {"query": "river " * 900},
                "The question 'river river.* leave no room .* the reader's window of 400 tokens",
            ),
        ],
    )
    def test_bad_input(self, change, message, scorer, documents):
        with pytest.raises(ValueError, match=message):
            scorer.run(**{"query": QUERY, "documents": documents, **change})

    def test_a_signal_that_needs_answers_says_so(self, llama, documents):
        scorer = TeacherLikelihoodScorer(model=llama, signal="pdist")
        assert len(scorer.run(query=QUERY, documents=documents, answers=["market"])["documents"]) == 5
        with pytest.raises(ValueError, match="'pdist' needs an answer"):
            scorer.run(query=QUERY, documents=documents)

    def test_a_document_that_was_cut_says_so(self, llama):
        documents = [Document(id="long", content="winter market " * 50), Document(id="short", content="stone")]
        scorer = TeacherLikelihoodScorer(model=llama, max_passage_tokens=10)
        ranked = {one.id: one.meta for one in scorer.run(query=QUERY, documents=documents)["documents"]}
        assert ranked["long"]["teacher_cut"] is True
        assert "teacher_cut" not in ranked["short"]

    def test_a_prompt_of_ones_own(self, llama, documents):
        own = TeacherLikelihoodScorer(model=llama, prompt={"text": "Text: {passage}", "cue": "\nQ: "})
        assert own.teacher().prompt.text == "Text: {passage}"
        assert own.teacher().identity != TeacherLikelihoodScorer(model=llama).teacher().identity
        with pytest.raises(ValueError, match="A prompt has `text`"):
            TeacherLikelihoodScorer(model=llama, prompt={"question": "?"}).run(query=QUERY, documents=documents)

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"signal": "bm25"}, "no signal 'bm25': choose one of question, pdist, .*, heads"),
            ({"dtype": "int3"}, "no dtype 'int3'"),
            ({"batch_size": 0}, "batch_size must be at least 1"),
            ({"max_passage_tokens": 0}, "max_passage_tokens must be at least 1"),
        ],
    )
    def test_bad_settings(self, parameters, message, llama, documents):
        with pytest.raises(ValueError, match=message):
            TeacherLikelihoodScorer(model=llama, **parameters).run(query=QUERY, documents=documents)


class TestServer:
    @pytest.mark.parametrize("dialect", ["echo", "prompt_logprobs"])
    @pytest.mark.parametrize("signal", ["question", "pdist", "loop", "mi"])
    def test_a_server_gives_the_same_as_the_model_here(self, dialect, signal, llama, documents):
        with serving(llama) as (server, url):
            remote = TeacherLikelihoodScorer(
                model="llama",
                signal=signal,
                api_base_url=url,
                api_dialect=dialect,
                api_key=Secret.from_token("abc"),
                batch_size=3,
            ).run(query=QUERY, documents=documents, answers=["market garden"])["documents"]
            assert server.requests[0][2] == "Bearer abc"
        scorer = TeacherLikelihoodScorer(model=llama, signal=signal)
        scorer.teacher().reader.encode.__self__.end = None  # the end token of a server's model is not known
        here = scorer.run(query=QUERY, documents=documents, answers=["market garden"])["documents"]
        expected = {document.id: document.score for document in here}
        assert all(abs(document.score - expected[document.id]) < 1e-4 for document in remote)

    def test_a_busy_server_is_asked_again(self, llama, documents, monkeypatch):
        monkeypatch.setattr("haystack_distill.teachers.server.time.sleep", lambda _: None)
        with serving(llama) as (server, url):
            server.failures = [429, 500, 503]
            scorer = TeacherLikelihoodScorer(model="llama", api_base_url=url)
            assert len(scorer.run(query=QUERY, documents=documents)["documents"]) == 5
            server.failures = [404]
            with pytest.raises(ValueError, match="refused the request, status 404"):
                scorer.run(query=QUERY, documents=documents)
        with pytest.raises(ConnectionError, match="could not be used after 5 tries.*Nothing is lost"):
            scorer.run(query=QUERY, documents=documents)

    def test_a_server_without_prompt_logprobs(self, llama, documents, monkeypatch):
        monkeypatch.setattr("tests.completion_server.Completions.scored", lambda *_: {"logprobs": None})
        with serving(llama) as (_, url):
            scorer = TeacherLikelihoodScorer(model="llama", api_base_url=url)
            with pytest.raises(ValueError, match="no log-probabilities of the prompt: use a server that does"):
                scorer.run(query=QUERY, documents=documents)


class TestTrainingSetBuilder:
    def test_scores_come_from_vectors_whatever_the_store_says(self, store, bert, beir, tmp_path, teacher):
        retriever = DistilledRetriever(
            retriever=InMemoryEmbeddingRetriever(store, scale_score=True), query_encoder=KaleQueryEncoder(model=bert)
        )
        builder = TrainingSetBuilder(retriever=retriever, top_k=4, output=str(tmp_path / "set"), progress_bar=False)
        assert builder.run(queries=str(beir)) == {"training_set": str(tmp_path / "set"), "rows": 30}
        training_set = TrainingSet.open(tmp_path / "set")
        assert training_set.manifest["similarity"] == "cosine"
        row = next(iter(training_set))
        vectors = teacher.encode_documents(row.documents)
        query = teacher.encode_queries([row.query])[0]
        expected = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        assert np.allclose(row.retriever_scores, expected, atol=1e-5)
        assert row.retriever_scores == sorted(row.retriever_scores, reverse=True)
        assert row.labels is not None
        assert len(row.labels) == 4

    def test_a_text_retriever_has_ranks(self, store, beir, tmp_path):
        builder = TrainingSetBuilder(
            retriever=InMemoryBM25Retriever(store), top_k=3, split="dev", output=str(tmp_path / "set"), shard_rows=4
        )
        builder.run(queries=str(beir))
        training_set = TrainingSet.open(tmp_path / "set")
        assert training_set.manifest["similarity"] == "reciprocal_rank"
        assert len(training_set.shards) == 3
        assert all(row.retriever_scores == [1, 1 / 2, 1 / 3][: len(row.documents)] for row in training_set)

    def test_an_embedding_retriever_takes_its_embedder(self, store, bert, beir, tmp_path):
        inner = InMemoryEmbeddingRetriever(store)
        with pytest.raises(ValueError, match="searches with vectors: give its text_embedder"):
            TrainingSetBuilder(retriever=inner, output=str(tmp_path / "set")).run(queries=str(beir))
        builder = TrainingSetBuilder(
            retriever=inner, text_embedder=KaleQueryEncoder(model=bert), output=str(tmp_path / "set"), top_k=2
        )
        assert builder.run(queries=str(beir))["rows"] == 30

    def test_it_goes_on_where_it_was(self, store, beir, tmp_path, monkeypatch):
        from haystack_integrations.components.distill.parts.candidates import CandidateSearch

        find, calls = CandidateSearch.candidates, []

        def failing(self, questions):
            calls.append(len(questions))
            if len(calls) == 2:
                msg = "the store is down"
                raise ConnectionError(msg)
            return find(self, questions)

        monkeypatch.setattr(CandidateSearch, "candidates", failing)
        builder = TrainingSetBuilder(
            retriever=InMemoryBM25Retriever(store), top_k=3, output=str(tmp_path / "set"), shard_rows=10
        )
        with pytest.raises(ConnectionError):
            builder.run(queries=str(beir))
        assert not (tmp_path / "set").exists()
        assert builder.run(queries=str(beir))["rows"] == 30
        assert calls == [10, 10, 10, 10]
        assert builder.run(queries=str(beir))["rows"] == 30, "the same set is there already"
        assert len(calls) == 4
        with pytest.raises(FileExistsError, match="exists already"):
            TrainingSetBuilder(retriever=InMemoryBM25Retriever(store), top_k=5, output=str(tmp_path / "set")).run(
                queries=str(beir)
            )

    def test_bad_input(self, beir, tmp_path):
        from haystack.document_stores.in_memory import InMemoryDocumentStore

        empty = InMemoryBM25Retriever(InMemoryDocumentStore())
        with pytest.raises(ValueError, match="found nothing for any of the 30 queries"):
            TrainingSetBuilder(retriever=empty, output=str(tmp_path / "set")).run(queries=str(beir))
        with pytest.raises(ValueError, match="must be at least 1"):
            TrainingSetBuilder(retriever=empty, output="x", top_k=0)

    def test_documents_that_come_twice(self, beir, tmp_path):
        @component
        class Twice:
            @component.output_types(documents=list[Document])
            def run(self, query: str):
                return {"documents": [Document(id="d", content=query)] * 2}

        with pytest.raises(ValueError, match="The document 'd' comes twice for the query 'q0'"):
            TrainingSetBuilder(retriever=Twice(), output=str(tmp_path / "set")).run(queries=str(beir))


class TestTeacherLabeller:
    def test_scores_are_those_of_the_ranker(self, llama, tmp_path):
        folder = write_training_set(tmp_path / "set", rows(5)).folder
        scorer = TeacherLikelihoodScorer(model=llama)
        result = TeacherLabeller(scorer=scorer, progress_bar=False).run(training_set=str(folder))
        assert result["training_set"] == str(folder)
        row = next(TrainingSet.open(folder).labelled())
        documents = [Document(id=key, content=text) for key, text in zip(row.document_ids, row.documents, strict=True)]
        ranked = {one.id: one.score for one in scorer.run(query=row.query, documents=documents)["documents"]}
        assert np.allclose(row.teacher_scores, [ranked[key] for key in row.document_ids], atol=1e-4)
        other = TeacherLabeller(scorer=TeacherLikelihoodScorer(model=llama, signal="mi"), progress_bar=False)
        with pytest.raises(ValueError, match="signal was 'question', now 'mi'"):
            other.run(training_set=str(folder))

    def test_rows_without_answers_are_set_aside(self, llama, tmp_path):
        mixed = [*rows(2, answers=["yes"]), *rows(4)[2:]]
        folder = write_training_set(tmp_path / "set", mixed).folder
        scorer = TeacherLikelihoodScorer(model=llama, signal="pdist")
        summary = TeacherLabeller(scorer=scorer, progress_bar=False).run(training_set=str(folder))["summary"]
        assert summary["labelled"] == 2
        assert [one["query_id"] for one in summary["set_aside"]] == ["q2", "q3"]

    def test_any_ranker_can_label(self, tmp_path):
        @component
        class Longest:
            @component.output_types(documents=list[Document])
            def run(self, query: str, documents: list[Document]):  # noqa: ARG002
                from dataclasses import replace

                return {"documents": [replace(one, score=float(len(one.content))) for one in documents[::-1]]}

        folder = write_training_set(tmp_path / "set", rows(3)).folder
        TeacherLabeller(scorer=Longest(), progress_bar=False).run(training_set=str(folder))
        assert next(TrainingSet.open(folder).labelled()).teacher_scores == [1.0, 3.0, 2.0]

    def test_two_workers_give_the_same_scores(self, llama, tmp_path):
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
        scorer = TeacherLikelihoodScorer(model=llama)
        one = write_training_set(tmp_path / "one", rows(9), shard_rows=4).folder
        two = write_training_set(tmp_path / "two", rows(9), shard_rows=4).folder
        TeacherLabeller(scorer=scorer, progress_bar=False).run(training_set=str(one))
        TeacherLabeller(scorer=scorer, progress_bar=False, num_workers=2).run(training_set=str(two))
        pairs = zip(TrainingSet.open(one).labelled(), TrainingSet.open(two).labelled(), strict=True)
        for first, second in pairs:
            assert first.query_id == second.query_id
            assert np.allclose(first.teacher_scores, second.teacher_scores, atol=1e-4)

    def test_to_dict_and_back(self, llama):
        pipeline = Pipeline()
        pipeline.add_component("labeller", TeacherLabeller(scorer=TeacherAttentionScorer(model=llama), num_workers=2))
        assert Pipeline.loads(pipeline.dumps()).to_dict() == pipeline.to_dict()
        with pytest.raises(ValueError, match="must be at least 1"):
            TeacherLabeller(scorer=None, num_workers=0)


class TestCommandLine:
    def test_label_builds_labels_and_sums_up(self, beir, llama, tmp_path):
        arguments = ["label", beir, "--reader", llama, "--output", tmp_path / "set", "--top-k", 3, "--no-progress"]
        result = RUN.invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        for words in ("rows", "truncated passages", "score spread", "first passage as the retriever's"):
            assert words in result.output
        assert len(list(TrainingSet.open(tmp_path / "set").labelled())) == 30
        again = RUN.invoke(app, list(map(str, arguments)))
        assert again.exit_code == 0, again.output
        other = RUN.invoke(app, ["label", str(tmp_path / "set"), "--reader", llama, "--signal", "mi", "--no-progress"])
        assert other.exit_code == 1
        assert "labels of another teacher" in other.output
        assert "Traceback" not in other.output

    def test_heads_are_chosen_and_used(self, beir, llama, bert, tmp_path):
        common = ["--reader", llama, "--output", tmp_path / "set", "--model", bert, "--top-k", 20, "--no-progress"]
        result = RUN.invoke(app, list(map(str, ["label", beir, *common])))
        assert result.exit_code == 0, result.output
        heads = tmp_path / "heads.json"
        chosen = ["heads", tmp_path / "set", "--reader", llama, "--output", heads, "--count", 3]
        result = RUN.invoke(app, list(map(str, chosen)))
        assert result.exit_code == 0, result.output
        assert len(json.loads(heads.read_text())["chosen"]) == 3
        assert heads.with_suffix(".svg").is_file()
        copy = TrainingSet.open(tmp_path / "set").without_labels(tmp_path / "copy").folder
        result = RUN.invoke(
            app,
            list(map(str, ["label", copy, "--reader", llama, "--signal", "heads", "--heads", heads, "--no-progress"])),
        )
        assert result.exit_code == 0, result.output

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--signal", "question"], "name it with --output"),
            (
                ["--signal", "icr", "--api-base-url", "http://127.0.0.1:9"],
                "A server gives likelihoods, not the attention",
            ),
            (["--signal", "heads", "--output", "o"], "needs heads"),
        ],
    )
    def test_mistakes_are_explained(self, arguments, message, beir, llama, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = RUN.invoke(app, ["label", str(beir), "--reader", llama, "--no-progress", *arguments])
        assert result.exit_code == 1, result.output
        assert message in " ".join(result.output.split())


def test_the_label_pipeline_runs_on_its_store(beir, llama, bert, teacher, passages, tmp_path, monkeypatch):
    """The YAML that users copy, with small models in the place of the named ones."""
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "pipelines" / "label.yaml").read_text()
    for name, small in (
        ("models/all-MiniLM-L6-v2", bert),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", llama),
        ("embedding_dim: 384", "embedding_dim: 32"),
    ):
        assert name in text
        text = text.replace(name, small)
    Path("label.yaml").write_text(text)
    store = QdrantDocumentStore(path="index", embedding_dim=32, similarity="cosine")
    vectors = teacher.encode_documents(list(passages.values()))
    pairs = zip(passages.values(), vectors, strict=True)
    store.write_documents([Document(content=text, embedding=vector.tolist()) for text, vector in pairs])
    store.close()
    result = load_pipeline("label.yaml").run(queries=str(beir))
    assert result["summary"]["labelled"] == 30
    assert len(list(TrainingSet.open(result["training_set"]).labelled())) == 30
