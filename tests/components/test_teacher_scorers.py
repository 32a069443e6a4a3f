"""Teachers as rankers: their order, their errors, and the same scores from a server."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.utils import Secret

from haystack_distill import TeacherAttentionScorer, TeacherLabeller, TeacherLikelihoodScorer
from tests.completion_server import serving
from tests.conftest import sentences

QUERY = "river bridge stone?"


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

    def test_dkrr_of_a_decoder_only_reader_is_refused(self, llama, documents):
        with pytest.raises(ValueError, match="'dkrr' is for encoder-decoders.*Take 'adist'"):
            TeacherAttentionScorer(model=llama, signal="dkrr").run(query=QUERY, documents=documents)


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
