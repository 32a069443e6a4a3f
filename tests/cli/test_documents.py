"""Commands on a plain folder of texts, and over the store that has the documents."""

import json
from pathlib import Path

import pytest
import yaml
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from safetensors.numpy import load_file, save_file

from haystack_distill.cli.documents import corpus_of, read_documents
from haystack_distill.data.training_set import TrainingSet

STORE = "haystack.document_stores.in_memory.document_store.InMemoryDocumentStore"


@pytest.fixture
def texts(passages, tmp_path):
    """Passages, three to a file."""
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for number in range(0, 60, 3):
        place = folder / "deep" if number % 2 else folder
        (place / f"{number}.txt").write_text("\n\n".join(passages[f"d{number + more}"] for more in range(3)))
    return folder


@pytest.fixture
def described(store, tmp_path):
    """The YAML of a store that is full, in this process."""
    parameters = {"index": str(tmp_path), "embedding_similarity_function": "cosine"}
    shared = InMemoryDocumentStore(**parameters)
    shared.write_documents(
        [
            Document(id=one.id, content=one.content, embedding=one.embedding, meta={"url": f"https://x.org/{one.id}"})
            for one in store.filter_documents()
        ]
    )
    file = tmp_path / "store.yaml"
    file.write_text(yaml.safe_dump({"type": STORE, "init_parameters": parameters}))
    return file


@pytest.fixture
def judged(beir):
    """Questions and judgments without a corpus."""
    (beir / "corpus.jsonl").unlink()
    return beir


