"""What an unfinished run writes down of a chat generator and of a server: no secret."""

import json
from types import SimpleNamespace

import httpx
import pytest

from haystack_distill.teachers.server import ServerPrompt, ServerReader
from haystack_integrations.components.distill.parts.chat_asking import identity_of

OPTIONS = {"temperature": 1.0, "extra_headers": {"X-Key": "geheim"}, "extra_query": {"key": "geheim"}}


def generator(**options):
    return SimpleNamespace(
        model="m", api_base_url="https://me:geheim@host/v1?key=geheim", generation_kwargs={**OPTIONS, **options}
    )


def test_no_secret_of_a_chat_generator_is_written_down():
    told = identity_of(generator(extra_body={"key": "geheim"}), seeded=True)
    assert "geheim" not in json.dumps(told)
    assert told["api_base_url"] == "https://host/v1"


def test_what_changes_the_texts_is_another_run_and_another_key_is_not():
    told = identity_of(generator(), seeded=True)
    assert identity_of(generator(extra_headers={"X-Key": "renewed"}), seeded=True) == told
    assert identity_of(generator(temperature=0.5), seeded=True) != told


def test_a_server_s_message_names_it_without_its_password_and_it_is_still_sent(monkeypatch):
    asked = []

    def answer(request):
        asked.append(request)
        return httpx.Response(400, text="no")

    reader = ServerReader("https://me:geheim@host/v1/?key=geheim", "m")
    reader._client._transport = httpx.MockTransport(answer)
    monkeypatch.setattr(reader._client, "_mounts", {})
    with pytest.raises(ValueError, match="https://host/v1 refused the request") as error:
        list(reader.log_likelihoods([ServerPrompt("what? x", 6)]))
    assert "geheim" not in str(error.value)
    assert str(asked[0].url) == "https://host/v1/completions?key=geheim"
    assert asked[0].headers["Authorization"].startswith("Basic ")
