"""A reader is refused where its checkpoint or its tokenizer does not say what the model needs."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from haystack_distill.teachers.readers import load_reader
from tests.readers import CLOSE, save_reader


def rename(folder, change):
    """Save the weights of a folder under other names; None leaves one out."""
    file = f"{folder}/model.safetensors"
    weights = {change(name): tensor for name, tensor in load_file(file).items()}
    save_file({name: tensor for name, tensor in weights.items() if name}, file, metadata={"format": "pt"})


def test_a_reader_as_fusion_in_decoder_released_it_is_refused(tmp_path):
    """Its encoder and each of the encoder's blocks are wrapped, so that transformers finds none of their weights."""
    folder = save_reader("t5", tmp_path / "t5")
    inner = re.compile(r"^encoder\.block\.(\d+)\.")
    rename(folder, lambda name: re.sub(r"^encoder\.", "encoder.encoder.", inner.sub(r"encoder.block.\1.module.", name)))
    message = r"reader .*t5 lacks \d+ of the model's weights, such as 'encoder.block.0.layer.0.*It has 'encoder.encoder"
    with pytest.raises(ValueError, match=message):
        load_reader(folder)


@pytest.mark.parametrize(
    ("family", "lost"), [("llama", "model.layers.2.mlp.up_proj.weight"), ("bart", "model.decoder.layers.1.fc1.bias")]
)
def test_a_truncated_checkpoint_is_refused_by_the_name_of_what_is_missing(family, lost, tmp_path):
    folder = save_reader(family, tmp_path / family)
    assert lost in load_file(f"{folder}/model.safetensors")
    rename(folder, lambda name: None if name == lost else name)
    with pytest.raises(ValueError, match=f"lacks 1 of the model's weights, such as '{lost}'"):
        load_reader(folder)


@pytest.mark.parametrize("family", ["t5", "bart", "gemma2"])
def test_weights_that_are_tied_to_others_are_not_missing(family, tmp_path):
    folder = save_reader(family, tmp_path / family)
    weights = load_file(f"{folder}/model.safetensors")
    assert not any("lm_head" in name for name in weights)
    head = load_reader(folder).model.get_output_embeddings().weight
    torch.testing.assert_close(
        head.float(), next(value for name, value in weights.items() if name.endswith(TIED)), **CLOSE
    )


TIED = ("shared.weight", "embed_tokens.weight")


@pytest.mark.parametrize(
    ("frame", "forced", "shown"),
    [
        ("<|start|> <s> $A </s>", None, r"\[4, 2\] before and \[3\] after"),
        ("$A </s> <|end|>", None, r"\[\] before and \[3, 5\] after"),
        ("<s> $A </s>", 4, r"the model forces 4 at its beginning"),
    ],
)
def test_a_decoder_whose_texts_are_framed_otherwise_is_refused(frame, forced, shown, tmp_path, monkeypatch):
    from tests import readers

    monkeypatch.setitem(readers.FRAMES, "bart", frame)
    config_class, settings = readers.FUSION["bart"]
    monkeypatch.setitem(readers.FUSION, "bart", (config_class, {**settings, "forced_bos_token_id": forced}))
    with pytest.raises(ValueError, match=f"How the decoder of BartForConditional.* is not known.*{shown}"):
        load_reader(save_reader("bart", tmp_path / "bart"))


def test_a_decoder_without_a_start_token_is_refused(tmp_path, monkeypatch):
    from tests import readers

    config_class, settings = readers.FUSION["t5"]
    monkeypatch.setitem(readers.FUSION, "t5", (config_class, {**settings, "decoder_start_token_id": None}))
    with pytest.raises(ValueError, match="names no decoder_start_token_id"):
        load_reader(save_reader("t5", tmp_path / "t5"))
