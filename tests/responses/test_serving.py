"""Replying from a response index: the components, the threshold, and the whole pipeline from its YAML."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from haystack import Document, Pipeline
from haystack.components.generators.chat import MockChatGenerator
from haystack.core.serialization import component_to_dict
from haystack.dataclasses import ChatMessage
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from haystack_distill import (
    DialogueQuery,
    ReplySelector,
    ResponseDistiller,
    ResponseSetBuilder,
    load_pipeline,
)
from haystack_distill.data.dialogues import contexts_of, format_context, read_dialogues
from haystack_distill.data.training_set import TrainingSet
from haystack_distill.responses.rows import MINED, query_text, response_set
from haystack_distill.responses.threshold import threshold_for
from tests.conftest import sentences
from tests.hayhooks_server import needs_hayhooks, post, serving_pipelines

PIPELINES = Path(__file__).parents[2] / "pipelines"
USER, ASSISTANT = ChatMessage.from_user, ChatMessage.from_assistant


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory) -> Path:
    lines = sentences(90, seed=8)
    file = tmp_path_factory.mktemp("chat") / "dialogues.jsonl"
    rows = [{"_id": f"d{n}", "turns": lines[3 * n : 3 * n + 3]} for n in range(30)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def trained(dialogues, bert, tmp_path_factory) -> tuple[str, TrainingSet]:
    """Dialogues -> training set -> model, as the first half of pipelines/g2r.yaml does it."""
    folder = tmp_path_factory.mktemp("model")
    pipeline = Pipeline()
    pipeline.add_component("builder", ResponseSetBuilder(output=str(folder / "set"), history=2))
    distiller = ResponseDistiller(
        model=bert, output=str(folder / "model"), recipe="data", negatives=8, history=2, epochs=1, progress_bar=False
    )
    pipeline.add_component("distiller", distiller)
    pipeline.connect("builder.training_set", "distiller.training_set")
    result = pipeline.run({"builder": {"responses": str(dialogues)}})
    assert result["distiller"]["metrics"]["contexts"] > 20
    return result["distiller"]["model_path"], TrainingSet.open(folder / "set")


class TestDialogueQuery:
    def test_is_what_the_model_was_trained_on(self, trained, dialogues):
        """The same dialogue as messages, as a context and as a row of the training set."""
        model, training_set = trained
        dialogue = read_dialogues(dialogues)[0]
        context = contexts_of(dialogue)[1]
        messages = [USER(context.turns[0]), ASSISTANT(context.turns[1])]
        row = next(row for row in training_set if row.query_id == context.id)
        found = DialogueQuery(model=model).run(messages=messages)["query"]
        assert found == format_context(context.turns, 2) == query_text(row.query, 2)

    def test_reads_the_history_of_its_model(self, trained):
        messages = [USER("one"), ASSISTANT("two"), USER("three")]
        assert DialogueQuery(model=trained[0]).run(messages=messages)["query"] == "three | two"
        assert DialogueQuery(model=trained[0], history=1).run(messages=messages)["query"] == "three"
        assert DialogueQuery().run(messages=messages)["query"] == "three | two | one"

    def test_what_is_no_conversation_is_left_out(self):
        messages = [ChatMessage.from_system("Be kind."), USER("a"), USER("b"), ASSISTANT("c"), USER("  ")]
        assert DialogueQuery().run(messages=messages)["query"] == "c | a b"

    def test_nothing_said_is_refused(self):
        with pytest.raises(ValueError, match="nothing to reply to"):
            DialogueQuery().run(messages=[ChatMessage.from_system("Be kind.")])

    def test_a_model_that_was_not_made_for_this_says_so(self, bert):
        with pytest.raises(FileNotFoundError, match="Name the `history` instead"):
            DialogueQuery(model=bert).run(messages=[USER("a")])


def found(*scores: float) -> list[Document]:
    return [Document(id=f"r{n}", content=f"reply {n}", score=score) for n, score in enumerate(scores)]


class TestReplySelector:
    def test_replies_with_the_first(self):
        documents = [Document(id="a", content="yes", score=0.5, meta={"generated": True}), *found(0.4)]
        result = ReplySelector().run(documents=documents)
        reply = result["replies"][0]
        assert (reply.text, result["source"], result["score"]) == ("yes", "index", 0.5)
        assert reply.meta == {"generated": True, "document_id": "a", "score": 0.5}

    @pytest.mark.parametrize(
        ("scores", "threshold", "source"),
        [
            ((0.9, 0.1), 0.5, "index"),
            ((0.4, 0.1), 0.5, "generator"),
            ((0.2, 0.9), -0.5, "index"),  # distances: the nearest is at 0.2
            ((0.7, 0.9), -0.5, "generator"),
            ((), 0.5, "generator"),
        ],
    )
    def test_the_generator_answers_below_the_threshold(self, scores, threshold, source):
        selector = ReplySelector(generator=MockChatGenerator("made up"), threshold=threshold)
        result = selector.run(documents=found(*scores), messages=[USER("hi")])
        assert result["source"] == source
        assert result["replies"][0].text == ("reply 0" if source == "index" else "made up")

    def test_one_score_says_nothing_of_its_sign(self):
        with pytest.raises(ValueError, match="at least two"):
            ReplySelector(generator=MockChatGenerator("a"), threshold=0).run(documents=found(1.0))

    def test_a_fallback_needs_the_dialogue(self):
        with pytest.raises(ValueError, match="no messages"):
            ReplySelector(generator=MockChatGenerator("a"), threshold=1).run(documents=found(0.5, 0.1))

    def test_an_empty_index_is_said(self):
        with pytest.raises(ValueError, match="is the response index empty"):
            ReplySelector().run(documents=[])

    def test_a_set_covers_what_may_be_meant(self):
        """Two ways to say yes, and no: the second of a pair is the other one, not the one that is next."""
        yes, also_yes, no = [1.0, 0.1, 0.0], [1.0, 0.0, 0.0], [0.0, 0.1, 1.0]
        documents = [
            Document(id=name, content=name, score=score, embedding=vector)
            for name, score, vector in [("yes", 0.9, yes), ("yeah", 0.8, also_yes), ("no", 0.3, no), ("nope", 0.2, no)]
        ]
        result = ReplySelector(k=2).run(documents=documents)
        assert [reply.text for reply in result["replies"]] == ["yes", "no"]
        assert [reply.meta["score"] for reply in result["replies"]] == [0.9, 0.3]
        assert len(ReplySelector(k=4).run(documents=documents)["replies"]) == 4

    def test_distances_of_a_set_count_as_their_negatives(self):
        documents = [Document(id=str(n), content="a", score=n, embedding=[1.0, float(n)]) for n in (1.0, 2.0)]
        result = ReplySelector(k=2).run(documents=documents)
        assert [reply.meta["score"] for reply in result["replies"]] == [-1.0, -2.0] == [result["score"], -2.0]

    @pytest.mark.parametrize(
        ("documents", "says"),
        [
            (found(0.9, 0.8), "return_embedding=True"),
            (found(0.9), "2 replies are to be chosen of 1 responses"),
        ],
    )
    def test_a_set_that_can_t_be_chosen_says_why(self, documents, says):
        with pytest.raises(ValueError, match=says):
            ReplySelector(k=2).run(documents=documents)

    def test_no_reply_is_refused(self):
        with pytest.raises(ValueError, match="k must be at least 1"):
            ReplySelector(k=0)

    @pytest.mark.parametrize("half", [{"threshold": 0.5}, {"generator": MockChatGenerator("a")}])
    def test_half_a_fallback_is_refused(self, half):
        with pytest.raises(ValueError, match="both a generator and a threshold"):
            ReplySelector(**half)

    def test_to_dict_and_back(self):
        selector = ReplySelector(generator=MockChatGenerator("a"), threshold=0.5)
        again = ReplySelector.from_dict(selector.to_dict())
        assert again.to_dict() == selector.to_dict()
        assert isinstance(again.generator, MockChatGenerator)


class TestThreshold:
    @pytest.mark.parametrize("target", ["max_bad", "max_share"])
    def test_keeps_its_promise_for_dialogues_to_come(self, target):
        """By simulation: the mean cost over many calibrations and new dialogues is at most what was asked for."""
        random, asked, costs = np.random.default_rng(3), 0.2, []
        for _ in range(400):
            scores = random.normal(size=61)
            good = random.random(61) < 1 / (1 + np.exp(-2 * scores))
            chosen = threshold_for(scores[:60], good[:60], **{target: asked})
            is_given = scores[60] >= chosen.score
            costs.append(is_given and not good[60] if target == "max_bad" else not is_given)
        assert asked / 3 < np.mean(costs) < asked + 2 * np.std(costs) / 20

    @given(
        st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=30, max_size=60),
        st.sampled_from([0.1, 0.3, 0.5]),
    )
    def test_no_lower_one_keeps_as_few_bad_responses(self, verdicts, share):
        scores, good = [score for score, _ in verdicts], [verdict for _, verdict in verdicts]
        chosen = threshold_for(scores, good, max_bad=share)
        bad = {value: sum(score >= value and not verdict for score, verdict in verdicts) for value in scores}
        allowed = [value for value, count in bad.items() if (count + 1) / (len(scores) + 1) <= share]
        assert {score for score in scores if score >= chosen.score} <= set(allowed)
        assert chosen.bad == pytest.approx(
            sum(score >= chosen.score and not verdict for score, verdict in verdicts) / len(scores)
        )
        assert chosen.coverage == pytest.approx(np.mean(np.array(scores) >= chosen.score))

    @pytest.mark.parametrize(
        ("scores", "good", "target", "says"),
        [
            ([1.0], [True, False], {"max_bad": 0.5}, "1 scores and 2 verdicts"),
            ([1.0], None, {"max_bad": 0.5}, "1 scores and no verdicts"),
            ([1.0] * 40, [True] * 40, {}, "Name one target"),
            ([1.0] * 40, [True] * 40, {"max_bad": 0.1, "max_share": 0.1}, "Name one target"),
            ([1.0] * 40, None, {"max_share": 1.5}, "between 0 and 1"),
            ([1.0] * 40, None, {"max_share": 0.01}, "40 dialogues are too few .* give 100"),
            ([float("nan")] * 40, None, {"max_share": 0.5}, "Not all scores"),
        ],
    )
    def test_what_can_t_be_calibrated_is_named(self, scores, good, target, says):
        with pytest.raises(ValueError, match=says):
            threshold_for(scores, good, **target)


@pytest.fixture
def chat(trained, tmp_path) -> dict:
    """pipelines/chat.yaml before an index of the responses."""
    model, training_set = trained
    responses = response_set(training_set)
    vectors = SentenceTransformer(model, device="cpu").encode(list(responses.values()))
    store = QdrantDocumentStore(path=str(tmp_path / "index"), embedding_dim=32, similarity="cosine")
    store.write_documents(
        [
            Document(id=key, content=text, embedding=vector.tolist())
            for (key, text), vector in zip(responses.items(), vectors, strict=True)
        ]
    )
    store._client.close()  # an embedded Qdrant has one user at a time
    content = yaml.safe_load((PIPELINES / "chat.yaml").read_text())
    parts = content["components"]
    parts["dialogue"]["init_parameters"]["model"] = model
    retriever = parts["retriever"]["init_parameters"]
    retriever["query_encoder"]["init_parameters"]["model"] = model
    of_store = retriever["retriever"]["init_parameters"]["document_store"]["init_parameters"]
    of_store |= {"path": str(tmp_path / "index"), "embedding_dim": 32}
    return content


class TestPipelines:
    def test_a_dialogue_in_a_reply_out(self, chat, trained, tmp_path):
        model, training_set = trained
        responses = response_set(training_set)
        (tmp_path / "chat.yaml").write_text(yaml.safe_dump(chat))
        messages = [USER("river bridge stone."), ASSISTANT("winter market."), USER("copper velvet thunder.")]
        pipeline = load_pipeline(tmp_path / "chat.yaml")
        result = pipeline.run(messages=messages)
        pipeline.pipeline.close()
        encoder = SentenceTransformer(model, device="cpu")
        query = encoder.encode("copper velvet thunder. | winter market.")
        texts = list(responses.values())
        vectors = encoder.encode(texts)
        scores = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        assert result["replies"][0].text == texts[int(scores.argmax())]
        assert result["score"] == pytest.approx(float(scores.max()), abs=1e-4)
        assert result["source"] == "index"

    def test_with_the_fallback_of_its_comment(self, chat, tmp_path):
        generator = component_to_dict(MockChatGenerator("made up"), "generator")
        chat["components"]["selector"]["init_parameters"] = {"threshold": 1.5, "generator": generator}
        (tmp_path / "chat.yaml").write_text(yaml.safe_dump(chat))
        pipeline = load_pipeline(tmp_path / "chat.yaml")
        result = pipeline.run(messages=[USER("river")])
        pipeline.pipeline.close()
        assert (result["source"], result["replies"][0].text) == ("generator", "made up")
        assert result["score"] < 1.5

    def test_suggests_several_replies(self, chat, tmp_path):
        """The best of one alone, and others out of fifty with their embeddings."""
        chat["components"]["retriever"]["init_parameters"]["top_k"] = 50
        chat["components"]["retriever"]["init_parameters"]["retriever"]["init_parameters"]["return_embedding"] = True
        messages, found = [USER("copper velvet thunder.")], {}
        for k in (1, 3):
            chat["components"]["selector"]["init_parameters"] = {"k": k}
            (tmp_path / "chat.yaml").write_text(yaml.safe_dump(chat))
            pipeline = load_pipeline(tmp_path / "chat.yaml")
            found[k] = [reply.text for reply in pipeline.run(messages=messages)["replies"]]
            pipeline.pipeline.close()
            pipeline.pipeline.get_component("retriever").retriever._document_store.close()
        assert len(set(found[3])) == 3
        assert found[3][:1] == found[1]

    @needs_hayhooks
    def test_talks_to_clients_of_openai(self, chat, tmp_path):
        (tmp_path / "chat.yaml").write_text(yaml.safe_dump(chat))
        wrapper = (PIPELINES / "chat_server" / "pipeline_wrapper.py").read_text()
        asked = {"model": "chat", "messages": [{"role": "user", "content": "copper velvet thunder."}]}
        with serving_pipelines(tmp_path, CHAT_PIPELINE=str(tmp_path / "chat.yaml")) as url:
            post(f"{url}/deploy_files", {"name": "chat", "files": {"pipeline_wrapper.py": wrapper}})
            answer = post(f"{url}/v1/chat/completions", asked)
        pipeline = load_pipeline(tmp_path / "chat.yaml")
        expected = pipeline.run(messages=[USER("copper velvet thunder.")])["replies"][0].text
        pipeline.pipeline.close()
        assert answer["choices"][0]["message"]["content"] == expected

    def test_the_training_pipeline_names_what_exists(self):
        """Up to the augmenter, which has tests of its own."""
        content = yaml.safe_load((PIPELINES / "g2r.yaml").read_text())
        del content["components"]["augmenter"]
        content["connections"] = [one for one in content["connections"] if "augmenter" not in one["sender"]]
        pipeline = Pipeline.loads(yaml.safe_dump(content))
        assert set(pipeline.graph.nodes) == {"builder", "labeller", "distiller"}

    def test_the_strong_pipeline_learns_from_what_the_first_retriever_confuses(
        self, trained, dialogues, bert, reader_folder, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        text = (PIPELINES / "g2r_strong.yaml").read_text()
        for name, small in (
            ("models/replies  ", f"{trained[0]}  "),
            ("HuggingFaceTB/SmolLM2-135M-Instruct", reader_folder("llama")),
            ("models/all-MiniLM-L6-v2", bert),
        ):
            assert name in text
            text = text.replace(name, small)
        Path("g2r_strong.yaml").write_text(text)
        result = load_pipeline("g2r_strong.yaml").run(responses=str(dialogues))
        assert result["model_path"] == "models/replies-strong"
        assert result["metrics"]["provenance"]["training_set"]["retriever"] == trained[0]
        rows = list(TrainingSet.open("training_set_mined").labelled())
        assert all(row.labels == [1, *[MINED] * 4] for row in rows)
        assert all(len(row.teacher_scores) == 5 for row in rows)

    @pytest.mark.parametrize(
        "component",
        [
            ResponseSetBuilder(output="a", history=3, miner="x", mined=2),
            ResponseDistiller(model="m", output="o", recipe="strong", learning_rate="1e-5"),
            DialogueQuery(model="m", history=4),
        ],
    )
    def test_components_survive_serialisation(self, component):
        again = type(component).from_dict(json.loads(json.dumps(component.to_dict())))
        assert again.to_dict() == component.to_dict()
