"""Token tables in closed form, against dense solvers that know nothing of how they are made."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from haystack_distill import KaleAligner, KaleQueryEncoder
from haystack_distill.align.job import align
from haystack_distill.align.ridge import PENALTIES, ridge_path, solve_table, token_counts
from haystack_distill.align.settings import KaleSettings
from haystack_distill.students.token_table import make_token_table
from haystack_distill.training.trainer import METRIC
from tests.conftest import sentences


@pytest.fixture
def table(teacher):
    return make_token_table(teacher)


class Dev:
    """A dev measure that prefers the table of one penalty, by the order in which tables come."""

    def __init__(self, *scores: float) -> None:
        self.scores = iter(scores)

    def __call__(self, _) -> dict[str, float]:
        return {METRIC: next(self.scores)}


def test_every_penalty_gets_the_solution_that_a_dense_solver_finds():
    random = np.random.default_rng(0)
    inputs = sparse.csr_array(np.where(random.random((200, 90)) < 0.1, random.random((200, 90)), 0).astype(np.float32))
    targets = random.normal(size=(200, 70)).astype(np.float32)
    dense = inputs.toarray().astype(np.float64)
    unit = np.mean(np.sum(dense**2, axis=1))
    found = dict(ridge_path(inputs, targets, (3.0, 0.1, 0.01)))
    assert list(found) == [3.0, 0.1, 0.01]
    for penalty, rows in found.items():
        expected = np.linalg.solve(dense.T @ dense + penalty * unit * np.eye(90), dense.T @ targets)
        assert np.abs(rows - expected).max() < 0.01 * np.abs(expected).max()


def test_tokens_are_counted_as_the_table_reads_them(table):
    texts = ["river river stone", "bridge", "", "stone bridge river market"]
    counts = token_counts(table, texts).toarray()
    vocabulary = table.tokenizer.get_vocab()
    for row, text in zip(counts, texts, strict=True):
        expected = {word: np.sqrt(count / len(text.split())) for word, count in Counter(text.split()).items()}
        assert {word: row[vocabulary[word]] for word in expected} == pytest.approx(expected)
        assert np.count_nonzero(row) == len(expected)


def test_a_table_that_does_not_normalise_is_fitted_as_the_mean_that_it_is(make_encoder, teacher):
    other = type(teacher).load(make_encoder("bert", normalize=False), device="cpu")
    table = make_token_table(other)
    counts = token_counts(table, ["river river stone"])
    rows = table[0].embedding.weight.detach().numpy()
    np.testing.assert_allclose(counts @ rows, table.encode(["river river stone"]), atol=1e-5)


def test_the_penalty_is_the_best_on_dev_and_unseen_tokens_keep_their_meaning(table, teacher):
    texts = [text.replace("needle", "mirror") for text in sentences(80, seed=3)]
    vectors = teacher.encode_queries(texts)
    before = table[0].embedding.weight.detach().numpy().copy()
    solved = solve_table(table, texts, vectors, Dev(0.1, 0.2, 0.5, 0.4, 0.3))
    assert solved.penalty == PENALTIES[1]
    assert list(solved.scores.values()) == [0.2, 0.5, 0.4, 0.3]
    after = table[0].embedding.weight.detach().numpy()
    unseen = table.tokenizer.token_to_id("needle")
    cosine = np.dot(after[unseen], before[unseen]) / np.linalg.norm(after[unseen]) / np.linalg.norm(before[unseen])
    assert cosine == pytest.approx(1)
    assert np.sum(table.encode(texts) * vectors, axis=1).mean() > 0.95


def test_the_untrained_table_stays_where_nothing_is_better(table, teacher):
    before = table[0].embedding.weight.detach().numpy().copy()
    texts = sentences(20)
    assert solve_table(table, texts, teacher.encode_queries(texts), Dev(0.9, *[0.1] * 4)).penalty is None
    np.testing.assert_array_equal(table[0].embedding.weight.detach().numpy(), before)


def test_a_table_is_solved_for_twice_alike(index, teacher, tmp_path):
    settings = KaleSettings(layers=0, fit="ridge")
    first, second = (
        align(index, teacher, settings, tmp_path / name, test=(), progress=False) for name in ("one", "two")
    )
    rows = [one.student[0].embedding.weight.detach().numpy() for one in (first, second)]
    np.testing.assert_array_equal(*rows)
    assert max(first.solved.scores.values()) > first.before


def test_a_solved_table_is_written_and_serves(store, bert, tmp_path):
    aligner = KaleAligner(
        document_store=store, teacher=bert, layers=0, fit="ridge", output=str(tmp_path / "table"), progress_bar=False
    )
    folder = Path(aligner.run()["model_path"])
    ridge = json.loads((folder / "metrics.json").read_text())["provenance"]["ridge"]
    assert list(ridge["dev_ndcg@10"]) == ["1", "0.3", "0.1", "0.03"]
    assert "ridge regression, penalty" in (folder / "README.md").read_text()
    assert len(KaleQueryEncoder(model=str(folder)).run(text="river bridge")["embedding"]) == 32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fit": "exact"}, "fit='exact' is not one of 'trained', 'ridge'"),
        ({"fit": "ridge"}, "fit='ridge' solves for a token table: ask for layers=0"),
        ({"fit": "ridge", "layers": 0, "keep": (0,)}, "ask for layers=0 without keep"),
    ],
)
def test_a_fit_that_does_not_suit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        KaleSettings(**wrong)
