"""A query's vector, as its model makes it; any sentence-transformers folder serves."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from haystack.utils import Secret
from sentence_transformers import SentenceTransformer

from haystack_distill import KaleQueryEncoder

QUERY = "river bridge stone winter"


class TestKaleQueryEncoder:
    def test_vectors_are_the_models(self, bert):
        embedding = KaleQueryEncoder(model=bert).run(text=QUERY)["embedding"]
        assert np.allclose(embedding, SentenceTransformer(bert, device="cpu").encode(QUERY), atol=1e-6)
        assert isinstance(embedding[0], float)

    def test_async_gives_the_same(self, bert):
        encoder = KaleQueryEncoder(model=bert)
        assert asyncio.run(encoder.run_async(text=QUERY)) == encoder.run(text=QUERY)

    def test_warm_up_from_many_threads_loads_once(self, bert, monkeypatch):
        loads = []
        load = KaleQueryEncoder._load
        monkeypatch.setattr(KaleQueryEncoder, "_load", lambda self: (loads.append(1), load(self))[1])
        encoder = KaleQueryEncoder(model=bert)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: encoder.run(text=QUERY)["embedding"], range(16)))
        assert len(loads) == 1
        assert all(np.allclose(one, found[0], atol=1e-6) for one in found)

    def test_to_dict_and_back(self, bert):
        settings = {"backend": "onnx", "precision": "int8", "threads": 2, "cache_size": 5, "revision": "v1"}
        settings["token"] = Secret.from_env_var("HF_TOKEN", strict=False)
        data = KaleQueryEncoder(model=bert, **settings).to_dict()
        assert data == {
            "type": "haystack_integrations.components.distill.kale_query_encoder.KaleQueryEncoder",
            "init_parameters": {"model": bert, "device": None, **settings, "token": settings["token"].to_dict()},
        }
        assert KaleQueryEncoder.from_dict(data).to_dict() == data

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_an_empty_query(self, text, bert):
        with pytest.raises(ValueError, match="query is empty"):
            KaleQueryEncoder(model=bert).run(text=text)

    def test_several_queries(self, bert):
        with pytest.raises(TypeError, match="embeds queries"):
            KaleQueryEncoder(model=bert).run(text=["a", "b"])

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="make it with `haystack-distill align`"):
            KaleQueryEncoder(model=str(tmp_path / "nowhere")).warm_up()

    def test_a_folder_that_is_no_model(self, tmp_path):
        with pytest.raises(ValueError, match=r"no modules\.json"):
            KaleQueryEncoder(model=str(tmp_path)).warm_up()
