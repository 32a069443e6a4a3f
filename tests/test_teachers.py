# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Every signal against a slow, plain computation, on tiny random models of each family."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haystack_distill.teachers import prompts as default
from haystack_distill.teachers.attention_signals import AttentionTeacher, passage_orders, without_outliers
from haystack_distill.teachers.heads import Example, Heads, select_heads
from haystack_distill.teachers.likelihood import SIGNALS, LikelihoodTeacher
from haystack_distill.teachers.prompts import Prompt, UnscorableError
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates
from tests.conftest import sentences
from tests.readers import CAUSAL, FUSION, load_eager, save_reader, slow_attention, slow_log_likelihoods

ROW = Candidates("river bridge stone?", [*sentences(3, 5), sentences(1, 6, 15)[0]], ["market garden"])
OTHER = Candidates("winter candle", sentences(2, 9, 4), ["feather hammer island", "unused"])
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="session")
def reader_folder(tmp_path_factory):
    made: dict[str, str] = {}

    def folder(family: str) -> str:
        if family not in made:
            made[family] = save_reader(family, tmp_path_factory.mktemp("readers") / family)
        return made[family]

    return folder


@pytest.fixture(scope="session")
def reader(reader_folder):
    loaded = {}

    def get(family: str, **settings):
        key = (family, *sorted(settings.items()))
        if key not in loaded:
            loaded[key] = load_reader(reader_folder(family), **settings)
        return loaded[key]

    return get


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
            dkrr.append(float(read[read > -1e30].mean()))
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
