"""Tiny random readers of each family, and slow, plain computations to hold the teachers' scores against."""

from unittest.mock import patch

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

from haystack_distill.teachers.scores import Candidates
from tests.conftest import sentences

ROW = Candidates("river bridge stone?", [*sentences(3, 5), sentences(1, 6, 15)[0]], ["market garden"])
CLOSE = {"rtol": 1e-4, "atol": 1e-4}

CHAT = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 400,
}
CAUSAL = {
    "llama": (LlamaConfig, {}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {}),
    "mistral": (MistralConfig, {"sliding_window": 130}),
    "gemma2": (Gemma2Config, {"sliding_window": 130, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0}),
    "gemma3": (
        Gemma3TextConfig,
        {
            "sliding_window": 130,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "gpt_oss": (GptOssConfig, {"sliding_window": 130, "num_local_experts": 2, "num_experts_per_tok": 1}),
}
FUSION = {
    "t5": (
        T5Config,
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    ),
    "bart": (
        BartConfig,
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 128,
            "decoder_start_token_id": 3,
            "forced_eos_token_id": None,
            "forced_bos_token_id": 2,
        },
    ),
}


FRAMES = {"t5": "$A </s>", "bart": "<s> $A </s>"}
"""What the tokenizers of the families write around a text; of decoder-only models a beginning."""


def byte_tokenizer(family: str = "llama", *, chat: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as most language models have it: any text has tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<pad>", "<unk>", "<s>", "</s>", "<|start|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        sentences(60), trainers.BpeTrainer(vocab_size=450, special_tokens=special, initial_alphabet=alphabet)
    )
    frame = FRAMES.get(family, "<s> $A")
    raw.post_processor = processors.TemplateProcessing(
        single=frame, special_tokens=[(token, number) for number, token in enumerate(special)]
    )
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        additional_special_tokens=special[4:],
        chat_template=CHAT if chat else None,
        **names,
    )


def save_reader(family: str, folder, *, seed: int = 0, chat: bool = False) -> str:
    """A random model of a family, saved as a user would have it."""
    tokenizer = byte_tokenizer(family, chat=chat)
    ends = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    torch.manual_seed(seed)
    if family in CAUSAL:
        config_class, own = CAUSAL[family]
        model = AutoModelForCausalLM.from_config(config_class(**{**SIZES, **ends, **own}))
    else:
        config_class, own = FUSION[family]
        model = AutoModelForSeq2SeqLM.from_config(config_class(**{**ends, **own}))
    with torch.no_grad():
        for name, weights in model.named_parameters():
            # Attention of a fresh model is nearly uniform, so that wrong rows or columns would hardly show.
            if weights.dim() > 1 or "sinks" in name:
                weights.normal_(0, 0.3)
    if "forced_bos_token_id" in own:  # as the generation configs of BART's checkpoints have it
        model.generation_config.forced_bos_token_id = own["forced_bos_token_id"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def load_eager(folder: str):
    """The same model on the plain attention that returns its weights."""
    kind = AutoModelForSeq2SeqLM if any(name in folder for name in FUSION) else AutoModelForCausalLM
    return kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def tokens_between(tokenizer, text: str, start: int, end: int) -> list[int]:
    """Places of the tokens that hold one of the characters from `start` to `end`, one character at a time."""
    encoded = tokenizer(text)
    return sorted({encoded.char_to_token(place) for place in range(start, end)})


def slow_log_likelihoods(model, tokenizer, before: str, target: str, *, ended: bool) -> torch.Tensor:
    """
    Log-likelihoods of a text after another, by transformers' own loss of a causal model, one token at a time.

    With the end token where `ended`; the whole vocabulary at every place.
    """
    ids = tokenizer(before + target)["input_ids"]
    first = tokens_between(tokenizer, before + target, len(before), len(before) + 1)[0]
    ids += [tokenizer.eos_token_id] if ended else []
    values = []
    for place in range(first, len(ids)):
        labels = torch.full((1, len(ids)), -100)
        labels[0, place] = ids[place]
        with torch.no_grad():
            values.append(-model(input_ids=torch.tensor([ids]), labels=labels).loss)
    return torch.stack(values)


def slow_attention(model, **inputs):
    """Weights, scores before the softmax, and value vectors of every attention layer, by the model's own eager code."""
    scores, values = [], []
    softmax, matmul = torch.nn.functional.softmax, torch.matmul

    def recording_softmax(tensor, *args, **kwargs):
        if tensor.dim() == 4:
            scores.append(tensor.detach())
        return softmax(tensor, *args, **kwargs)

    def recording_matmul(first, second):
        if scores and first.dim() == 4 and first.shape[:2] == second.shape[:2] and first.shape[-1] == second.shape[-2]:
            if len(values) < len(scores):
                values.append(second.detach())
        return matmul(first, second)

    with (
        torch.no_grad(),
        patch("torch.nn.functional.softmax", recording_softmax),
        patch("torch.matmul", recording_matmul),
    ):
        output = model(**inputs, output_attentions=True)
    return output, scores, values
