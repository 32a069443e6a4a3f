"""General text: what may be named, and that each sentence comes once."""

from haystack_distill.data.general_text import read_general_text
from tests.conftest import write_lines


def test_folders_and_files(tmp_path):
    texts, beir = tmp_path / "texts", tmp_path / "beir"
    (texts / "deeper").mkdir(parents=True)
    beir.mkdir()
    (texts / "one.md").write_text("# A heading of it\n\nThe first sentence. The second one here.")
    (texts / "deeper" / "two.txt").write_text("The first sentence.")
    (texts / "picture.png").write_bytes(b"\x89PNG")
    write_lines(beir / "corpus.jsonl", [{"_id": "a", "title": "", "text": "A document of BEIR."}])
    (tmp_path / "table.csv").write_text("number,text\n1,How does one do this?\n2,\n")
    named = [str(texts), str(beir), str(tmp_path / "table.csv")]
    assert read_general_text(named) == [
        "The first sentence.",
        "# A heading of it",
        "The second one here.",
        "A document of BEIR.",
        "How does one do this?",
    ]
    assert read_general_text([]) == []
