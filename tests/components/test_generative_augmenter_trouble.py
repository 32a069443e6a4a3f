"""GenerativeAugmenter over a server that misbehaves on purpose, and killed."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from haystack_distill import GenerativeAugmenter
from haystack_distill.data.questions import read_questions
from haystack_distill.generation import asking
from tests.augmenting import DOCUMENTS, asked_about, augmenter, lines
from tests.chat_server import chatting, question_about
from tests.kills import kill_when, lines_in
from tests.readers import save_reader

pytestmark = pytest.mark.usefixtures("hurry")


class TestTrouble:
    def test_a_busy_failing_silent_or_babbling_server_is_asked_again(self, tmp_path):
        with chatting() as (server, url):
            server.troubles = [
                {"status": 500},
                {"status": 429, "headers": {"Retry-After": "0.3"}},
                "",
                "so so so so so so?",
                "stall",
                {"status": 503},
            ]
            result = augmenter(url, tmp_path, timeout=4, concurrency=2, tries=8).run(documents=DOCUMENTS)
        assert result["summary"]["set_aside"] == []
        assert result["summary"]["generated"] == 12
        assert len(server.requests) == 18
        # Empty and repeated replies cost tokens too.
        assert result["summary"]["usage"]["calls"] == 14

    def test_retry_after_holds_all_calls(self, tmp_path):
        under_way = threading.Barrier(3, timeout=60)

        def trouble_for(_):
            if len(server.requests) <= 3:
                return {"status": 429, "headers": {"Retry-After": "0.7"}} if under_way.wait() == 0 else None
            return None

        with chatting(lambda body: (time.sleep(0.3), question_about(body))[1], trouble_for) as (server, url):
            augmenter(url, tmp_path, concurrency=3).run(documents=DOCUMENTS)
        first, *others = sorted(at for at, _ in server.requests)
        at_once = [at for at in others if at - first < 0.7]
        assert len(at_once) == 2
        assert len(others) == 12

    def test_a_rate_limit_is_kept(self, tmp_path):
        with chatting() as (server, url):
            augmenter(url, tmp_path, requests_per_minute=600).run(documents=DOCUMENTS[:6])
        times = sorted(at for at, _ in server.requests)
        assert times[-1] - times[0] >= 0.4

    @pytest.mark.parametrize("trouble", [{"status": 400}, "", "no no no no no no no", {"status": 500}, "stall"])
    def test_a_row_that_fails_for_good_is_set_aside_and_counted(self, tmp_path, trouble):
        def trouble_for(body):
            return trouble if DOCUMENTS[3].content in body["messages"][-1]["content"] else None

        with chatting(trouble_for=trouble_for) as (server, url):
            timeout = 4 if trouble == "stall" else 60
            result = augmenter(url, tmp_path, tries=2, timeout=timeout).run(documents=DOCUMENTS)
        [set_aside] = result["summary"]["set_aside"]
        assert set_aside["id"] == "d3"
        assert set_aside["reason"]
        assert result["summary"]["missing_texts"] == 1
        assert len(read_questions(result["output"])) == 11
        assert len(server.requests) == 11 + (1 if trouble == {"status": 400} else 2)

    def test_one_text_of_several_may_fail(self, tmp_path):
        def trouble_for(body):
            return "" if body["seed"] % 3 == 0 else None

        with chatting(trouble_for=trouble_for) as (_, url):
            summary = augmenter(url, tmp_path, n=4, tries=1).run(documents=DOCUMENTS)["summary"]
        assert summary["generated"] + summary["missing_texts"] == 48
        assert summary["missing_texts"] > 0

    @pytest.mark.parametrize("status", [401, 404])
    def test_a_server_that_refuses_all_stops_the_run_at_once(self, tmp_path, status):
        with chatting(trouble_for=lambda _: {"status": status}) as (server, url):
            with pytest.raises(ConnectionError, match="check its address, model name and key"):
                augmenter(url, tmp_path, concurrency=2).run(documents=DOCUMENTS)
        assert len(server.requests) <= 6

    def test_a_server_that_is_gone_stops_the_run_and_nothing_is_lost(self, tmp_path, monkeypatch):
        monkeypatch.setattr(asking, "GIVE_UP", 3)
        with chatting() as (server, url):
            server.trouble_for = lambda _: {"status": 500} if len(server.requests) > 5 else None
            with pytest.raises(ConnectionError, match="start again when that is mended"):
                augmenter(url, tmp_path, tries=1, concurrency=1).run(documents=DOCUMENTS)
            assert not (tmp_path / "out").exists()
            server.trouble_for = lambda _: None
            done = {row["id"] for row in lines(tmp_path / ".out.run" / "replies.jsonl")}
            server.requests.clear()
            summary = augmenter(url, tmp_path, tries=1, concurrency=1).run(documents=DOCUMENTS)["summary"]
        assert summary["generated"] == 12
        assert len(done) == 5
        assert not [
            one for one in DOCUMENTS if one.id in done and any(one.content in text for text in asked_about(server))
        ]

    def test_rows_that_are_refused_are_not_a_server_that_is_gone(self, tmp_path, monkeypatch):
        monkeypatch.setattr(asking, "GIVE_UP", 3)
        bad = [one.content for one in DOCUMENTS[4:]]

        def trouble_for(body):
            return {"status": 400} if any(text in body["messages"][-1]["content"] for text in bad) else None

        with chatting(trouble_for=trouble_for) as (server, url):
            summary = augmenter(url, tmp_path, concurrency=1).run(documents=DOCUMENTS)["summary"]
            assert len(summary["set_aside"]) == 8
            # Where not one was answered, what is asked is wrong, and nobody waits for the rest to fail.
            server.requests.clear()
            with pytest.raises(ConnectionError, match="in a row brought nothing.*400"):
                augmenter(url, tmp_path / "b", concurrency=1).run(documents=DOCUMENTS[4:])
            assert len(server.requests) < 8

    def test_a_generator_that_takes_no_seed_says_so(self, tmp_path):
        with chatting() as (_, url):
            made = augmenter(url, tmp_path)
            made.generator.run = lambda messages: {"replies": messages}
            with pytest.raises(TypeError, match="generation_kwargs"):
                made.run(documents=DOCUMENTS)

    def test_nothing_stays(self, tmp_path):
        with chatting(lambda _: "What is this text about?") as (_, url):
            with pytest.raises(ValueError, match="None of the 12 generated texts stays.*generic 12"):
                augmenter(url, tmp_path).run(documents=DOCUMENTS)
        with chatting(lambda _: "") as (_, url):
            with pytest.raises(ValueError, match="all 12 sources were set aside.*the model said nothing"):
                augmenter(url, tmp_path / "b", tries=1).run(documents=DOCUMENTS)


KILLED = """
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.utils import Secret
from haystack_distill import GenerativeAugmenter

