"""What tables of encoders show and advise."""

from haystack_distill.cli.shared import show_encoders

FIGURES = {"ndcg@10": 0.5, "recall@10": 0.5, "mrr@10": 0.5, "encode_ms": 1.0, "intervals": {"ndcg@10": [0.4, 0.6]}}


def test_recovery_has_a_column_only_where_it_was_measured(capsys):
    show_encoders({"teacher": FIGURES, "table": FIGURES, "seed": 0})
    assert "recovery" not in capsys.readouterr().out
    advice = "The store returns less: raise it."
    measured = {"teacher": FIGURES | {"recovery": 0.986}, "table": FIGURES | {"recovery": 0.9741}}
    show_encoders({**measured, "seed": 0, "recovery_advice": advice, "hybrids": {"alone": {"teacher": FIGURES}}})
    encoders, hybrids = capsys.readouterr().out.split("alone:")
    assert ["recovery" in table for table in (encoders, hybrids)] == [True, False]
    assert ["98.6 %" in line for line in encoders.splitlines() if line.split()[:1] == ["teacher"]] == [True]
    assert ["97.4 %" in line for line in encoders.splitlines() if line.split()[:1] == ["table"]] == [True]
    assert hybrids.rstrip().endswith(advice)
