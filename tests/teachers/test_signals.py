"""The table of signals is where everything else is made from: teachers, messages, documentation."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from haystack_distill.teachers.attention_signals import AttentionTeacher
from haystack_distill.teachers.heads import Heads
from haystack_distill.teachers.likelihood import LikelihoodTeacher
from haystack_distill.teachers.server import ServerReader
from haystack_distill.teachers.signals import ATTENTION, CAUSAL, FUSION, LIKELIHOOD, SERVER, SIGNALS
from tests.readers import ROW

TEACHERS = {LIKELIHOOD: LikelihoodTeacher, ATTENTION: AttentionTeacher}
FAMILY = {CAUSAL: "llama", FUSION: "t5"}
DOCS = Path(__file__).parents[2] / "docs" / "teachers.md"


def teacher_of(signal, loaded):
    heads = {"heads": Heads("", "core", [(0, 1)], [[0.0] * 4] * 3, 8)} if signal.name == "heads" else {}
    return TEACHERS[signal.reads](loaded, signal.name, **heads)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS)
def test_a_reader_has_the_signals_that_the_table_gives_it(signal, kind, reader):
    loaded = reader(FAMILY[kind])
    if kind in signal.prompts:
        scores = teacher_of(signal, loaded).score([ROW])[0].scores
        assert scores.shape == (len(ROW.passages),)
        assert np.isfinite(scores).all()
        return
    with pytest.raises(
        ValueError, match=f"The signal {signal.name!r} is read out of a .*, and this one is of the kind"
    ):
        teacher_of(signal, loaded)


@pytest.mark.parametrize(
    "signal", [one for one in SIGNALS.values() if one.reads == ATTENTION], ids=lambda one: one.name
)
def test_no_attention_is_read_behind_a_server(signal):
    with pytest.raises(ValueError, match="'server', which has 'question', 'pdist'"):
        teacher_of(signal, ServerReader("http://unused", "m"))
    assert SERVER not in signal.prompts


@pytest.mark.parametrize("reads", TEACHERS)
def test_a_wrong_name_is_told_all_names(reads, reader):
    with pytest.raises(ValueError, match="There is no signal 'atention'") as error:
        TEACHERS[reads](reader("llama"), "atention")
    assert all(f" {name}" in str(error.value) for name in SIGNALS)
    for signal in SIGNALS.values():
        if signal.reads != reads:
            with pytest.raises(ValueError, match=f"reads {signal.reads}, not {reads}: take Teacher.*Scorer for it"):
                TEACHERS[reads](reader("llama"), signal.name)


def test_a_signal_that_needs_answers_is_asked_for_answers(reader):
    from haystack_distill.teachers.prompts import UnscorableError
    from haystack_distill.teachers.scores import Candidates

    for signal in SIGNALS.values():
        teacher, row = teacher_of(signal, reader("llama")), Candidates(ROW.query, ROW.passages, [])
        if signal.needs_answers:
            with pytest.raises(UnscorableError, match=f"The signal {signal.name!r} needs an answer"):
                teacher.score([row])
        else:
            assert len(teacher.score([row])[0].scores) == len(ROW.passages)


def test_scores_of_before_and_after_a_change_are_told_apart(reader):
    """Labels that were made without the end token must not go on with it."""
    for signal in SIGNALS.values():
        identity = teacher_of(signal, reader("llama")).identity
        assert identity.get("revision", 1) == signal.revision


def test_the_documentation_has_the_rows_of_the_table():
    every = len({kind for signal in SIGNALS.values() for kind in signal.prompts})
    rows = [
        "| "
        + " | ".join(
            [
                f"`{signal.name}`" + (" (default)" if signal.name == "question" else ""),
                signal.score,
                "yes" if signal.needs_answers else "no",
                "all" if len(signal.prompts) == every else ", ".join(signal.prompts),
                signal.passages,
                signal.paper,
            ]
        )
        + " |"
        for signal in SIGNALS.values()
    ]
    section = DOCS.read_text(encoding="utf-8").split("## Signals")[1].split("\n\n")[1]
    assert section.splitlines()[2:] == rows


def test_the_table_needs_no_model_library():
    """The command line shows it in its help."""
    code = "import sys, haystack_distill.teachers.signals; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
