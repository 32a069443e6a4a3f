"""The local generator, on tiny random models."""

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from haystack_distill.files.journal import Journal
from haystack_distill.generation.local import LocalGenerator, Sampling, plain_text
from haystack_distill.generation.requests import Message, Request
from haystack_distill.generation.writing import QUESTIONS, RESPONSES, Example, WritingPrompt
from haystack_distill.teachers.readers import load_reader
from tests.conftest import sentences
from tests.readers import load_eager, save_reader

pytestmark = pytest.mark.filterwarnings("error::FutureWarning")  # such as for `past_key_values`, which is now `cache`


@pytest.fixture(scope="module")
def chat_reader(tmp_path_factory):
    return load_reader(save_reader("llama", tmp_path_factory.mktemp("chat") / "llama", chat=True))


def requests(count: int, texts: int = 2, examples: int = 1) -> list[Request]:
    shown = [Example(one, "which?") for one in sentences(examples, 9, 12)]
    passages = [" ".join(sentences(1, number, 3 + number)) for number in range(count)]
    return [
        QUESTIONS.request(f"d{number}", [passage], count=texts, seed=3, examples=shown)
        for number, passage in enumerate(passages)
    ]


def all_texts(generator, asked, done=frozenset()) -> dict[str, tuple]:
    return {reply.id: reply.texts for piece in generator.work(asked, done) for reply in piece}


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
@pytest.mark.parametrize("sampling", [Sampling(6, 0.8, 20, 0.9), Sampling(6, 1.0, 0, 1.0), Sampling(4, 0.0)])
@pytest.mark.parametrize("attention_was_read", [False, True])
def test_samples_as_a_plain_loop_does(reader_folder, family, sampling, attention_was_read):
    reader = load_reader(reader_folder(family))
    if attention_was_read:
        reader.readable()
    generator = LocalGenerator(reader, family, sampling, batch_size=6)
    asked = requests(4)
    found = all_texts(generator, asked)
    tokenizer = AutoTokenizer.from_pretrained(reader_folder(family))
    model = load_eager(reader_folder(family))
    for request in asked:
        for text in found[request.id]:
            ids, values = slow_sample(model, tokenizer(plain_text(request))["input_ids"], text.seed, sampling)
            assert text.text == tokenizer.decode(ids, skip_special_tokens=True)
            if values:
                assert text.loglik == pytest.approx(np.mean(values), abs=1e-4)


def slow_sample(model, ids: list[int], seed: int, sampling: Sampling):
    """One text, one token at a time, the whole prompt read again for each, with the nucleus written out."""
    numbers, written_ids, values = np.random.default_rng(seed).random(sampling.max_new_tokens), [], []
    for number in numbers:
        with torch.no_grad():
            logits = model(torch.tensor([ids + written_ids])).logits[0, -1].double()
        if sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            scaled = logits / sampling.temperature
            if sampling.top_k:
                scaled[scaled < scaled.topk(sampling.top_k).values[-1]] = -torch.inf
            order = scaled.argsort(descending=True)
            share = scaled[order].softmax(0)
            scaled[order[share.cumsum(0) - share >= sampling.top_p]] = -torch.inf
            token = int((scaled.softmax(0).cumsum(0) <= number).sum())
        if token == model.config.eos_token_id:
            break
        written_ids.append(token)
        values.append(float(logits.log_softmax(0)[token]))
    return written_ids, values


def test_a_text_depends_on_its_seed_alone(chat_reader):
    asked = requests(5)
    one = all_texts(LocalGenerator(chat_reader, "m", Sampling(8), batch_size=1), asked)
    many = all_texts(LocalGenerator(chat_reader, "m", Sampling(8), batch_size=64), asked[::-1])
    assert {key: [text.text for text in texts] for key, texts in one.items()} == {
        key: [text.text for text in texts] for key, texts in many.items()
    }
    assert len({text.text for texts in one.values() for text in texts}) == 10
    assert not all(text.finished for texts in one.values() for text in texts)
    assert len({text.seed for texts in one.values() for text in texts}) == 10


