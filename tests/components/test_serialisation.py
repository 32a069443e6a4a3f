"""Every component goes through YAML and back, with all that it holds: a store, a device, a secret, other components."""

import copy
import inspect

import pytest
import yaml
from haystack import Document, Pipeline, component
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.core.serialization import component_to_dict
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice, Secret
from transformers import EarlyStoppingCallback

import haystack_distill
from haystack_distill import (
    CurrentRetriever,
    DialogueQuery,
    DistillationLoop,
    DistilledHybridRetriever,
    DistilledJoiner,
    DistilledRetriever,
    FusionDistiller,
    GenerativeAugmenter,
    IndexSwitcher,
    KaleAligner,
    KaleQueryEncoder,
    ListwiseScorer,
    ReaderFineTuner,
    ReplySelector,
    ResponseDistiller,
    ResponseSetBuilder,
    RetrievalEvaluator,
    RetrieverDistiller,
    TeacherAttentionScorer,
    TeacherLabeller,
    TeacherLikelihoodScorer,
    TeacherSimilarityScorer,
    TrainingSetBuilder,
)
from haystack_integrations.components.distill.parts.serialising import Serialisable

COMPONENTS = {name for name in haystack_distill.__all__ if name[0].isupper()}
CPU = ComponentDevice.from_str("cpu")
KEY = Secret.from_env_var("A_KEY", strict=False)


def ends_well(text: str, source: str) -> bool:
    """A filter of one's own."""
    return text.endswith("?") and bool(source)


@component
class Plain:
    """A ranker of a user's, which leaves serialisation to Haystack."""

    def __init__(self, words: int = 1) -> None:
        self.words = words

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document]) -> dict[str, list[Document]]:
        return {"documents": documents if query else []}


@pytest.fixture(autouse=True)
def this_file_may_be_imported(monkeypatch):
    monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "tests,transformers")


def every_component() -> list[object]:
    store = InMemoryDocumentStore(index="here")
    qdrant = pytest.importorskip("haystack_integrations.document_stores.qdrant").QdrantDocumentStore(path="there")
    generator = OpenAIChatGenerator(api_key=KEY, generation_kwargs={"temperature": 1.0})
    search = DistilledRetriever(
        retriever=InMemoryEmbeddingRetriever(store), query_encoder=KaleQueryEncoder("m", CPU, threads=2), top_k=4
    )
    reader = TeacherLikelihoodScorer(model="m", api_base_url="http://localhost:1", api_key=KEY, device=CPU)
    tuner = ReaderFineTuner(model="m", output="o", learning_rate=1e-4, device=CPU, callbacks=[EarlyStoppingCallback])
    return [
        CurrentRetriever(pointer="p", retriever="a.b.C", top_k=3),
        DialogueQuery(model="m", history=4),
        DistillationLoop(
            retriever=InMemoryEmbeddingRetriever(store),
            model="m",
            output="o",
            scorer=reader,
            first_retriever=InMemoryBM25Retriever(store),
            reader_fine_tuner=tuner,
            distiller={"loss": {"kl": 1.0}, "epochs": 2, "report_to": ["wandb"]},
            device=CPU,
        ),
        DistilledHybridRetriever(retrievers={"words": InMemoryBM25Retriever(store), "dense": search}, fusion="f"),
        DistilledJoiner("f", top_k=5),
        search,
        FusionDistiller(
            retrievers={"words": InMemoryBM25Retriever(store), "dense": search}, output="o", scorer=Plain(words=2)
        ),
        GenerativeAugmenter(
            output="o",
            generator=generator,
            check=ends_well,
            retriever=InMemoryEmbeddingRetriever(store),
            text_embedder=KaleQueryEncoder("m"),
            likelihood_scorer=reader,
            keep_likeliest=0.5,
            examples=[{"source": "a", "text": "b"}],
            device=CPU,
        ),
        IndexSwitcher(document_store=store, teacher="m", new_document_store=qdrant, model="n", pointer="p", device=CPU),
        KaleAligner(
            document_store=store,
            teacher="m",
            output="o",
            keep=[0, 5],
            loss={"cosine": 1.0},
            device=CPU,
            report_to="mlflow",
        ),
        KaleQueryEncoder("m", CPU, backend="torch"),
        ListwiseScorer(generator=generator, permutations=2, top_k=3, requests_per_minute=60.0),
        tuner,
        ReplySelector(generator=generator, threshold=0.5, k=3),
        ResponseDistiller(model="m", output="o", recipe="strong", temperature=None, device=CPU),
        ResponseSetBuilder(output="o", history=3, miner="m", mined=2, device=CPU),
        RetrievalEvaluator(
            document_store=store,
            teacher="m",
            students={"s": "n"},
            output="o",
            retrievers={"words": InMemoryBM25Retriever(store)},
            fusion="f",
            device=CPU,
        ),
        RetrieverDistiller(document_store=store, model="m", output="o", meta_fields_to_embed=["title"], device=CPU),
        TeacherAttentionScorer(model="m", signal="heads", heads="h", device=CPU),
        TeacherSimilarityScorer(model="m", top_k=3, batch_size=8, device=CPU),
        TeacherLabeller(scorer=Plain(words=3), rows_at_once=2),
        reader,
        TrainingSetBuilder(retriever=search, output="o", similarity="cosine", judgments=True),
    ]


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_every_component_survives_yaml(name):
    made = next(one for one in every_component() if type(one).__name__ == name)
    pipeline = Pipeline()
    pipeline.add_component("it", made)
    loaded = Pipeline.loads(pipeline.dumps())
    again = loaded.get_component("it")
    assert loaded.to_dict() == pipeline.to_dict()
    parameters = inspect.signature(made.__init__).parameters
    written = made.to_dict()["init_parameters"]
    assert written.keys() == parameters.keys(), "a parameter was lost"
    for parameter in parameters:
        before, after = getattr(made, parameter), getattr(again, parameter)
        assert type(before) is type(after), parameter
        if parameter != "retrievers" and not hasattr(before, "to_dict") and not hasattr(before, "run"):
            assert before == after, parameter
    assert "device" not in parameters or again.device in (CPU, made.device)


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_what_is_loaded_from_is_left_as_it_is(name):
    made = next(one for one in every_component() if type(one).__name__ == name)
    data = component_to_dict(made, "it")
    before = copy.deepcopy(data)
    type(made).from_dict(data)
    assert data == before


