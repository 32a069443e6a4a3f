"""What docs/security.md claims of code that is not run, of text that stays text, and of names that are no paths."""

import ast
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import haystack_distill
import haystack_integrations.components.distill
from haystack_distill.data.index import read_index
from haystack_distill.data.training_set import Row, TrainingSet, write_training_set
from haystack_distill.evaluation.card import Card, card_of
from haystack_distill.evaluation.pointer import Serving, write_pointer
from haystack_distill.evaluation.report import write_report
from haystack_distill.serving.exports import check_vectors
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_integrations.components.distill.current_retriever import CurrentRetriever
from haystack_integrations.components.distill.pipelines import load_pipeline
from tests.evaluation.test_report import metrics, system

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
OUTSIDE = ("../../outside", "/outside", "a/../../outside", "..", "nul\0l", "__proto__")
SOURCES = [
    path
    for package in (haystack_distill, haystack_integrations.components.distill)
    for path in Path(package.__path__[0]).rglob("*.py")
]
BUILT_IN = {"eval", "exec", "compile", "__import__"}
METHODS = {"system", "popen", "Popen", "extractall", "urlopen", "unsafe_load", "full_load"}
MODULES = {"pickle", "dill", "joblib", "marshal", "shelve", "subprocess", "zipfile", "tarfile"}


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_no_line_of_the_package_runs_what_it_reads():
    lines = ((path, node) for path in SOURCES for node in ast.walk(ast.parse(path.read_text())) if runs(node))
    assert not [f"{path.name}, line {node.lineno}" for path, node in lines]


def runs(node):
    """Whether a line may run what it is given."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return bool({getattr(node, "module", "") or "", *(alias.name for alias in node.names)} & MODULES)
    if not isinstance(node, ast.Call):
        return False
    given = {word.arg for word in node.keywords if getattr(word.value, "value", None)}
    if given & {"allow_pickle", "trust_remote_code"}:
        return True
    if isinstance(node.func, ast.Name):
        return node.func.id in BUILT_IN
    owner, name = getattr(getattr(node.func, "value", None), "id", ""), getattr(node.func, "attr", "")
    return name in METHODS or f"{owner}.{name}" in {"yaml.load", "torch.load"}


def test_vectors_of_an_export_are_never_unpickled(tmp_path):
    mark = tmp_path / "mark"
    np.save(tmp_path / "check.npy", np.array([Evil(mark)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"check\.npy is damaged"):
        check_vectors(tmp_path)
    (tmp_path / "check.npy").write_bytes(pickle.dumps(Evil(mark)))
    with pytest.raises(ValueError, match=r"check\.npy is damaged"):
        check_vectors(tmp_path)
    assert not mark.exists()


def test_code_in_the_folder_of_a_model_is_not_run(bert, tmp_path):
    folder, mark = tmp_path / "model", tmp_path / "mark"
    folder.mkdir()
    for path in Path(bert).rglob("*"):
        target = folder / path.relative_to(bert)
        target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Own: pass\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": len(modules), "name": "own", "path": "", "type": "own.Own"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(Exception, match="own"):
        BiEncoder.load(str(folder), device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["subprocess.Popen", "haystack_distill.files.folders.Path.touch", "os.system"])
def test_a_pointer_can_not_name_what_is_no_store(kind, place):
    mark = place / "mark"
    write_pointer("current.json", Serving("m", "m", {"type": kind, "init_parameters": {"args": ["touch", str(mark)]}}))
    with pytest.raises(Exception, match="allow|import|attribute|from_dict"):
        CurrentRetriever(pointer="current.json", retriever="os.system").warm_up()
    assert not mark.exists()


def test_a_yaml_makes_no_object(place):
    (place / "p.yaml").write_text("components: !!python/object/apply:os.system ['touch mark']\n")
    with pytest.raises(ValueError, match=r"p\.yaml is not YAML"):
        load_pipeline("p.yaml")
    assert not (place / "mark").exists()


def test_ids_and_names_never_become_paths(tmp_path):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    rows = [Row(name, "what?", [], [f"{name}d"], ["text"], [1.0]) for name in OUTSIDE]
    write_training_set(place / "set", rows)
    assert [row.query_id for row in TrainingSet.open(place / "set")] == list(OUTSIDE)
    vectors = np.eye(len(OUTSIDE), 8, dtype=np.float32)
    view = read_index(
        [[(name, "text", row) for name, row in zip(OUTSIDE, vectors, strict=True)]], place / "v", "cosine"
    )
    assert view.ids == list(OUTSIDE)
    made = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {("a", "b")}
    assert not [path for path in place.rglob("*") if "outside" in path.name]


def test_no_text_is_markup_in_a_report():
    systems = {name: system(name, 2, 5.0, 0.1) for name in ("teacher", HOSTILE)}
    texts = dict.fromkeys(("query", "relevant", "reference_first", "student_first"), HOSTILE)
    example = {**texts, "reference": 0.0, "student": 1.0}
    figures = metrics(systems, reference="teacher")
    page = write_report(systems, figures, {"wins": [example], "losses": [example]}, {HOSTILE: HOSTILE})
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;alert(1)") > 8


def test_a_card_says_that_its_folder_holds_text():
    card = card_of(Path("student"), Card("A student", "query-encoder", [], "teacher"))
    assert "This folder holds text of the index" in card
    assert "before you give it away" in card
