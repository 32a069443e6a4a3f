import copy

import numpy as np
import pytest
import torch
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import KALE_LAYERS, check_keep, cut, find_stack, kale_layers
from haystack_distill.students.folding import single_tokens, token_states
from haystack_distill.students.layer_search import MAX_CANDIDATES, LayerSearch, exchanges, make_layered, starting_points
from haystack_distill.students.token_table import average_over, make_token_table
from tests.conftest import FAMILIES, sentences

TEXTS = sentences(6, seed=5)


@pytest.fixture(scope="module")
def teachers(make_encoder):
    known = {}

    def of(family: str) -> BiEncoder:
        if family not in known:
            known[family] = BiEncoder.load(make_encoder(family), device="cpu")
        return known[family]

    return of


@pytest.fixture
def in_float32(monkeypatch):
    """As on a processor without bfloat16, so that comparisons are exact."""
    monkeypatch.setattr("haystack_distill.files.precision.bf16_is_fast", lambda _: False)


def skip(layer):
    """Make a layer hand on what it gets, in the form in which it hands on what it makes."""
    forward = layer.forward

    def hand_on(hidden_states, *arguments, **named):
        made = forward(hidden_states, *arguments, **named)
        return (hidden_states, *made[1:]) if isinstance(made, tuple) else hidden_states

    layer.forward = hand_on


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_encoder_runs_exactly_the_kept_layers_and_is_loaded_as_it_was(family, teachers, tmp_path):
    """Against the teacher with its other layers replaced by nothing; saved and loaded, also by Haystack's embedder."""
    teacher = teachers(family)
    before = teacher.encode_queries(TEXTS)
    student = cut(teacher, (0, 2, 5))
    expected = copy.deepcopy(teacher.model)
    for number in (1, 3, 4):
        skip(find_stack(expected).layers[number])
    assert len(find_stack(student)) == 3
    assert np.allclose(student.encode(TEXTS), expected.encode(TEXTS), atol=1e-5)
    assert np.array_equal(teacher.encode_queries(TEXTS), before), "cutting changed the teacher"
    student.save(str(tmp_path / "student"), create_model_card=False)
    assert np.allclose(SentenceTransformer(str(tmp_path / "student")).encode(TEXTS), student.encode(TEXTS), atol=1e-6)
    embedder = SentenceTransformersTextEmbedder(model=str(tmp_path / "student"), progress_bar=False)
    embedder.warm_up()
    assert np.allclose(embedder.run(text=TEXTS[0])["embedding"], student.encode(TEXTS[0]), atol=1e-6)
    assert not [file for file in (tmp_path / "student").rglob("*") if file.suffix in {".bin", ".pt", ".pkl"}]


def test_modernbert_keeps_its_first_layer(teachers):
    """Its first layer has no norm before attention, and whatever is first is rebuilt like that on loading."""
    with pytest.raises(ValueError, match="keep layer 0"):
        cut(teachers("modernbert"), (4, 5))


@pytest.mark.parametrize("family", ["bert", "mpnet", "roberta", "xlm-r", "distilbert", "qwen3"])
def test_folded_embeddings_enter_the_first_layer_as_the_teachers_states_do(family, teachers):
    """What a token is averaged to is exactly what the student's first layer receives for it, wherever it stands."""
    teacher = teachers(family)
    states = token_states(teacher, 4, [], tokens=set(range(40))).states
    student = make_layered(teacher, (4, 5), [], tokens=set(range(40)))
    received = []
    first = find_stack(student).layers[0]
    first.register_forward_pre_hook(
        lambda _, arguments, named: received.append(arguments[0] if arguments else named["hidden_states"]),
        with_kwargs=True,
    )
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        find_stack(student).model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert torch.allclose(received[0][0], states[10:30], atol=2e-3)


@pytest.mark.usefixtures("in_float32")
def test_token_states_are_means_over_the_texts(teacher):
    """Against hidden states collected text by text."""
    texts = sentences(5, seed=3)
    found = token_states(teacher, 3, texts, tokens=set())
    model = teacher.model[0].auto_model
    sums, counts = {}, {}
    for text in texts:
        batch = teacher.model.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model(**batch, output_hidden_states=True).hidden_states[3][0]
        for token, state in zip(batch["input_ids"][0].tolist(), states, strict=True):
            sums[token] = sums.get(token, 0) + state
            counts[token] = counts.get(token, 0) + 1
    assert {token: int(count) for token, count in enumerate(found.seen) if count} == counts
    for token, total in sums.items():
        assert torch.allclose(found.states[token], total / counts[token], atol=1e-4)


def test_bfloat16_changes_little(teacher, monkeypatch):
    """What the package computes where the processor has it, whether this one does or not."""
    found = {}
    for fast in (False, True):
        monkeypatch.setattr("haystack_distill.files.precision.bf16_is_fast", lambda _, fast=fast: fast)
        states = token_states(teacher, 3, TEXTS, tokens=set(range(40))).states
        found[fast] = [states, make_token_table(teacher)[0].embedding.weight]
    for exact, rounded in zip(found[False], found[True], strict=True):
        assert rounded.dtype == torch.float32
        assert 0 < torch.dist(exact, rounded) < 0.02 * torch.linalg.vector_norm(exact)


def test_folding_keeps_more_of_the_teacher_than_cutting(minilm):
    """On the real MiniLM: one layer, folded over a few sentences, is nearer to the teacher than the plain cut."""
    teacher = BiEncoder.load(minilm, device="cpu")
    texts = ["How do I open a file for writing?", "A tuple cannot be changed after it was made.", "sort a list by key"]
    target = teacher.encode_queries(texts)
    wanted = {token for row in teacher.model.tokenizer(texts)["input_ids"] for token in row}
    folded = make_layered(teacher, (5,), texts, tokens=wanted).encode(texts)
    plain = make_layered(teacher, (5,), texts, folded=False).encode(texts)
    assert np.sum(folded * target) > np.sum(plain * target) + 0.3


