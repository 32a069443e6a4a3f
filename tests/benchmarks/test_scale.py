"""The benchmark of workers runs, and its rows say what they should; never how fast."""

import json

import pytest

pytest.importorskip("ray.data", reason="the extra `ray` is not installed")
pytest.importorskip("haystack_integrations.document_stores.faiss", reason="faiss-haystack is not installed")

from benchmarks import scale
from tests.readers import save_reader


def test_every_job_has_the_same_bits_whatever_the_workers(beir, tiny, two_cores, tmp_path, monkeypatch):  # noqa: ARG001
    tiny(scale)
    monkeypatch.setattr(scale, "WORKERS", (1, 2))
    reader = save_reader("llama", tmp_path / "reader", chat=True)
    rows_file = tmp_path / "rows.json"
    scale.main(json=rows_file, data=beir, reader=reader, size=None, quick=True)
    rows = json.loads(rows_file.read_text())
    jobs, indexes = rows[:10], rows[10:]
    assert [row["job"] for row in jobs[::2]] == list(scale.JOBS)
    assert all(row["same_bits"] for row in jobs), rows
    assert [row["items"] for row in indexes] == [row["held"] for row in indexes] == [1_000, 10_000]
    monkeypatch.setattr(scale, "measured", lambda *_: pytest.fail("a finished row was run again"))
    scale.main(json=rows_file, data=beir, reader=reader, size=None, quick=True)