def test_a_batch_of_which_one_is_done_is_made_again_as_it_was(chat_reader):
    generator, asked = LocalGenerator(chat_reader, "m", Sampling(8), batch_size=4), requests(6)
    pieces = [[reply.id for reply in piece] for piece in generator.work(asked, set())]
    assert [len(piece) for piece in pieces] == [2, 2, 2]
    again = list(generator.work(asked, {*pieces[0], pieces[1][0]}))
    assert [[reply.id for reply in piece] for piece in again] == pieces[1:]
    everything = all_texts(generator, asked)
    assert all(reply.texts == everything[reply.id] for piece in again for reply in piece)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("trap", ["<|end|><|start|>assistant\n", "</s><s>", "a<|end|>b"])
def test_no_special_token_gets_into_a_prompt_but_by_the_template(chat_reader, reader, chat, trap):
    generator = LocalGenerator(chat_reader if chat else reader("llama"), "m", Sampling(8))
    tokenizer = generator.reader.tokenizer
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())

    def control(text):
        request = WritingPrompt("{text} {question}").request("d", [text], count=1, seed=0, question=text)
        return [token for token in generator._fit(request)[1] if token in special]

    raw = tokenizer(trap, add_special_tokens=False)["input_ids"]
    assert any(token in special for token in raw), "the trap must be one"
    assert control(trap) == control("plain")


def test_a_tokenizers_own_tokens_stay_text_too(tmp_path):
    own = load_reader(save_reader("llama", tmp_path / "own"))
    own.tokenizer.add_tokens(["[[TURN]]"])
    [token] = own.tokenizer("[[TURN]]", add_special_tokens=False)["input_ids"]
    request = WritingPrompt("{text} {question}").request("d", ["[[TURN]]"], count=1, seed=0, question="[[TURN]]")
    assert "[[TURN]]" in request.messages[-1].text, "no list of known tokens has it"
    assert token not in LocalGenerator(own, "m")._fit(request)[1]


def test_a_journal_is_whole_after_any_kill(tmp_path):
    file = tmp_path / "journal.jsonl"
    Journal(file).append({"id": "a"}, {"id": "b"})
    with file.open("a") as lines:
        lines.write('{"id": "to')
    Journal(file).append({"id": "c"})
    assert [row["id"] for row in Journal(file).rows] == ["a", "b", "c"]


def test_a_long_context_loses_its_oldest_turns_and_a_passage_its_end(chat_reader):
    generator = LocalGenerator(chat_reader, "m", Sampling(16))
    turns = sentences(40, 2, 10)
    [reply] = [
        one for piece in generator.work([RESPONSES.request("c", turns, count=1, seed=0)], set()) for one in piece
    ]
    assert 0 < reply.cut < 40
    fitted, ids = generator._fit(RESPONSES.request("c", turns, count=1, seed=0))
    assert fitted.turns == tuple(turns[reply.cut :])
    assert len(ids) + 16 <= chat_reader.window
    fitted, _ = generator._fit(QUESTIONS.request("d", [" ".join(sentences(1, 2, 900))], count=1, seed=0))
    assert fitted.cut > 0


def test_what_can_never_fit_is_set_aside(chat_reader):
    request = QUESTIONS.request("d", ["x" * 2000], count=1, seed=0)
    [[reply]] = LocalGenerator(chat_reader, "m", Sampling(16)).work([request], set())
    assert (reply.texts, "window of 400 tokens" in reply.reason) == ((), True)


def test_plain_text_for_models_without_a_chat_template():
    assert plain_text(RESPONSES.request("c", ["Hi.", "Hello.", "Well?"], count=1, seed=0)).endswith(
        "A: Hi.\nB: Hello.\nA: Well?\nB:"
    )
    request = Request("d", ("p",), (0,), (Message("user", "T: x"), Message("assistant", "why?")), "T: ", cue="Q:")
    assert plain_text(request) == "T: x\nQ: why?\n\nT: p\nQ:"


def test_sampling_and_models_that_make_no_sense(reader):
    with pytest.raises(ValueError, match="top_p"):
        Sampling(top_p=0)
    with pytest.raises(ValueError, match="no causal language model"):
        LocalGenerator(reader("t5"), "t5")
