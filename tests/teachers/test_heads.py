"""Heads that tell passages apart: chosen, saved, used, and refused."""

import numpy as np
import pytest

from haystack_distill.teachers import in_context
from haystack_distill.teachers.attention_signals import AttentionTeacher
from haystack_distill.teachers.heads import HeadExample, Heads, select_heads
from haystack_distill.teachers.in_context import head_examples
from haystack_distill.teachers.scores import Candidates, passage_orders
from tests.readers import CLOSE, ROW

pytestmark = pytest.mark.filterwarnings("error::FutureWarning")  # such as for `past_key_values`, which is now `cache`


class TestHeads:
    def examples(self, right_head=(2, 1), count=20):
        random = np.random.default_rng(0)
        for number in range(count):
            attention = random.uniform(0, 0.2, (3, 4, 5))
            attention[(*right_head, number % 5)] += 0.3
            attention[0, 0] += 5  # looks much, at everything alike
            yield HeadExample(attention, number % 5)

    def test_the_head_that_tells_passages_apart_is_found(self):
        chosen = select_heads(list(self.examples()), model="m", count=2).chosen
        assert chosen[0] == (2, 1)
        assert (0, 0) not in chosen
        assert select_heads(list(self.examples()), model="m", method="qr", count=1).chosen == [(0, 0)]

    def test_passages_are_shuffled_before_heads_are_chosen(self, reader, monkeypatch):
        """In the retriever's order a head that always looks at the first passage would often be right."""
        rows = [Candidates(f"q{number}", ["right", "wrong", "worse", "worst"], []) for number in range(20)]
        read = []

        def looks_for(own, prompt, query, passages):
            read.append(passages)
            encoded = own.encode(prompt, query, passages)
            attention = np.zeros((1, 1, len(encoded.ids)))
            for place, passage in enumerate(passages):
                attention[0, 0, encoded.spans[("item", place)][0]] = passage == "right"
            return attention, encoded

        monkeypatch.setattr(in_context, "calibrated_attention", looks_for)
        examples = list(head_examples(reader("llama"), rows, [0] * len(rows)))
        assert [one.right for one in examples] == [passages.index("right") for passages in read]
        assert all(one.attention[0, 0].tolist() == [number == one.right for number in range(4)] for one in examples)
        assert {one.right for one in examples} == {0, 1, 2, 3}
        again = head_examples(reader("llama"), rows, [0] * len(rows))
        assert [one.right for one in again] == [one.right for one in examples], "the order is the same each time"

    def test_they_are_saved_with_a_picture_and_reused(self, reader, tmp_path):
        heads = select_heads(list(self.examples()), model="a/m", count=3)
        heads.save(tmp_path / "new" / "heads.json")
        assert Heads.load(tmp_path / "new" / "heads.json") == heads
        assert (tmp_path / "new" / "heads.svg").read_text().startswith("<?xml")
        with pytest.raises(ValueError, match="chosen for a/m .*not for other"):
            AttentionTeacher(reader("llama"), "heads", heads=heads, name="other")

    def test_bad_choices(self, tmp_path):
        with pytest.raises(ValueError, match="3 questions .* too few"):
            select_heads(list(self.examples(count=3)), model="m")
        with pytest.raises(ValueError, match="no method 'best'"):
            select_heads(list(self.examples()), model="m", method="best")
        with pytest.raises(FileNotFoundError, match="choose them first"):
            Heads.load(tmp_path / "none.json")
        (tmp_path / "broken.json").write_text("{}")
        with pytest.raises(ValueError, match="does not hold chosen heads"):
            Heads.load(tmp_path / "broken.json")

    def test_orders_are_averaged(self, reader):
        once = AttentionTeacher(reader("llama"), "icr")
        twice = AttentionTeacher(reader("llama"), "icr", permutations=2)
        backwards = once.score([Candidates(ROW.query, ROW.passages[::-1], [])])[0].scores[::-1]
        expected = (once.score([ROW])[0].scores + backwards) / 2
        assert np.allclose(twice.score([ROW])[0].scores, expected, **CLOSE)
        assert passage_orders(3, 2) == [[0, 1, 2], [2, 1, 0]]
        with pytest.raises(ValueError, match="each passage alone here: several orders are read by 'icr' and 'heads'"):
            AttentionTeacher(reader("llama"), "dkrr", permutations=2)
