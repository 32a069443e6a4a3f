"""
Files that are broken in every way that Hypothesis thinks of, for every reader: what they get is one sentence.

A reader either reads a file or refuses it with an error that this package raised itself and that names the file. The
tests give each reader 200 files; `python -m benchmarks.faults --inputs 10000` gives it more.
"""

import base64
import json
import time
import traceback
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from haystack.core.errors import DeserializationError, PipelineError
from haystack.core.super_component.super_component import InvalidMappingTypeError, InvalidMappingValueError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as tensors

from haystack_distill.data.beir import read_beir, read_corpus, read_queries
from haystack_distill.data.dialogues import read_dialogues
from haystack_distill.data.index import open_index, read_index
from haystack_distill.data.questions import read_questions
from haystack_distill.data.training_set import MANIFEST, Row, TrainingSet, write_training_set
from haystack_distill.evaluation.dev_set import read_dev_set
from haystack_distill.evaluation.pointer import read_pointer
from haystack_distill.evaluation.proof import read_figures
from haystack_distill.files.journal import Journal
from haystack_distill.files.runs import claim
from haystack_distill.responses.judging import read_system, unblinded
from haystack_distill.responses.rows import read_responses
from haystack_distill.serving.exports import read_export
from haystack_distill.serving.token_table import is_table
from haystack_distill.teachers.heads import Heads
from haystack_integrations.components.distill.pipelines import load_pipeline

OWN = ("haystack_distill", "haystack_integrations/components/distill")
OF_HAYSTACK = (DeserializationError, PipelineError, InvalidMappingTypeError, InvalidMappingValueError)
"""What Haystack says of a YAML that is no pipeline; the command line says it in one sentence."""

DEEP, DIGITS = "@deep@", "@digits@"
RAW = {f'"{DEEP}"': "[" * 5000, f'"{DIGITS}"': "9" * 5000}
"""What no writer of JSON writes: brackets without end, and a number without end."""

STRANGE: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["", " ", "\ud83d", "x\ude00", "\0", "../../x", "<!--<script>", DEEP, DIGITS, "__proto__", "1e999"]
    ),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.text(max_size=3)), max_size=2),
)


@dataclass(frozen=True)
class Reader:
    """
    A reader, and what it reads.

    :param file: The file in a folder that is broken.
    :param content: The broken file.
    :param read: Reads it, given the folder.
    :param make: Writes what else belongs into the folder; the file too, if its content is made of the whole one.
    """

    file: str
    content: st.SearchStrategy[bytes]
    read: Callable[[Path], Any]
    make: Callable[[Path], Any] = lambda _: None


def run(reader: Reader, count: int) -> dict[str, float]:
    """
    Give a reader broken files; one that it answers with anything but a sentence of its own is an AssertionError.

    :param count: How many files.
    :returns: How many were `read` and how many `refused`, and the seconds of computing that the `slowest` took.
    """
    seen = {"read": 0, "refused": 0, "slowest": 0.0}
    with TemporaryDirectory() as kept:
        folder = Path(kept)
        reader.make(folder)

        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            derandomize=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(content=reader.content)
        def broken(content: bytes) -> None:
            (folder / reader.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / reader.file).write_bytes(content)
            start = time.process_time()
            try:
                reader.read(folder)
            except OF_HAYSTACK:
                seen["refused"] += 1
            except Exception as error:
                _check_sentence(error, folder)
                seen["refused"] += 1
            else:
                seen["read"] += 1
            seen["slowest"] = max(seen["slowest"], time.process_time() - start)

        broken()
    return seen


def _check_sentence(error: Exception, folder: Path) -> None:
    where = traceback.extract_tb(error.__traceback__)[-1].filename
    assert any(part in where for part in OWN), f"not the package's own: {error!r}"
    assert isinstance(error, ValueError | FileNotFoundError), f"no error of input: {error!r}"
    said = str(error)
    assert str(folder) in said, f"it does not say where: {said}"
    assert "\n" not in said, f"more than a line: {said}"
    assert len(said) < 700 + len(str(folder)), f"too long: {said}"
    said.encode()


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A value with one of its parts replaced, left out or doubled."""
    value = deepcopy(value)
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(STRANGE)
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    how = draw(st.integers(0, 5))
    if how == 0:
        del value[key]
    elif how == 1 and isinstance(value, list):
        value.append(value[key])
    elif how == 1 and isinstance(value, dict):
        value[draw(st.text(max_size=4))] = draw(STRANGE)
    else:
        value[key] = draw(mutated(value[key]))
    return value


def written(value: Any) -> str:
    """JSON, with what no writer would write."""
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(name, raw)
    return text


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that are cut, changed, put in another encoding, or others."""
    how = draw(st.integers(0, 5))
    if how == 0:
        return content[: draw(st.integers(0, len(content)))]
    if how == 1:
        place = draw(st.integers(0, max(0, len(content) - 1)))
        return content[:place] + draw(st.binary(min_size=1, max_size=4)) + content[place + 1 :]
    if how == 2:
        return draw(st.binary(max_size=30))
    if how == 3:
        return draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b"\0"])) + content
    return content


