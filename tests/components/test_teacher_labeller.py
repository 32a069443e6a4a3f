"""Labelling a training set: the component, the commands and the pipeline."""

import json
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, Pipeline, component
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.components.rankers import LLMRanker
from typer.testing import CliRunner

from haystack_distill import TeacherAttentionScorer, TeacherLabeller, TeacherLikelihoodScorer, load_pipeline
from haystack_distill.cli import app
from haystack_distill.data.training_set import TrainingSet, write_training_set
from tests.chat_server import chatting
from tests.data.test_training_set import rows

RUN = CliRunner()


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

    def test_a_ranker_without_scores_is_told_from_one_that_drops_documents(self, tmp_path, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        with chatting(lambda _: '{"documents": [{"index": 2}, {"index": 1}, {"index": 3}]}') as (_, url):
            chat = OpenAIChatGenerator(api_base_url=url)
            folder = write_training_set(tmp_path / "set", rows(3)).folder
            with pytest.raises(ValueError, match="LLMRanker returns documents without a score: .* or ListwiseScorer"):
                TeacherLabeller(scorer=LLMRanker(chat_generator=chat), progress_bar=False).run(training_set=str(folder))

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


def test_the_label_pipeline_runs_on_its_store(beir, llama, bert, write_index, tmp_path, monkeypatch):
    """The YAML that users copy, with small models in the place of the named ones."""
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
    write_index()
    result = load_pipeline("label.yaml").run(queries=str(beir))
    assert result["summary"]["labelled"] == 30
    assert len(list(TrainingSet.open(result["training_set"]).labelled())) == 30
