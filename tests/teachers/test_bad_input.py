"""What teachers can't score or read is named."""

import pytest
import torch

from haystack_distill.teachers.attention_signals import AttentionTeacher
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.prompts import UnscorableError
from haystack_distill.teachers.readers import load_reader
from haystack_distill.teachers.scores import Candidates
from tests.readers import ROW, save_reader

pytestmark = pytest.mark.filterwarnings("error::FutureWarning")  # such as for `past_key_values`, which is now `cache`


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
