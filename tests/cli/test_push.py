"""A model put on a hub: one on loopback that speaks as the real one does, as far as it is asked."""

import pytest
from huggingface_hub import ModelCard

from haystack_distill.evaluation.proof import read_figures
from tests.hub_server import hub


@pytest.fixture
def server(monkeypatch):
    with hub(monkeypatch) as running:
        yield running


def test_a_model_is_there_with_its_proof_and_a_card_that_names_it(aligned, server, command):
    folder = aligned[1]
    code, said = command("push", folder, "acme/one-layer")
    assert (code, "acme/one-layer" in said) == (0, True)
    assert server.private == {"acme/one-layer": True}
    there = server.repositories["acme/one-layer"]
    here = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    card = there.pop("README.md").decode()
    mine = here.pop("README.md").decode()
    assert there == here
    assert card == mine.replace(f'"{folder.as_posix()}"', '"acme/one-layer"')
    assert card.count('"acme/one-layer"') == 2
    assert server.validated == [card], "the hub was asked whether it understands it"


def test_a_name_alone_is_in_ones_own_space(aligned, server, command):
    assert command("push", aligned[1], "one-layer")[0] == 0
    assert '"me/one-layer"' in server.repositories["me/one-layer"]["README.md"].decode()


def test_what_is_no_model_is_not_pushed(server, command, tmp_path):
    code, said = command("push", tmp_path, "acme/nothing")
    assert code == 1
    assert f"{tmp_path} is not a model that was made here, with modules.json and README.md: name a model's" in said
    for side in ("query", "document"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "modules.json").write_text("[]")
    assert "push document and query in it, each to a repository of its own" in command("push", tmp_path, "acme/pair")[1]
    assert not server.repositories


@pytest.mark.parametrize(
    ("name", "token", "said"),
    [("acme/x", "hf_wrong", "401"), ("a/b/c", None, "a/b/c"), ("acme/x", "", "401")],
)
def test_a_hub_that_refuses_is_one_sentence_with_a_way_out(aligned, server, command, monkeypatch, name, token, said):
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    code, answer = command("push", aligned[1], name)
    assert code == 1
    assert said in answer
    assert f"can't be put on the hub as {name}" in answer
    assert "log in with `hf auth login`, or set HF_TOKEN." in answer
    assert not server.repositories


def test_a_hub_that_is_not_there_is_one_sentence(aligned, command, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    code, answer = command("push", aligned[1], "acme/x")
    assert code == 1
    assert "can't be put on the hub as acme/x" in answer


def test_the_card_is_one_that_a_hub_understands(aligned):
    _, folder, _ = aligned
    card, figures = ModelCard.load(folder / "README.md"), read_figures(folder)
    assert (card.data.library_name, card.data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
    assert card.data.base_model is None, "a folder is no name on the hub"
    found = {result.metric_type: result for result in card.data.eval_results}
    assert set(found) == {"ndcg_at_10", "recall_at_10", "mrr_at_10"}
    low, high = figures["student"]["intervals"]["ndcg@10"]
    result = found["ndcg_at_10"]
    assert result.metric_value == figures["student"]["ndcg@10"]
    assert result.metric_args == {"queries": 20, "low": low, "high": high}
    assert result.metric_name == f"nDCG@10 (20 queries, 95 % interval {low:.3f} to {high:.3f})"
    assert result.dataset_name == "judged test queries"


def test_the_code_of_a_card_runs_and_both_ways_agree(aligned):
    text = (aligned[1] / "README.md").read_text()
    vectors = []
    for block in text.split("```python\n")[1:]:
        names = {}
        exec(block.partition("```")[0], names)  # noqa: S102 - what the card tells people to type
        vectors.append(list(names["embedding"]))
    assert len(vectors) == 2
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)


def test_what_the_model_was_made_from_says_licence_and_language(on_the_hub, store, tmp_path, monkeypatch):
    from haystack_distill import KaleAligner

    name = on_the_hub("acme/teacher")
    snapshot = next((tmp_path / "hub").glob("models--acme--teacher/snapshots/*"))
    front = "language: [de, en]\nlicense: other\nlicense_name: ours\nlicense_link: LICENSE"
    (snapshot / "README.md").write_text(f"---\n{front}\n---\n\n# A teacher\n")
    monkeypatch.chdir(tmp_path)
    KaleAligner(document_store=store, teacher=name, output="first", layers=0, epochs=1, progress_bar=False).run()
    data = ModelCard.load("first/README.md").data
    assert (data.base_model, data.language) == (name, ["de", "en"])
    assert (data.license, data.license_name, data.license_link) == ("other", "ours", "LICENSE")