@pytest.mark.usefixtures("in_float32")
def test_a_token_table_holds_the_teachers_vectors_of_single_tokens(teacher, tmp_path):
    table = make_token_table(teacher)
    assert isinstance(table[0], StaticEmbedding)
    ids, position = next(single_tokens(teacher.model, [20]))
    assert ids[0, position] == 20
    with torch.no_grad():
        vector = teacher.model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"][0]
    row = torch.nn.functional.normalize(table[0].embedding.weight[20], dim=0)
    assert torch.allclose(row, vector, atol=1e-5)
    table.save(str(tmp_path / "table"), create_model_card=False)
    embedder = SentenceTransformersTextEmbedder(model=str(tmp_path / "table"), progress_bar=False)
    embedder.warm_up()
    assert np.allclose(embedder.run(text=TEXTS[0])["embedding"], table.encode(TEXTS[0]), atol=1e-6)


def test_a_token_table_averages_what_the_texts_show(teacher):
    """Tokens of the texts get their mean final state; the others stay as they are alone."""
    plain = make_token_table(teacher)
    table, alone = average_over(plain, teacher, TEXTS)[0].embedding.weight, plain[0].embedding.weight
    states = token_states(teacher, 6, TEXTS, tokens=set())
    seen = states.seen > 0
    assert torch.allclose(table[seen], states.states[seen], atol=1e-5)
    own = (alone - alone.mean(dim=0)).double()
    own *= states.states[seen].double().norm(dim=1).mean() / own.norm(dim=1).mean()
    assert torch.allclose(table[~seen].double(), own[~seen], atol=1e-5)


def test_without_any_text_a_table_keeps_its_rows(make_encoder):
    teacher = BiEncoder.load(make_encoder("bert"), device="cpu")
    plain = make_token_table(teacher)
    assert torch.equal(average_over(plain, teacher, [])[0].embedding.weight, plain[0].embedding.weight)


def test_pooling_by_the_first_token_takes_vectors_of_single_tokens(make_encoder):
    """A mean of token states says nothing about such a teacher."""
    teacher = BiEncoder.load(make_encoder("bert", pooling="cls"), device="cpu")
    plain = make_token_table(teacher)
    assert torch.equal(average_over(plain, teacher, TEXTS)[0].embedding.weight, plain[0].embedding.weight)


def test_truncation_normalisation_and_prefix_are_built_into_the_student(make_encoder, tmp_path):
    """The student makes vectors of the index by itself, whatever the embedder of the index was told."""
    teacher = BiEncoder.load(
        make_encoder("bert", normalize=False), query_prefix="river ", normalize=True, dim=8, device="cpu"
    )
    student = cut(teacher, tuple(range(6)))
    assert isinstance(student[-1], Normalize)
    student.save(str(tmp_path / "student"), create_model_card=False)
    loaded = SentenceTransformer(str(tmp_path / "student"))
    assert loaded.encode(TEXTS).shape == (6, 8)
    assert np.allclose(loaded.encode(TEXTS), teacher.encode_queries(TEXTS), atol=1e-5)
    assert make_token_table(teacher).encode(TEXTS).shape == (6, 8)


def test_the_papers_maps():
    assert kale_layers(12, 3) == (0, 5, 11)
    assert kale_layers(6, 2) == (0, 5)
    assert all(len(kept) == count for maps in KALE_LAYERS.values() for count, kept in maps.items())
    with pytest.raises(ValueError, match="no map from 6 to 4"):
        kale_layers(6, 4)


@pytest.mark.parametrize("keep", [[], [0, 0], [6], [-1, 2]])
def test_layers_that_do_not_fit_are_refused(keep):
    with pytest.raises(ValueError, match="layers 0 to 5"):
        check_keep(keep, 6)


def test_an_encoder_without_layers_cannot_be_cut(teacher):
    table = make_token_table(teacher)
    with pytest.raises(ValueError, match="can't be cut: no list of layers"):
        find_stack(table)


@pytest.mark.parametrize(("depth", "layers"), [(6, 2), (12, 6), (12, 9), (28, 4), (28, 1)])
def test_the_search_finds_a_planted_best_cheaply(depth, layers, monkeypatch, teacher):
    """The score falls with the distance from a planted set: exchanges must lead there, within the limit."""
    planted = tuple(sorted(np.random.default_rng(depth + layers).choice(depth, layers, replace=False).tolist()))
    search = LayerSearch(teacher, lambda _: 0.0, [], set())
    monkeypatch.setattr("haystack_distill.students.layer_search.find_stack", lambda _: range(depth))

    def score(keep):
        search.scores[keep] = -sum(abs(a - b) for a, b in zip(keep, planted, strict=True))
        return search.scores[keep]

    monkeypatch.setattr(search, "_score", score)
    found = search.best(layers)
    assert len(search.scores) <= MAX_CANDIDATES
    start = max(score(one) for one in starting_points(depth, layers))
    assert found == planted or (depth > 12 and score(found) > start)


def test_exchanges_differ_in_one_layer():
    candidates = exchanges((0, 5), 6)
    assert len(candidates) == len(set(candidates)) == 8
    assert all(len(set(candidate) & {0, 5}) == 1 for candidate in candidates)


def test_more_layers_than_there_are(teacher):
    with pytest.raises(ValueError, match="the encoder has 6 layers"):
        LayerSearch(teacher, lambda _: 0.0, [], set()).best(7)
