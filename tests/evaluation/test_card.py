"""What a model card says, and what it leaves out where nothing is known."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from haystack_distill.evaluation.card import Card, card_of, renamed
from haystack_distill.files.folders import write_json

HOSTILE = 'a": "b\n---\n# x'


def read(text: str) -> ModelCard:
    return ModelCard(text)


def card(base: str, learnt_from: str | None = None) -> Card:
    return Card("A student", "query-encoder", ["It is one."], base, learnt_from)


def test_what_a_folder_that_was_made_here_was_made_from_is_what_its_student_is_made_from(tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    (first / "README.md").write_text(card_of(first, card("acme/teacher")))
    assert read(card_of(tmp_path / "second", card(str(first)))).data.base_model is None
    write_json(first / "haystack_distill.json", {})
    assert read(card_of(tmp_path / "second", card(str(first)))).data.base_model == "acme/teacher"


@pytest.mark.parametrize("broken", ["---\n[1, 2\n---\n", "---\n- a\n---\n", "\x00", "---\nlicense: [\n---"])
def test_a_card_that_cannot_be_read_says_nothing(tmp_path, broken):
    (tmp_path / "README.md").write_text(broken)
    data = read(card_of(tmp_path / "new", card(str(tmp_path)))).data
    assert (data.license, data.language, data.base_model) == (None, None, None)


@pytest.mark.parametrize(
    ("learnt_from", "named"),
    [("acme/questions", ["acme/questions"]), ("questions.jsonl", None), ("data/questions.jsonl", None), (None, None)],
)
def test_a_data_set_of_the_hub_is_named(learnt_from, named):
    assert read(card_of(Path("new"), card("minilm", learnt_from))).data.datasets == named


def test_a_name_of_one_part_is_of_sentence_transformers():
    assert (
        read(card_of(Path("new"), card("all-MiniLM-L6-v2"))).data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    )


def test_a_name_breaks_neither_the_front_matter_nor_the_code():
    text = card_of(Path(HOSTILE), card(HOSTILE, HOSTILE))
    assert read(text).data.tags == ["sentence-transformers", "haystack", "haystack-distill", "query-encoder"]
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    for block in blocks:
        compile(block, "card", "exec")
    for block in renamed(text, "acme/new").split("```python\n")[1:]:
        assert '"acme/new")' in block