def test_texts_are_read_whole_and_cut_to_be_searched(texts):
    whole = read_documents(texts)
    assert [one.meta["source"] for one in whole] == sorted(
        str(path.relative_to(texts)) for path in texts.rglob("*.txt")
    )
    assert whole[0].content == (texts / whole[0].meta["source"]).read_text()
    passages = corpus_of(texts).documents
    assert len(passages) >= len(whole)
    assert " ".join(" ".join(passages.values()).split()) == " ".join(" ".join(one.content for one in whole).split())
    assert all(len(text.split()) <= 90 for text in passages.values())
    assert {key.partition("#")[0] for key in passages} == {one.meta["source"] for one in whole}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: place / "nothing", "nothing is missing: name a folder of texts"),
        (lambda place: (place / "empty").mkdir() or place / "empty", "empty holds no text: files that end in .txt"),
        (lambda place: (place / "x.txt").write_bytes(b"\xff\xfe\xfa") and place / "x.txt", "x.txt is not UTF-8 text"),
    ],
)
def test_what_can_not_be_read(make, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        corpus_of(make(tmp_path))


def test_documents_in_json_lines(tmp_path):
    (tmp_path / "d.jsonl").write_text(json.dumps({"_id": "a", "title": "Bridge", "text": "It carries a road."}) + "\n")
    expected = Document(id="a", content="Bridge It carries a road.", meta={"title": "Bridge"})
    assert read_documents(tmp_path / "d.jsonl") == [expected]


def test_align_on_a_folder_of_texts(texts, bert, command, tmp_path):
    arguments = ["--model", bert, "--layers", "0", "--fit", "ridge", "--output", tmp_path / "table", "--no-progress"]
    code, said = command("align", texts, *arguments)
    assert code == 0, said
    assert "aligning with the text of the index alone" not in said or "There are no train queries" in said
    assert f"KaleQueryEncoder(model='{tmp_path / 'table'}')" in said
    assert (tmp_path / "table" / "metrics.json").is_file()


def test_align_over_a_store_needs_no_folder(described, bert, command, tmp_path):
    arguments = ["--model", bert, "--layers", "0", "--fit", "ridge", "--output", tmp_path / "table", "--no-progress"]
    code, said = command("align", "--store", described, *arguments)
    assert code == 0, said
    assert command("align", *arguments[:-3], "--output", tmp_path / "other")[1].startswith("Error: There is nothing to")


def test_judgments_about_the_documents_of_a_store(described, judged, bert, table, command, tmp_path):
    arguments = ["--model", bert, "--student", table, "--output", tmp_path / "e"]
    code, said = command("evaluate", judged, "--store", described, *arguments)
    assert code == 0, said
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["queries"] == 20
    code, said = command("evaluate", judged, *arguments[:-1], tmp_path / "f")
    assert code == 1
    assert "corpus.jsonl is missing" in said


def test_what_a_store_returns_of_the_exact_ten_is_told(write_index, judged, bert, table, command, place):
    store_type = "haystack_integrations.document_stores.qdrant.document_store.QdrantDocumentStore"
    (place / "store.yaml").write_text(yaml.safe_dump({"type": store_type, "init_parameters": write_index()}))
    arguments = ["--store", "store.yaml", "--model", bert, "--student", table, "--output", "e"]
    code, said = command("evaluate", judged, *arguments)
    assert code == 0, said
    _, _, told = said.partition("the store")
    assert told.count("100.0 %") == 2


def test_labels_over_a_store(described, judged, reader_folder, bert, command, tmp_path):
    common = [judged, "--store", described, "--reader", reader_folder("qwen3"), "--top-k", "3", "--no-progress"]
    for name, more in (("words", []), ("vectors", ["--model", bert])):
        code, said = command("label", *common, "--output", tmp_path / name, *more)
        assert code == 0, said
        rows = list(TrainingSet.open(tmp_path / name))
        assert len(rows) == 30
        assert all(row.teacher_scores for row in rows)
        example = said[said.index(f"For example: {rows[0].query}") :]
        best_first = sorted(enumerate(rows[0].teacher_scores, 1), key=lambda pair: -pair[1])
        places = [example.index(f"{score:.3f} {place}") for place, score in best_first]
        assert places == sorted(places)


def test_another_encoder_over_a_store(described, bert, make_encoder, command, tmp_path):
    arguments = ["--store", described, "--model", bert, "--student", make_encoder("mpnet"), "--no-progress"]
    code, said = command("align", *arguments, "--output", tmp_path / "mapped")
    assert code == 0, said
    assert f"Next, for the speed of ONNX in int8: haystack-distill export {tmp_path / 'mapped'}" in said
    metrics = json.loads((tmp_path / "mapped" / "metrics.json").read_text())
    assert len(metrics["provenance"]["ridge"]["dev_ndcg@10"]) == 4


def test_another_encoder_is_called_by_its_name_on_the_hub(described, bert, on_the_hub, command, tmp_path):
    arguments = ["--store", described, "--model", bert, "--student", on_the_hub("org/other"), "--no-progress"]
    code, said = command("align", *arguments, "--output", tmp_path / "mapped")
    assert code == 0, said
    assert json.loads((tmp_path / "mapped" / "metrics.json").read_text())["provenance"]["student"] == "org/other"
    assert "base_model: org/other" in (tmp_path / "mapped" / "README.md").read_text()


def test_an_update_over_a_store(described, bert, command, tmp_path):
    common = ["--store", described, "--model", bert, "--no-progress"]
    code, said = command("align", *common, "--layers", "0", "--fit", "ridge", "--output", tmp_path / "table")
    assert code == 0, said
    code, said = command("align", *common, "--update", tmp_path / "table", "--output", tmp_path / "second")
    assert code == 1
    assert "documents of this index: there is nothing to update" in said
    marks = tmp_path / "table" / "learnt.safetensors"
    content = load_file(marks)
    save_file(content | {"documents": content["documents"][:40]}, marks)  # as if some had come later
    code, said = command("align", *common, "--update", tmp_path / "table", "--output", tmp_path / "second")
    assert code == 0, said
    update = json.loads((tmp_path / "second" / "metrics.json").read_text())["update"]
    new = update["about_new"]
    told = f"{new['queries']}, nDCG@10 {new['before']:.3f} before and {new['student']:.3f} now"
    assert f"Queries about new documents: {told}" in said
    assert told in (tmp_path / "second" / "report.html").read_text(encoding="utf-8")
    assert "for the speed of ONNX" not in said


def test_a_hybrid_over_a_store(described, judged, bert, command, tmp_path):
    arguments = ["--store", described, "--model", bert, "--output", tmp_path / "hybrid", "--no-progress"]
    code, said = command("fuse", judged, *arguments)
    assert code == 0, said
    assert json.loads((tmp_path / "hybrid" / "metrics.json").read_text())["queries"] == 20
    arguments = ["--store", described, "--model", bert, "--student", bert, "--output", tmp_path / "e"]
    code, said = command("evaluate", judged, *arguments, "--fusion", tmp_path / "hybrid")
    assert code == 0, said
    fitted = json.loads((tmp_path / "e" / "metrics.json").read_text())["hybrids"]["fitted"]
    assert fitted["encoder"]["share_of_teacher"] == 1


@pytest.mark.usefixtures("place")
def test_a_store_that_takes_no_words(judged, reader_folder, bert, command):
    assert command("init", "--store", "qdrant", "--model", bert)[0] == 0
    arguments = ["--store", "store.yaml", "--reader", reader_folder("qwen3"), "--output", "o"]
    code, said = command("label", judged, *arguments)
    assert code == 1
    assert "No retriever is known that searches a QdrantDocumentStore by words: name an encoder" in said
    arguments = ["--store", "store.yaml", "--model", bert, "--student", bert, "--fusion", "f", "--output", "e"]
    code, said = command("evaluate", judged, *arguments)
    assert code == 1
    assert "by words: name an encoder that finds candidates, or leave the hybrid out." in said


def test_distill_over_a_store(described, judged, bert, command, tmp_path):
    arguments = ["--store", described, "--model", bert, "--output", tmp_path / "rounds", "--epochs", "1"]
    code, said = command("distill", judged, *arguments, "--batch-size", "8", "--no-progress")
    assert code == 0, said
    assert "Recommended: " in said


def test_the_documents_of_a_store_as_json_lines(described, passages, command, tmp_path):
    output = tmp_path / "corpus.jsonl"
    code, said = command("export-corpus", described, output, "--title", "url")
    assert code == 0
    assert said.startswith(f"{len(passages)} documents")
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert {row["_id"]: row["text"] for row in rows} == passages
    assert all(row["title"] == f"https://x.org/{row['_id']}" for row in rows)
    code, said = command("export-corpus", described, output)
    assert code == 1
    assert "exists already" in said


class TestJudgments:
    def test_by_a_meta_field(self, described, command, tmp_path):
        (tmp_path / "log.csv").write_text(
            "question,url,score\nWhat is a heron?,https://x.org/d1,2\nWhat is a heron?,https://x.org/d2,0\n"
            '"Which river, and where?",https://x.org/d3,\nGone?,https://x.org/nowhere,1\n'
        )
        output = tmp_path / "questions"
        code, said = command(
            "judgments", tmp_path / "log.csv", "--store", described, "--by", "meta.url", "--output", output
        )
        assert code == 0, said
        assert (
            "1 of 3 rows name documents that the store lacks, and are left out ('https://x.org/nowhere' is one)."
            in said
        )
        texts = {row["_id"]: row["text"] for row in map(json.loads, (output / "queries.jsonl").open())}
        judged = [
            (texts[line.split("\t")[0]], *line.split("\t")[1:])
            for split in ("train", "test")
            for line in (output / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]
        ]
        assert sorted(judged) == [("What is a heron?", "d1", "2"), ("Which river, and where?", "d3", "1")]

    def test_splits_that_are_named_stay(self, command, tmp_path):
        rows = [{"query": f"question {n}", "document_id": "d", "split": "dev" if n < 3 else None} for n in range(13)]
        (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
        code, said = command("judgments", tmp_path / "log.jsonl", "--test", "0.2", "--output", tmp_path / "q", "--json")
        assert code == 0
        assert json.loads(said[said.index("{") :])["questions"] == {"dev": 5, "train": 6, "test": 2}

    @pytest.mark.parametrize(
        ("content", "arguments", "message"),
        [
            ("question,document\na,b\n", ["--by", "meta.url"], "--by 'meta.url' needs the store that has it"),
            (
                "frage,dokument\na,b\n",
                [],
                "row 2: there is nothing in a column called question, query, text; it has frage,",
            ),
            ("question,document,grade\na,b,good\n", [], "the grade 'good' is no whole number"),
            ("question,document,split\na,b,tset\n", [], "the split 'tset' is none of train, dev, test"),
            ("question,document,grade\na,b,0\n", [], "judges nothing relevant"),
            ("question,document\na,b,c\n", [], "more cells than the first line has columns"),
            ("", [], "judges nothing relevant"),
        ],
    )
    def test_what_is_wrong(self, content, arguments, message, command, tmp_path):
        (tmp_path / "log.csv").write_text(content)
        code, said = command("judgments", tmp_path / "log.csv", "--output", tmp_path / "q", *arguments)
        assert code
        assert message in said
        assert not (tmp_path / "q").exists()

    def test_a_store_that_has_none_of_them(self, described, command, tmp_path):
        (tmp_path / "log.csv").write_text("question,document\na,nowhere\n")
        code, said = command("judgments", tmp_path / "log.csv", "--store", described, "--output", tmp_path / "q")
        assert code == 1
        assert "None of the judged documents is there ('nowhere' is one of 1 rows)" in said


class TestCheck:
    def test_what_belongs_together(self, described, judged, bert, passages, command):
        code, said = command("check", judged, "--store", described, "--model", bert)
        assert code == 0, said
        assert f"documents {len(passages)}" in said
        assert "which is few" in said
        assert "60 of 60 are there" in said
        assert f"Next: haystack-distill align {judged} --store {described} --model {bert} --layers 2" in said

    def test_another_encoder(self, described, make_encoder, command):
        code, said = command("check", "--store", described, "--model", make_encoder("mpnet"))
        assert code == 1
        assert "The vectors in the index were not made by this encoder" in said or "dimensions" in said

    def test_judgments_about_something_else(self, described, judged, bert, command):
        (judged / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\tnowhere\t1\n")
        code, said = command("check", judged, "--store", described, "--model", bert, "--json")
        assert code == 1
        assert "Not in the store: 'nowhere' and 0 more." in said
        assert '"missing": ["nowhere"]' in said

    def test_layers_and_an_empty_store(self, described, bert, command, tmp_path):
        assert "layers=9 does not fit" in command("check", "--store", described, "--model", bert, "--layers", "9")[1]
        InMemoryDocumentStore(index=str(tmp_path)).storage.clear()
        code, said = command("check", "--store", described, "--model", bert)
        assert code == 1
        assert "holds no documents: run the indexing pipeline first" in said


def test_questions_for_the_documents_of_a_store(described, texts, tmp_path):
    """What they are written for is what the augmenter gets; the writing itself has its own tests."""
    from haystack_distill.cli.augment import _given

    assert {one.id for one in _given(None, described)} == {f"d{number}" for number in range(60)}
    assert {one.id for one in _given(texts, None)} == set(corpus_of(texts).documents)
    (tmp_path / "x.jsonl").write_text("")
    assert _given(tmp_path / "x.jsonl", None) is None
    assert Path(described).is_file()