def json_of(value: Any) -> st.SearchStrategy[bytes]:
    """A JSON file like this one."""
    return mutated(value).map(written).flatmap(lambda text: damaged(text.encode()))


@st.composite
def lines_of(draw: st.DrawFn, *rows: Any) -> bytes:
    """JSON lines like these."""
    some = draw(st.lists(st.one_of(st.sampled_from(rows), mutated(draw(st.sampled_from(rows)))), max_size=4))
    text = draw(st.sampled_from(["\n", "\r\n", "\n\n", " "])).join(map(written, some))
    return draw(damaged((text + draw(st.sampled_from(["", "\n"]))).encode()))


@st.composite
def cells_of(draw: st.DrawFn, *rows: str) -> bytes:
    """Lines of tab-separated cells like these."""
    cell = st.one_of(
        st.sampled_from(["q1", "d1", "1", "0", "-1", "--1", "²", '"', "1.5", "9" * 5000]), st.text(max_size=4)
    )
    line = st.one_of(st.sampled_from(rows), st.lists(cell, max_size=5).map("\t".join))
    return draw(damaged("\n".join(draw(st.lists(line, max_size=4))).encode()))


def parts_of(make: Callable[[Path], Any], file: str) -> st.SearchStrategy[bytes]:
    """A file that is made, damaged."""
    with TemporaryDirectory() as folder:
        make(Path(folder))
        content = (Path(folder) / file).read_bytes()
    return st.one_of(
        damaged(content),
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=4).map(
            lambda changes: _changed(content, changes)
        ),
    )


