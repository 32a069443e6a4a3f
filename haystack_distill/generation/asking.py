"""A model that answers one prompt a call, wherever it runs: several calls at once, patience, a count of the cost."""

import email.utils
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_when_event_set
from tenacity.nap import sleep_using_event

from haystack_distill.generation.filters import repeats_itself
from haystack_distill.generation.requests import Message, Reply, Request, Text, seed_for

GIVE_UP = 20
"""After so many failed rows in a row the server is taken to be gone; at the start, nothing to be fitting."""

LONGEST_PAUSE = 120.0
FATAL = frozenset({401, 403, 404})
PASSING = frozenset({408, 409, 425, 429})
MISTAKES = (TypeError, AttributeError, ImportError, NotImplementedError)
"""What a generator raises that does not take its input: no other request will succeed."""


class UnusableReplyError(ValueError):
    """The model said nothing, or the same again and again."""


@dataclass(frozen=True)
class Said:
    """What a model said; `finished` says whether the model ended it, and not the limit of its length."""

    text: str
    model: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    finished: bool = True


Ask = Callable[[list[Message], int], Said]
"""Sends a chat with a seed, and waits for the reply."""


@dataclass
class AskingGenerator:
    """
    Generates by asking, as patiently as `GenerativeAugmenter` says.

    :param name: The model's name, where replies don't say it.
    :param pause: Seconds before the second try; later pauses grow.
    """

    ask: Ask
    identity: dict[str, Any]
    name: str
    _: KW_ONLY
    at_once: int = 8
    tries: int = 4
    timeout: float = 120.0
    per_minute: float | None = None
    pause: float = 1.0

    def __post_init__(self) -> None:
        self._pace = _Pace(self.per_minute)
        self._stopped = threading.Event()

    def work(self, requests: Sequence[Request], done: AbstractSet[str]) -> Iterator[list[Reply]]:
        """
        Ask for what is not done; see `Generator.work`.

        :raises ConnectionError: If the server is gone, or refuses whatever is asked.
        :raises TypeError: If the generator does not take what it is given.
        """
        left = deque(request for request in requests if request.id not in done)
        self._stopped.clear()
        gone, in_vain, answered = 0, 0, bool(done)
        pool = ThreadPoolExecutor(self.at_once, thread_name_prefix="asking")
        try:
            running: set[Future[Reply]] = set()
            while left or running:
                while left and len(running) < 2 * self.at_once:
                    running.add(pool.submit(self._reply, left.popleft()))
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                # What came is handed over before anything that went wrong beside it is raised.
                for future in sorted(finished, key=lambda future: future.exception() is not None):
                    reply = future.result()
                    yield [reply]
                    answered = answered or bool(reply.texts)
                    gone = gone + 1 if reply.failed else 0
                    in_vain = 0 if reply.texts else in_vain + 1
                if gone >= GIVE_UP or (in_vain >= GIVE_UP and not answered):
                    msg = (
                        f"{max(gone, in_vain)} requests to {self.name} in a row brought nothing, the last because "
                        f"{reply.reason}. Nothing that was generated is lost: start again when that is mended."
                    )
                    raise ConnectionError(msg)
        finally:
            self._stopped.set()  # wakes those that pause
            pool.shutdown(wait=False, cancel_futures=True)

    def _reply(self, request: Request) -> Reply:
        texts, usage, model, reasons, failed = [], Counter[str](), "", [], False
        for number in range(len(request.seeds)):
            try:
                said, seed = self._patiently(request, number, usage)
            except MISTAKES:
                raise
            except Exception as error:  # whatever a client raises
                if _status(error) in FATAL:
                    msg = (
                        f"{self.name} refuses all requests ({error}): check its address, model name and key. Nothing "
                        "is lost."
                    )
                    raise ConnectionError(msg) from error
                reasons.append(f"{type(error).__name__}: {error}")
                failed = failed or not _about_the_row(error)
                continue
            texts.append(Text(said.text, seed, finished=said.finished))
            model = said.model or model
        unanswered = failed and not texts
        reason = reasons[0] if reasons else ""
        return Reply(request.id, tuple(texts), model or self.name, dict(usage), request.cut, reason, unanswered)

    def _patiently(self, request: Request, number: int, usage: Counter[str]) -> tuple[Said, int]:
        patience = Retrying(
            stop=stop_after_attempt(self.tries) | stop_when_event_set(self._stopped),
            retry=retry_if_exception(_may_pass),
            wait=self._wait,
            sleep=sleep_using_event(self._stopped),
            reraise=True,
        )
        for attempt in patience:
            with attempt:
                # A model that repeats itself with one seed would do so again.
                again = attempt.retry_state.attempt_number - 1
                seed = seed_for(request.seeds[number], request.id, number, again) if again else request.seeds[number]
                said = self._once(request.messages, seed)
                usage.update({"calls": 1, **said.usage})
                if not said.text.strip():
                    msg = "the model said nothing"
                    raise UnusableReplyError(msg)
                if repeats_itself(said.text):
                    msg = f"the model repeats itself: {said.text[:60]!r}"
                    raise UnusableReplyError(msg)
        return said, seed

    def _once(self, messages: list[Message], seed: int) -> Said:
        """One call in a thread of its own, which is left behind where it stalls."""
        self._pace.wait(self._stopped)
        outcome: Future[Said] = Future()

        def call() -> None:
            try:
                outcome.set_result(self.ask(messages, seed))
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=call, daemon=True, name="asking-once").start()
        try:
            return outcome.result(self.timeout)
        except TimeoutError as error:
            if outcome.done():
                raise  # the client's own
            msg = f"no reply within {self.timeout:g} seconds"
            raise TimeoutError(msg) from error

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_for = retry_after(error)
        if asked_for is not None:
            pause = min(asked_for, LONGEST_PAUSE)
            self._pace.hold(pause)  # the limit is the server's, not this request's
            return pause
        if isinstance(error, UnusableReplyError):
            return 0.0
        return min(self.pause * 2 ** (state.attempt_number - 1), LONGEST_PAUSE)


class _Pace:
    """Tells all threads when the next call may start."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stopped: threading.Event) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._gap
        if start > now:
            stopped.wait(start - now)

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def retry_after(error: BaseException | None) -> float | None:
    """How many seconds a server asked to be left alone; None if it did not say."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None


def _status(error: BaseException) -> int | None:
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _may_pass(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status in PASSING or status >= 500
    return isinstance(error, Exception) and not isinstance(error, MISTAKES)


def _about_the_row(error: Exception) -> bool:
    """Whether another row could succeed: the server is there, and can't or won't answer this one."""
    status = _status(error)
    return isinstance(error, UnusableReplyError) or (
        status is not None and 400 <= status < 500 and not _may_pass(error)
    )