generator = OpenAIChatGenerator(
    api_key=Secret.from_token("x"), model="asked-model", api_base_url="{url}", max_retries=0
)
GenerativeAugmenter(generator=generator, output="{output}", n=1, concurrency=1).run(source="{corpus}")
"""


class TestGoingOn:
    def test_an_output_of_the_same_is_kept_and_of_another_refused(self, tmp_path):
        with chatting() as (server, url):
            first = augmenter(url, tmp_path).run(documents=DOCUMENTS)
            assert augmenter(url, tmp_path).run(documents=DOCUMENTS) == first
            assert len(server.requests) == 12
            for changes in ({"seed": 1}, {"n": 2}, {"without": ["generic"]}):
                with pytest.raises(FileExistsError, match="exists already"):
                    augmenter(url, tmp_path, **changes).run(documents=DOCUMENTS)

    def test_runs_of_other_settings_are_not_mixed(self, tmp_path):
        with chatting(lambda _: "What is this text about?") as (_, url):
            with pytest.raises(ValueError, match="stays"):
                augmenter(url, tmp_path).run(documents=DOCUMENTS)
            for changes, what in (({"seed": 1}, "seed"), ({"prompt": "Ask about {text}"}, "prompt")):
                with pytest.raises(ValueError, match=f"had other .*{what}"):
                    augmenter(url, tmp_path, **changes).run(documents=DOCUMENTS)
            with pytest.raises(ValueError, match="had other sources"):
                augmenter(url, tmp_path).run(documents=DOCUMENTS[:3])

    def test_killed_runs_go_on_and_write_the_same(self, tmp_path):
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_text("".join(json.dumps({"_id": one.id, "text": one.content}) + "\n" for one in DOCUMENTS))
        with chatting() as (server, url):
            augmenter(url, whole).run(source=str(corpus))
            server.reply = lambda body: (time.sleep(0.2), question_about(body))[1]
            code = KILLED.format(url=url, output=str(killed / "out"), corpus=str(corpus))
            with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "."}) as process:
                journal = killed / ".out.run" / "replies.jsonl"
                kill_when(lambda: lines_in(journal) >= 4, process)
            done = lines_in(journal)
            assert 4 <= done < 12
            with journal.open("a") as file:
                file.write('{"id": "torn')
            server.requests.clear()
            augmenter(url, killed).run(source=str(corpus))
            assert len(server.requests) == 12 - done
        for name in ("queries.jsonl", "corpus.jsonl", "rejected.jsonl", "qrels/train.tsv"):
            assert (whole / "out" / name).read_bytes() == (killed / "out" / name).read_bytes()

    def test_a_local_model_goes_on_and_writes_the_same(self, tmp_path, monkeypatch):
        from haystack_distill.generation.local import LocalGenerator

        model = save_reader("llama", tmp_path / "model", chat=True)

        def run(name):
            settings = {"n": 2, "batch_size": 4, "words": [0, 100], "examples": []}
            without = ["no_question", "generic", "repetition"]
            return GenerativeAugmenter(
                model=model,
                output=str(tmp_path / name),
                sampling={"max_new_tokens": 8},
                progress_bar=False,
                without=without,
                **settings,
            ).run(documents=DOCUMENTS)

        run("whole")
        real = LocalGenerator.answer
        left = [2]

        def dies(self, batch):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(self, batch)

        monkeypatch.setattr(LocalGenerator, "answer", dies)
        with pytest.raises(KeyboardInterrupt):
            run("killed")
        assert len(lines(tmp_path / ".killed.run" / "replies.jsonl")) == 4
        left[0] = 4  # of six batches two are done
        result = run("killed")
        assert result["summary"]["usage"]["completion_tokens"] > 0
        for name in ("queries.jsonl", "rejected.jsonl", "summary.json"):
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
        assert all("loglik" in one for one in lines(tmp_path / "whole" / "rejected.jsonl"))
