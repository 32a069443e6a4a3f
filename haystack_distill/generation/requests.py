"""What a generator is asked, and what it says: the contract between prompts, generators and filters."""

import hashlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

OPENING = "Hello."
"""Said before a context in which the model would speak first: many chat templates want the user to begin."""


class Message(NamedTuple):
    """A message of a chat."""

    role: str
    text: str


@dataclass(frozen=True)
class Request:
    """
    A prompt, and how many texts are wanted for it.

    :param id: The id of what the texts are written for.
    :param turns: What the texts are about: a passage, or the turns of a dialogue, oldest first.
    :param head: Messages before it: instructions and examples.
    :param before: Text before the last turn; both say what is asked of it.
    :param cue: Begins the reply of a model that has no chat template.
    :param cut: How many turns were dropped, or how often the passage was halved, to fit.
    """

    id: str
    turns: tuple[str, ...]
    seeds: tuple[int, ...]
    head: tuple[Message, ...] = ()
    before: str = ""
    after: str = ""
    cue: str = ""
    cut: int = 0

    @property
    def messages(self) -> list[Message]:
        """The whole chat; the last message is the user's."""
        last = len(self.turns) - 1
        said = [Message("user" if (last - place) % 2 == 0 else "assistant", text) for place, text in self._said()]
        opening = [Message("user", OPENING)] if last % 2 else []
        return [*self.head, *opening, *said]

    def shortened(self) -> "Request | None":
        """The same without its oldest turn, or with half of its passage; None if there is nothing to leave out."""
        if len(self.turns) > 1:
            return replace(self, turns=self.turns[1:], cut=self.cut + 1)
        words = self.turns[0].split(" ")
        if len(words) < 2:
            return None
        return replace(self, turns=(" ".join(words[: len(words) // 2]),), cut=self.cut + 1)

    def _said(self) -> Iterator[tuple[int, str]]:
        last = len(self.turns) - 1
        for place, text in enumerate(self.turns):
            yield place, f"{self.before}{text}{self.after}" if place == last else text


@dataclass(frozen=True)
class Text:
    """A text as it was generated; `finished` says whether the generator ended it, and not the limit of its length."""

    text: str
    seed: int
    loglik: float | None = None
    finished: bool = True


@dataclass(frozen=True)
class Reply:
    """
    What came of a request.

    :param texts: The texts, in the order of the seeds; those that failed for good are missing.
    :param usage: Tokens that were counted, by kind.
    :param cut: See `Request.cut`.
    :param failed: Whether the model could not be asked, in contrast to having nothing to say.
    """

    id: str
    texts: tuple[Text, ...]
    model: str
    usage: dict[str, int] = field(default_factory=dict)
    cut: int = 0
    reason: str = ""
    failed: bool = False


class Generator(Protocol):
    """Turns requests into replies."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the texts depend on, besides the requests."""

    def work(self, requests: Sequence[Request], done: AbstractSet[str]) -> Iterator[list[Reply]]:
        """Answer requests whose ids are not in `done`, in any order, in pieces that should be kept at once."""


def seed_for(seed: int, request_id: str, number: int, attempt: int = 0) -> int:
    """The seed of one text: it depends on nothing but what is named here, not on order, batch and kills."""
    content = f"{seed}\0{request_id}\0{number}\0{attempt}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> 1
