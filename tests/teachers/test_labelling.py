"""Labelling: a teacher that does not do its work costs nothing but its own answer."""

import json

import numpy as np
import pytest

from haystack_distill.data.training_set import TrainingSet, write_training_set
from haystack_distill.teachers.labelling import label
from haystack_distill.teachers.scores import Scored
from tests.data.test_training_set import rows


class Longest:
    """Scores by length; `lost` scores are left out for the query that is named."""

    def __init__(self, query=None, lost=1):
        self.identity, self.query, self.lost = {"name": "longest"}, query, lost

    def score(self, asked):
        lengths = [np.array([float(len(passage)) for passage in row.passages]) for row in asked]
        return [
            Scored(one[self.lost :] if row.query == self.query else one)
            for row, one in zip(asked, lengths, strict=True)
        ]


@pytest.mark.parametrize("lost", [1, 3])
def test_a_teacher_that_gives_too_few_scores_poisons_nothing(lost, tmp_path):
    folder = write_training_set(tmp_path / "set", rows(4)).folder
    asked = next(iter(TrainingSet.open(folder)))
    broken = Longest(rows(4)[2].query, lost)
    message = f"Longest gave {len(asked.documents) - lost} scores for the {len(asked.documents)} passages of .*mend it"
    with pytest.raises(ValueError, match=message):
        label(folder, broken.identity, lambda: broken, rows_at_once=1, progress=False)
    kept = [json.loads(line) for file in folder.glob(".*.jsonl") for line in file.read_text().splitlines()]
    assert all(len(one["scores"]) == len(asked.documents) for one in kept)
    mended = label(folder, broken.identity, Longest, progress=False)
    assert mended["labelled"] == 4
