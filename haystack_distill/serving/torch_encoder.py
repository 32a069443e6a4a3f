"""The student on torch, through sentence-transformers: the reference that the other backends are checked against."""

import math
import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from haystack_distill.serving.backends import export_name
from haystack_distill.serving.encoder import WINDOW, Encoder
from haystack_distill.students.prompt import prompt_for


def torch_encoder(model: Path, precision: str = "fp32", device: str | None = None) -> Encoder:
    """Load a student with sentence-transformers; for int8 its linear layers are quantised, per channel, on the CPU."""
    student = SentenceTransformer(str(model), device="cpu" if precision == "int8" else device, local_files_only=True)
    student.eval()
    if precision == "int8":
        if device not in {None, "cpu"}:
            msg = f"The torch backend computes int8 on the CPU only, not on {device}: use fp32 there."
            raise ValueError(msg)
        student = _quantised(student)

    prompt = prompt_for("query", student.prompts, student.default_prompt_name) or None

    def encode_batch(texts: list[str]) -> np.ndarray:
        # int8 activations share their scale with everything in the batch.
        size = 1 if precision == "int8" else 32
        vectors = student.encode(texts, prompt=prompt, batch_size=size, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    window = student.get_max_seq_length() or math.inf  # infinite for a table that truncates nothing
    return Encoder(
        export_name("torch", precision),
        lambda text: encode_batch([text])[0],
        encode_batch,
        WINDOW if math.isinf(window) else int(window),
    )


def _quantised(student: SentenceTransformer) -> SentenceTransformer:
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this will move to another package
        quantised: SentenceTransformer = quantize_dynamic(student, {torch.nn.Linear: per_channel_dynamic_qconfig})
    return quantised
