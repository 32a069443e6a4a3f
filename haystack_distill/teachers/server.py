"""
Likelihoods from an OpenAI-compatible server that returns log-probabilities of the prompt, such as vLLM.

Two dialects of `/v1/completions` are spoken: `echo` with `logprobs` (vLLM, llama.cpp and others), and vLLM's own
`prompt_logprobs`. The server's tokenizer is not known here: texts go without a chat template, the control tokens of
known chat templates are broken up in them, and the likelihood of an answer is that of its text, without an end token.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
import numpy as np

from haystack_distill.files.addresses import without_secrets
from haystack_distill.teachers.control_tokens import KNOWN, broken
from haystack_distill.teachers.prompts import Prompt, UnscorableError, fill
from haystack_distill.teachers.signals import SERVER

DIALECTS = ("echo", "prompt_logprobs")
TRIES = 5


@dataclass(frozen=True)
class ServerPrompt:
    """A text and where its target begins; nothing is ever `cut`, as the server refuses what is too long."""

    text: str
    target: int
    cut: frozenset[int] = frozenset()


class ServerReader:
    """
    A language model behind an OpenAI-compatible server.

    :param url: The address of the API, such as `http://localhost:8000/v1`.
    :param timeout: Seconds to wait for an answer.
    """

    kind: ClassVar[str] = SERVER
    tokenizer = None
    max_passage_tokens: int | None = None

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key: str | None = None,
        dialect: str = "echo",
        batch_size: int = 8,
        timeout: float = 600.0,
    ) -> None:
        if dialect not in DIALECTS:
            msg = f"There is no dialect {dialect!r}: {' or '.join(DIALECTS)}."
            raise ValueError(msg)
        self.url = without_secrets(url).rstrip("/")
        self.model = model
        self.dialect = dialect
        self.batch_size = batch_size
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        given = httpx.URL(url)  # whose user, password and query are in no message, and no log has the first two
        user = (given.username, given.password) if given.username else None
        self._client = httpx.Client(headers=headers, timeout=timeout, auth=user, params=given.params)

    def encode(
        self,
        prompt: Prompt,
        question: str | None,
        passages: list[str],
        target: str | None = None,
        *,
        target_is_passage: bool = False,  # noqa: ARG002 - nothing is cut here
        ended: bool = False,  # noqa: ARG002 - the end token is not known
    ) -> ServerPrompt:
        """See `PromptEncoder.encode`; the target must be given."""
        before = fill(prompt, broken(question or "", KNOWN), [broken(passage, KNOWN) for passage in passages])
        if not target or not target.strip():
            msg = f"The text {target!r}, whose likelihood is asked for, is empty."
            raise UnscorableError(msg)
        space = " " if prompt.cue.endswith(" ") else ""
        return ServerPrompt(before + space + broken(target.strip(), KNOWN), len(before))

    def log_likelihoods(self, prompts: Sequence[ServerPrompt]) -> Iterator[tuple[int, np.ndarray]]:
        """
        Log-likelihoods of the target's tokens.

        :raises ConnectionError: If the server can't be reached.
        :raises ValueError: If it refuses, or answers without log-probabilities of the prompt.
        """
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            body: dict[str, Any] = {"model": self.model, "prompt": [prompt.text for prompt in batch], "temperature": 0}
            if self.dialect == "echo":
                body |= {"echo": True, "logprobs": 1, "max_tokens": 1}
            else:
                body |= {"prompt_logprobs": 0, "max_tokens": 1}
            choices = sorted(self._post(body)["choices"], key=lambda choice: choice["index"])
            if len(choices) != len(batch):
                msg = f"{self.url} answered {len(choices)} of {len(batch)} prompts: set batch_size=1."
                raise ValueError(msg)
            read = self._echoed if self.dialect == "echo" else self._prompt_logprobs
            for number, (prompt, choice) in enumerate(zip(batch, choices, strict=True), start=start):
                yield number, read(prompt, choice)

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask; a busy or failing server is asked again, with growing pauses."""
        what = ""
        for attempt in range(TRIES):
            try:
                response = self._client.post(f"{self.url}/completions", json=body)
            except httpx.TransportError as error:
                what = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return response.json()
                what = f"status {response.status_code}: {response.text[:200]}"
                if response.status_code != httpx.codes.TOO_MANY_REQUESTS and not response.is_server_error:
                    msg = f"{self.url} refused the request, {what}"
                    raise ValueError(msg)
            if attempt < TRIES - 1:
                time.sleep(0.5 * 2**attempt)
        msg = f"{self.url} could not be used after {TRIES} tries: {what}. Nothing is lost: start again when it is up."
        raise ConnectionError(msg)

    def _echoed(self, prompt: ServerPrompt, choice: dict[str, Any]) -> np.ndarray:
        logprobs = choice.get("logprobs") or {}
        if not logprobs.get("token_logprobs") or not logprobs.get("text_offset"):
            raise self._no_logprobs()
        ends = [*logprobs["text_offset"][1:], np.inf]
        values = [
            value
            for value, start, end in zip(logprobs["token_logprobs"], logprobs["text_offset"], ends, strict=True)
            if start < len(prompt.text) and end > prompt.target
        ]
        return self._checked(prompt, values)

    def _prompt_logprobs(self, prompt: ServerPrompt, choice: dict[str, Any]) -> np.ndarray:
        tokens = choice.get("prompt_logprobs")
        if not tokens:
            raise self._no_logprobs()
        values: list[float | None] = []
        missing = len(prompt.text) - prompt.target
        for token in reversed(tokens):
            if missing <= 0:
                break
            read: dict[str, Any] = next(iter(token.values())) if token else {"logprob": None, "decoded_token": ""}
            values.append(read["logprob"])
            missing -= len(read["decoded_token"])
        return self._checked(prompt, values[::-1])

    def _checked(self, prompt: ServerPrompt, values: list[float | None]) -> np.ndarray:
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        if not len(numbers):
            msg = f"{self.url} returned no token of {prompt.text[prompt.target :][:60]!r}."
            raise UnscorableError(msg)
        return numbers

    def _no_logprobs(self) -> ValueError:
        other = DIALECTS[1 - DIALECTS.index(self.dialect)]
        return ValueError(
            f"{self.url} returned no log-probabilities of the prompt: use a server that does (vLLM), or "
            f"dialect={other!r}."
        )
