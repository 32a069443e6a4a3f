"""What tables of encoders show and advise."""

from haystack_distill.cli.shared import show_encoders

FIGURES = {"ndcg@10": 0.5, "recall@10": 0.5, "mrr@10": 0.5, "encode_ms": 1.0, "intervals": {"ndcg@10": [0.4, 0.6]}}


def test_recovery_has_a_table_where_it_was_measured(capsys):
    show_encoders({"teacher": FIGURES, "table": FIGURES, "seed": 0})
    alone = capsys.readouterr().out
    advice = "The store returns less: raise it."
    measured = {"teacher": FIGURES | {"recovery": 0.986}, "[b]table": FIGURES | {"recovery": 0.9741}}
    show_encoders({**measured, "seed": 0, "recovery_advice": advice})
    told = capsys.readouterr().out
    assert "the store" not in alone
    _, _, table = told.partition("the store")
    assert [line.split() for line in table.splitlines() if "%" in line] == [
        ["teacher", "98.6", "%"],
        ["[b]table", "97.4", "%"],
    ]
    assert told.endswith(f"{advice}\n")
