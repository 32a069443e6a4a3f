"""`StaticEmbedding`s that this package did not make."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from haystack_distill.serving.opening import open_encoder


class TestTablesOfOthers:
    @staticmethod
    def saved(table, folder, change):
        model = SentenceTransformer(str(table), device="cpu")
        change(model)
        model.save(str(folder), create_model_card=False)
        return str(folder)

    @pytest.mark.parametrize("what", ["prompt", "prompt for queries", "dense", "truncated"])
    def test_what_changes_vectors_is_not_left_out(self, what, table, tmp_path):
        def change(model):
            if what == "prompt":
                model.prompts, model.default_prompt_name = {"any": "river stone winter "}, "any"
            elif what == "prompt for queries":
                model.prompts, model.default_prompt_name = {"query": "river stone winter "}, None
            elif what == "dense":
                model.append(Dense(32, 8))
            else:
                model.truncate_dim = 8

        folder = self.saved(table, tmp_path / "other", change)
        prompt = "river stone winter " if "prompt" in what else None
        expected = SentenceTransformer(folder, device="cpu").encode("bridge", prompt=prompt)
        assert np.allclose(open_encoder(folder).encode("bridge"), expected, atol=1e-6)

    def test_tokens_that_mean_nothing(self, table, tmp_path):
        def change(model):
            model[0].embedding.weight.data.zero_()

        folder = self.saved(table, tmp_path / "other", change)
        with pytest.raises(ValueError, match="tokens that the encoder knows nothing of"):
            open_encoder(folder).encode("river")

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_no_numbers(self, table, tmp_path, value):
        def change(model):
            model[0].embedding.weight.data[3, 1] = value

        with pytest.raises(ValueError, match=r"model\.safetensors is damaged: some of its values are no numbers"):
            open_encoder(self.saved(table, tmp_path / "other", change))