def test_a_secret_is_written_by_its_name(monkeypatch):
    monkeypatch.setenv("A_KEY", "not for files")
    scorer = TeacherLikelihoodScorer(model="m", api_base_url="http://localhost:1", api_key=KEY)
    pipeline = Pipeline()
    pipeline.add_component("labeller", TeacherLabeller(scorer=scorer))
    text = pipeline.dumps()
    assert "not for files" not in text
    restored = Pipeline.loads(text).get_component("labeller").scorer
    assert restored.api_key.resolve_value() == "not for files"


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (lambda **numbers: KaleAligner(document_store=None, teacher="m", output="o", **numbers), ["learning_rate"]),
        (lambda **numbers: ReaderFineTuner(model="m", output="o", **numbers), ["learning_rate"]),
        (lambda **numbers: ReplySelector(generator=Plain(), **numbers), ["threshold"]),
        (
            lambda **numbers: ResponseDistiller(model="m", output="o", **numbers),
            ["learning_rate", "alpha", "temperature"],
        ),
        (
            lambda **numbers: RetrieverDistiller(document_store=None, model="m", output="o", **numbers),
            ["learning_rate", "teacher_temperature", "target_entropy", "student_temperature"],
        ),
        (
            lambda **numbers: GenerativeAugmenter(output="o", model="m", **numbers),
            ["keep_likeliest", "timeout", "requests_per_minute"],
        ),
    ],
)
def test_a_number_written_by_hand_in_yaml_is_a_number(made, names):
    """YAML 1.1 reads 1e-5 as a string."""
    component = made(**yaml.safe_load("{" + ", ".join(f"{name}: 1e-5" for name in names) + "}"))
    assert [getattr(component, name) for name in names] == [1e-5] * len(names)


def test_a_parameter_must_be_kept_under_its_name():
    class Forgetful(Serialisable):
        def __init__(self, kept: int, lost: int) -> None:
            self.kept = kept + lost

    with pytest.raises(AttributeError, match="lost"):
        Forgetful(1, 2).to_dict()


def test_numbers_are_what_they_are_declared_to_be():
    """YAML 1.1 reads a hand-written 1e-5 as a text; None, and a text that may stand in a number's place, stay."""
    made = ResponseDistiller(model="m", output="o", learning_rate="1e-5", epochs="2", temperature=None)
    assert (made.learning_rate, made.epochs, made.temperature) == (1e-5, 2, None)
    distiller = RetrieverDistiller(document_store=InMemoryDocumentStore(), model="m", output="o")
    assert (distiller.teacher_temperature, distiller.passages) == ("entropy", None)
    with pytest.raises(ValueError, match="mined must be at least 1, not 0"):
        ResponseSetBuilder(output="o", mined="0")
