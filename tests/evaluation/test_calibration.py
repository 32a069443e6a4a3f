"""Thresholds of a cascade: the bound is simulated, and everything else counted by hand."""

import numpy as np
import pytest

from haystack_distill.evaluation.calibration import Target, calibrate, least_lost, most_sent, opinion_of

LEVELS = np.linspace(0, 1, 2001)


def drawn(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and losses that are the likelier the lower the score: `P(loss = 1 | s) = (1 - s)^2 / 2`."""
    scores = random.random(count)
    return scores, (random.random(count) < (1 - scores) ** 2 / 2).astype(float)


@pytest.mark.parametrize(("count", "share"), [(40, 0.1), (200, 0.1), (99, 0.05)])
def test_of_queries_to_come_no_more_are_sent_on_than_was_asked_for(count, share):
    """A score is uniform, so of queries to come exactly the threshold itself is the share that is sent on."""
    random = np.random.default_rng(0)
    sent = [max(0.0, most_sent(random.random(count), share)) for _ in range(4000)]
    assert share - 2 / (count + 1) < np.mean(sent) <= share


@pytest.mark.parametrize(("count", "allowed"), [(60, 0.05), (300, 0.02)])
def test_queries_to_come_lose_no_more_than_was_asked_for(count, allowed):
    """What is lost above a threshold t is the integral of (1 - s)^2 / 2 from t to 1: (1 - t)^3 / 6."""
    random = np.random.default_rng(1)
    lost = []
    for _ in range(4000):
        scores, losses = drawn(random, count)
        threshold = float(np.clip(least_lost(scores, losses, np.full(count, allowed)), 0, 1))
        lost.append((1 - threshold) ** 3 / 6)
    error = np.std(lost) / len(lost) ** 0.5
    assert 0.3 * allowed < np.mean(lost) <= allowed + 3 * error


def test_a_threshold_without_the_correction_would_break_its_promise():
    """The test before would find it: the empirical quantile of few queries sends on more than was asked for."""
    random = np.random.default_rng(0)
    assert np.mean([np.sort(random.random(19))[2] for _ in range(4000)]) > 0.1


def test_equal_scores_are_sent_on_together_or_not_at_all():
    scores = np.array([0.5] * 20 + [0.9] * 20)
    assert most_sent(scores, 0.3) < 0.5
    assert most_sent(scores, 0.6) == 0.5


def run_of(*rankings: str) -> dict[str, dict[str, float]]:
    """A run: letters are documents, the best first, and the best score of query n is 1 - n / 100."""
    return {
        str(number): {document: 1 - number / 100 - rank / 1000 for rank, document in enumerate(documents)}
        for number, documents in enumerate(rankings)
    }


def test_what_is_lost_is_measured_with_judgments_where_there_are_any():
    """Of fifty queries the student misses the last ten, whose scores are lowest; half of these may be lost."""
    student, teacher = run_of(*["ab"] * 40, *["cd"] * 10), run_of(*["ab"] * 50)
    qrels = {str(number): {"a": 1} for number in range(50)}
    found = calibrate([student, teacher], Target(max_loss=0.1), qrels)
    assert found.judged_by == "judgments"
    best, margin = 1 - 44 / 100, 1 / 1000
    threshold = pytest.approx(best + 2 * margin)
    assert found.values[0] == threshold, "4 lost and 1 for the query to come are a tenth of 50"
    assert found.sent == [6 / 50]
    assert found.lost == pytest.approx(4 / 50)


def test_a_query_is_sent_on_where_ten_documents_fit_alike():
    """Of fifty queries, all with one best score, the student misses those whose tenth document is as good."""
    student = {str(n): {f"{n}-{rank}": 0.8 - rank * (0.0 if n < 10 else 0.02) for rank in range(30)} for n in range(50)}
    teacher = {str(n): {"x" if n < 10 else f"{n}-0": 1.0} for n in range(50)}
    qrels = {str(n): dict.fromkeys(teacher[str(n)], 1) for n in range(50)}
    found = calibrate([student, teacher], Target(max_share=0.25), qrels)
    assert (found.sent, found.lost) == ([0.2], 0)
    assert found.values[0] == pytest.approx(0.8)


def test_where_the_student_is_better_nothing_is_gained_back():
    student, teacher = run_of(*["ab"] * 30, *["ba"] * 20), run_of(*["ba"] * 30, *["ab"] * 20)
    qrels = {str(number): {"a": 1} for number in range(50)}
    found = calibrate([student, teacher], Target(max_loss=0.2), qrels)
    each = 1 - 1 / np.log2(3)
    total = 30 * (1 - each) + 20
    assert found.lost * total == pytest.approx(each * round(found.lost * total / each))
    assert found.lost * total + 1 <= 0.2 * total < found.lost * total + 1 + each


def test_without_judgments_the_teachers_first_documents_are_what_should_be_found():
    assert opinion_of({"q": {"x": 0.1, "y": 0.9, "z": 0.5}}) == {"q": {"y": 60, "z": 30, "x": 20}}
    same = run_of(*["abc"] * 40)
    found = calibrate([same, same], Target(max_loss=0.05))
    assert found.sent == [0]
    assert found.lost == 0


def test_of_three_encoders_each_may_lose_its_part():
    """The second is asked about all queries, so that its part holds whatever the first sends on."""
    teacher = run_of(*["ab"] * 60)
    first, second = run_of(*["ab"] * 40, *["cd"] * 20), run_of(*["ab"] * 50, *["cd"] * 10)
    qrels = {str(number): {"a": 1} for number in range(60)}
    found = calibrate([first, second, teacher], Target(max_loss=0.2), qrels)
    alone = [calibrate([one, teacher], Target(max_loss=0.1), qrels).values[0] for one in (first, second)]
    assert found.values == alone
    assert found.lost <= 0.2


@pytest.mark.parametrize(
    ("count", "target", "needed"),
    [(29, {"max_share": 0.5}, 30), (60, {"max_share": 0.01}, 100), (60, {"max_loss": 0.01}, 100)],
)
def test_too_few_queries_for_a_target(count, target, needed):
    run = run_of(*["ab"] * count)
    with pytest.raises(ValueError, match=f"{count} queries are too few .* give {needed} or more"):
        calibrate([run, run], Target(**target))


@pytest.mark.parametrize("wrong", [{}, {"max_loss": 0.1, "max_share": 0.1}, {"max_loss": 0.0}, {"max_share": 1.5}])
def test_a_target_is_one_and_between_0_and_1(wrong):
    with pytest.raises(ValueError, match="Name one target between 0 and 1"):
        Target(**wrong)


def test_judgments_of_other_documents_are_refused():
    run = run_of(*["ab"] * 40)
    with pytest.raises(ValueError, match="are they judgments of this store's documents"):
        calibrate([run, run], Target(max_share=0.5), {str(number): {"x": 1} for number in range(40)})
