"""Loading a reader by its name: whichever of the kinds it is, from a folder, a hub, or a GGUF file."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from haystack_distill.files.precision import bf16_is_fast
from haystack_distill.teachers.causal import CausalReader
from haystack_distill.teachers.fusion_in_decoder import FusionReader
from haystack_distill.teachers.prompt_encoding import MAX_PASSAGE_TOKENS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_reader(
    name: str,
    *,
    dtype: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
    max_passage_tokens: int = MAX_PASSAGE_TOKENS,
    **arguments: Any,
) -> CausalReader | FusionReader:
    """
    Load a reader.

    :param name: A folder, a hub name, or a GGUF file.
    :param dtype: `float32`, `bfloat16` or `float16`. None keeps models that are stored in 16 bits in bfloat16 where the
        device multiplies it, and takes float32 otherwise.
    :raises ValueError: If there is no model of that name, it is no reader, or weights are missing.
    """
    if dtype is not None and dtype not in DTYPES:
        msg = f"There is no dtype {dtype!r}: {', '.join(DTYPES)}, or none."
        raise ValueError(msg)
    if batch_size < 1:
        msg = f"batch_size must be at least 1, not {batch_size}."
        raise ValueError(msg)
    folder, path = name, Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            msg = f"The GGUF file {path} is missing."
            raise ValueError(msg)
        folder, arguments = str(path.parent), {**arguments, "gguf_file": path.name}
    try:
        config = AutoConfig.from_pretrained(folder, **arguments)
        tokenizer = AutoTokenizer.from_pretrained(folder, **arguments)
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        chosen = DTYPES[dtype] if dtype else _precision(config, torch.device(device or "cpu"))
        model, loading = kind.from_pretrained(
            folder, dtype=chosen, output_loading_info=True, **_unpacked(arguments), **arguments
        )
    except (OSError, ValueError, KeyError) as error:
        msg = f"The reader {name} could not be loaded as a causal or an encoder-decoder language model: {error}"
        raise ValueError(msg) from error
    _check_whole(name, sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"]))
    reader: Any = FusionReader if config.is_encoder_decoder else CausalReader
    return reader(model.to(device or "cpu"), tokenizer, batch_size=batch_size, max_passage_tokens=max_passage_tokens)


def _check_whole(name: str, missing: list[str], unexpected: list[str]) -> None:
    """Refuse a model that would begin with random numbers where its checkpoint has no weights; tied ones are there."""
    if missing:
        instead = f" It has {unexpected[0]!r} and {len(unexpected) - 1} others instead." if unexpected else ""
        msg = (
            f"The checkpoint of the reader {name} lacks {len(missing)} of the model's weights, such as {missing[0]!r}."
            f"{instead} Save it with `save_pretrained` of the model that transformers loads, under its names."
        )
        raise ValueError(msg)


def _precision(config: Any, device: torch.device) -> torch.dtype:
    stored = getattr(config.get_text_config(decoder=True), "dtype", None)
    sixteen_bits = stored in {torch.bfloat16, torch.float16}
    return torch.bfloat16 if sixteen_bits and bf16_is_fast(device) else torch.float32


def _unpacked(arguments: dict[str, Any]) -> dict[str, Any]:
    """Weights of a GGUF file as plain ones: kept in their blocks, every multiplication would unpack them again."""
    if "gguf_file" not in arguments or not hasattr(transformers, "GgufConfig"):
        return {}
    return {"quantization_config": transformers.GgufConfig(dequantize=True)}
