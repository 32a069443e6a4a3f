"""Exporting a student to the runtimes that serve it, with a check that nothing was lost on the way."""

import logging
import shutil
import warnings
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import Tensor, nn

from haystack_distill.data.similarity import cosines
from haystack_distill.evaluation.dev_set import DevSet
from haystack_distill.files.folders import published
from haystack_distill.files.layout import PROVENANCE
from haystack_distill.serving.backends import BACKENDS, EXPORTS, export_name, split_name
from haystack_distill.serving.encoder import WINDOW, Encoder
from haystack_distill.serving.exports import CHECK, GRAPH, TOKENIZER, WEIGHTS, Export, digest, write_manifest
from haystack_distill.serving.graph import graph_encoder
from haystack_distill.serving.token_table import is_table
from haystack_distill.serving.torch_encoder import torch_encoder
from haystack_distill.students.prompt import prompt_for

logger = logging.getLogger(__name__)

OPSET = 18
SAME = 0.9999
"""Mean cosine from which two full-precision backends count as computing the same."""

MIN_SHARE = 0.99
"""Share of the full-precision dev nDCG@10 that an export must keep."""

CHECK_QUERIES = 16


def check_can_export(names: list[str], layers: int) -> None:
    """
    Find out before a long training whether its student could be exported.

    :param names: What will be exported, as in `onnx-int8`.
    :param layers: How many layers the student will have; 0 is a token table.
    :raises ImportError: If a package is missing.
    :raises ValueError: If a name is not known or stands for the student itself, or a token table is to be exported.
    """
    for name in names:
        backend, _ = split_name(name)
        if name not in EXPORTS:
            msg = f"{name} is the student itself: there is nothing to export."
            raise ValueError(msg)
        if layers == 0:
            msg = f"A token table is served with numpy as it is: leave `export: [{name}]` out."
            raise ValueError(msg)
        missing = [package for package in BACKENDS[backend].makers if find_spec(package) is None]
        if missing:
            msg = f"Exporting for {backend} needs {missing[0]}: pip install 'haystack-distill[export,{backend}]'"
            raise ImportError(msg)


def export(model: str | Path, backend: str, precision: str, dev: DevSet) -> Path:
    """
    Export a student for a backend, beside the student, and check it against full precision on dev queries.

    :param backend: A name of `BACKENDS`.
    :raises FileExistsError: If the export is there already.
    :raises ImportError: If a package of the backend is missing.
    :raises ValueError: If the student can't be exported, or if the export keeps too little of its quality.
    """
    folder, name, row = Path(model), export_name(backend, precision), BACKENDS[backend]
    check_can_export([name], layers=0 if is_table(folder) else 1)
    reference = torch_encoder(folder, device="cpu")
    with published(folder / name) as place:
        student = SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"attn_implementation": "eager"}
        ).eval()
        manifest = Export(
            backend,
            precision,
            digest(folder / WEIGHTS),
            prompt_for("query", student.prompts, student.default_prompt_name),
            dev.texts[:CHECK_QUERIES],
            cosine=1.0,
            share=1.0,
            made_with={**{name: metadata.version(name) for name in (*row.makers, "torch")}, "opset": OPSET},
        )
        if row.open_graph is not None:
            _write_graph(student, place)
            if precision == "int8" and row.quantize is not None:
                row.quantize(place / GRAPH)
        if (folder / PROVENANCE).is_file():  # the export may be carried away from its model
            shutil.copyfile(folder / PROVENANCE, place / PROVENANCE)
        write_manifest(place, manifest)
        exported = graph_encoder(place, manifest, threads=1) if row.open_graph else torch_encoder(folder, precision)
        cosine, share, vectors = _compare(exported, reference, dev)
        _refuse_loss(name, precision, cosine, share)
        np.save(place / CHECK, vectors[:CHECK_QUERIES], allow_pickle=False)
        write_manifest(place, Export(**{**vars(manifest), "cosine": cosine, "share": share}))
    logger.info("%s: %.1f %% of the dev nDCG@10 at full precision, mean cosine %.4f.", name, 100 * share, cosine)
    return folder / name


def _compare(exported: Encoder, reference: Encoder, dev: DevSet) -> tuple[float, float, np.ndarray]:
    """Mean cosine, share of nDCG@10, and the reference's vectors."""
    expected, vectors = reference.encode_batch(dev.texts), exported.encode_batch(dev.texts)
    before = dev.ndcg(expected)
    share = dev.ndcg(vectors) / before if before else 1.0
    return float(cosines(vectors, expected).mean()), share, expected


def _refuse_loss(name: str, precision: str, cosine: float, share: float) -> None:
    if precision == "fp32" and not cosine >= SAME:
        msg = (
            f"The export {name} does not compute what the student does (mean cosine {cosine:.4f}): its architecture "
            "can't be exported, so serve it with the torch backend."
        )
        raise ValueError(msg)
    if not share >= MIN_SHARE:
        msg = (
            f"The export {name} keeps {100 * share:.1f} % of the student's dev nDCG@10 (mean cosine {cosine:.4f}); at "
            f"least {100 * MIN_SHARE:g} % is asked for: export with precision fp32."
        )
        raise ValueError(msg)


class _Graph(nn.Module):
    """The whole encoder, pooling and normalisation included, for texts of one length: no mask."""

    def __init__(self, student: SentenceTransformer) -> None:
        super().__init__()
        self.transformer: Any = student[0].auto_model
        self.rest = nn.ModuleList(list(student)[1:])

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids `[batch, length]` -> vectors `[batch, dim]`."""
        everything = torch.ones_like(input_ids)
        # Without a mask decoders look for packed sequences, with an operator that ONNX lacks; encoders don't need one.
        mask = everything if hasattr(self.transformer, "embed_tokens") else None
        features: dict[str, Any] = {
            "token_embeddings": self.transformer(input_ids=input_ids, attention_mask=mask).last_hidden_state,
            "attention_mask": everything,
        }
        for module in self.rest:
            features = module(features)
        return features["sentence_embedding"]


def _write_graph(student: SentenceTransformer, place: Path) -> None:
    example = torch.tensor([student.tokenizer("a query to trace").input_ids] * 2)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # what the tracer warns of is what the check below would find
        torch.onnx.export(
            _Graph(student),
            (example,),
            str(place / GRAPH),
            input_names=["input_ids"],
            output_names=["embedding"],
            dynamic_axes={"input_ids": {0: "batch", 1: "length"}, "embedding": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    tokenizer = Tokenizer.from_str(student.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=student.get_max_seq_length() or WINDOW)
    tokenizer.save(str(place / TOKENIZER))