def _changed(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(content)
    for place, byte in changes:
        changed[place] = byte
    return bytes(changed)


DOCUMENT = {"_id": "d1", "title": "A title", "text": "A text."}
QUESTION = {"_id": "q1", "text": "what?", "metadata": {"answers": ["this"]}}
DIALOGUE = {"_id": "a", "turns": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
RESPONSES = {"_id": "a", "context": ["Hi"], "responses": [{"text": "Hello"}, {"text": "Yes", "generated": True}]}
KEY = {"systems": ["one", "two"], "orders": {"a": [0, 1]}}
BOXES = {"sensible": True, "specific": False}
EXPORT = {
    "backend": "onnx",
    "precision": "fp32",
    "student": "0" * 64,
    "prompt": "",
    "check_queries": ["what?"],
    "cosine": 1.0,
    "share": 1.0,
    "files": {"model.onnx": "0" * 64},
    "made_with": {"onnx": "1"},
    "format": 1,
}
DEV = {"similarity": "cosine", "documents": ["d1"], "queries": {"q1": "what?"}, "qrels": {"q1": {"d1": 1}}}
POINTER = {"version": 1, "query_model": "a", "document_model": "b", "document_store": {"type": "x"}}
HEADS = {"model": "m", "method": "core", "chosen": [[0, 1]], "scores": [[0.0, 1.0]], "examples": 9}
BUILDER = "haystack.components.builders.prompt_builder.PromptBuilder"
PIPELINE = {
    "components": {"a": {"type": BUILDER, "init_parameters": {"template": "{{ x }}"}}},
    "connections": [],
    "inputs": {"x": ["a.x"]},
    "outputs": {"prompt": "a.prompt"},
}
MANIFEST_OF_SET = {
    "version": 1,
    "source": "s",
    "retriever": "r",
    "similarity": "",
    "teacher": {"model": "m"},
    "rows": 1,
    "shards": {"shard-00000.parquet": {"rows": 1, "labelled": 1}},
}
REPLY = {"_id": "a", "context": ["Hi"], "reply": "Yes"}
RUN = {"settings": {"a": 1}}
LABEL = {"query_id": "q1", "scores": [1.0]}
TABLE = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.StaticEmbedding"}]


def _verdicts(content: tuple[Any, Any]) -> bytes:
    key, verdicts = content
    hidden = base64.b64encode(written(key).encode()).decode()
    return written({"key": hidden, "verdicts": verdicts}).encode()


def _beir(folder: Path) -> None:
    (folder / "corpus.jsonl").write_text(json.dumps(DOCUMENT))
    (folder / "queries.jsonl").write_text(json.dumps(QUESTION))


def _training_set(folder: Path) -> None:
    row = Row("q1", "what?", ["this"], ["d1", "d2"], ["one", "two"], [1.0, 0.5], [0.5, 1.0])
    write_training_set(folder / "set", [row], teacher={"model": "m"})


def _questions(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist([QUESTION]), folder / "q.parquet")


def _index(folder: Path) -> None:
    read_index([[("d1", "one", np.ones(4)), ("d2", "two", np.array([1.0, 0, 0, 0]), "a")]], folder / "view", "cosine")


def _dev(folder: Path) -> None:
    (folder / "dev").mkdir()
    (folder / "dev" / "dev.json").write_text(json.dumps(DEV))
    (folder / "dev" / "documents.safetensors").write_bytes(tensors({"vectors": np.ones((1, 4), dtype=np.float16)}))


def _all_rows(folder: Path) -> list[Row]:
    training_set = TrainingSet.open(folder / "set")
    return [*training_set.labelled(), *training_set] if len(training_set) else []


def _in(file: str, content: st.SearchStrategy[bytes], read: Callable[[Path], Any]) -> Reader:
    """A reader that is given one file."""
    return Reader(file, content, lambda folder: read(folder / file))


READERS = {
    "corpus": _in("corpus.jsonl", lines_of(DOCUMENT), read_corpus),
    "queries": _in("queries.jsonl", lines_of(QUESTION), read_queries),
    "judgments": Reader("qrels/test.tsv", cells_of("query-id\tcorpus-id\tscore", "q1\td1\t1"), read_beir, _beir),
    "questions": _in("q.jsonl", lines_of(QUESTION), read_questions),
    "questions in Parquet": _in("q.parquet", parts_of(_questions, "q.parquet"), read_questions),
    "dialogues": _in("d.jsonl", lines_of(DIALOGUE, {"turns": ["Hi", "Hello"]}), read_dialogues),
    "responses": _in("r.jsonl", lines_of(RESPONSES), read_responses),
    "replies": _in("one.jsonl", lines_of(REPLY), read_system),
    "verdicts": _in(
        "v.json",
        st.one_of(
            json_of({"key": base64.b64encode(json.dumps(KEY).encode()).decode(), "verdicts": {"a": [BOXES, BOXES]}}),
            st.tuples(mutated(KEY), mutated({"a": [BOXES, BOXES]})).map(_verdicts),
        ),
        lambda file: unblinded([file]),
    ),
    "training set": Reader(f"set/{MANIFEST}", json_of(MANIFEST_OF_SET), _all_rows, _training_set),
    "shard": Reader(
        "set/shard-00000.parquet", parts_of(_training_set, "set/shard-00000.parquet"), _all_rows, _training_set
    ),
    "dev set": Reader("dev/dev.json", json_of(DEV), read_dev_set, _dev),
    "dev vectors": Reader("dev/documents.safetensors", parts_of(_dev, "dev/documents.safetensors"), read_dev_set, _dev),
    "export": Reader("export.json", json_of(EXPORT), read_export),
    "pointer": _in("current.json", json_of(POINTER), read_pointer),
    "heads": _in("heads.json", json_of(HEADS), Heads.load),
    "pipeline": _in("p.yaml", json_of(PIPELINE), load_pipeline),
    "modules of a model": Reader("modules.json", json_of(TABLE), is_table),
    "unfinished run": Reader("run.json", json_of(RUN), lambda folder: claim(folder, RUN, [folder])),
    "journal": _in("j.jsonl", lines_of(LABEL), Journal),
    "figures": Reader("metrics.json", json_of({"provenance": {"made_of": "x"}}), read_figures),
    **{
        f"copy of an index: {file}": Reader(
            f"view/{file}", parts_of(_index, f"view/{file}"), lambda folder: open_index(folder / "view"), _index
        )
        for file in ("index.json", "documents.jsonl", "vectors.f32")
    },
}
