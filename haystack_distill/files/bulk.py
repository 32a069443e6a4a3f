"""
One way to run bulk work: a function of a piece of it, in this process or, through Ray Data, in several.

Workers compute; only the process that was started reads the work and writes what comes of it, so nodes need no common
file system, and a run goes on after a kill in the same way whatever the number of workers.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

AT_ONCE = 2048
"""Pieces that are handed to Ray together: what memory holds of the work. Workers load what they need once for these."""

PATIENCE = 10.0
"""Seconds until a Ray that does not answer counts as gone; its own client tries for minutes."""


def check_workers(num_workers: int) -> None:
    """
    Make sure that work can run in so many processes, before anything is loaded for it.

    :raises ImportError: If it needs Ray, and Ray is not installed.
    :raises ConnectionError: If the Ray that RAY_ADDRESS names does not answer.
    """
    if num_workers == 1:
        return
    try:
        import ray.data
    except ImportError as error:
        msg = "num_workers above 1 needs Ray: pip install 'haystack-distill[ray]'."
        raise ImportError(msg) from error
    host, _, port = os.environ.get("RAY_ADDRESS", "").rpartition("/")[2].rpartition(":")
    if ray.is_initialized() or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise ConnectionError(_unanswered(error)) from error


def bulk(
    pieces: Iterable[Piece], make: Callable[[], Callable[[Piece], Iterable[Result]]], num_workers: int = 1
) -> Iterator[Result]:
    """
    Apply a function to pieces of work. Results come in the order of the pieces.

    A worker that dies is replaced, and its piece done again. What the function raises is raised here, after all results
    before it.

    :param pieces: They are read as they are needed; the function should look at nothing else.
    :param make: Makes the function, once in every worker; what it loads stays there.
    :param num_workers: How many processes work. 1 is this one; more run through Ray, on this machine or on the cluster
        that Ray is connected to or RAY_ADDRESS names. Each has one thread, or as many as OMP_NUM_THREADS says, and
        rounding depends on that number: with the same everywhere, results are the same to the bit.
    :raises ImportError: If Ray is needed and not installed.
    :raises ConnectionError: If the Ray that RAY_ADDRESS names does not answer.
    :raises OSError: If Ray itself can't go on.
    """
    check_workers(num_workers)
    if num_workers == 1:
        function = make()
        for piece in pieces:
            yield from function(piece)
        return
    left = iter(pieces)
    with _ray(num_workers) as ray:
        while some := list(islice(left, AT_ONCE)):
            yield from _spread(ray, some, make, num_workers)


def one_result(make: Callable[[], Callable[[Piece], Result]]) -> Callable[[Piece], Iterable[Result]]:
    """Make a function for `bulk` out of one that gives a single result for a piece; `make` makes that one."""
    function = make()
    return lambda piece: [function(piece)]


def _spread(ray: Any, pieces: list[Any], make: Callable[[], Any], num_workers: int) -> Iterator[Any]:
    from ray import cloudpickle

    packed = [{"piece": cloudpickle.dumps(piece)} for piece in pieces]
    data = ray.data.from_items(packed, override_num_blocks=len(packed))
    data.context.enable_progress_bars = False
    data.context.execution_options.preserve_order = True
    shares = min(1.0, ray.cluster_resources().get("GPU", 0) / num_workers)  # without one, Ray hides GPUs from a worker
    pool = ray.data.ActorPoolStrategy(size=min(num_workers, len(packed)))
    done = data.map_batches(_Worker, fn_constructor_args=(make,), batch_size=1, compute=pool, num_gpus=shares or None)
    try:
        for row in done.iter_rows():
            results, error = cloudpickle.loads(row["results"])
            yield from results
            if error:
                raise error
    except ray.exceptions.RayError as error:
        msg = f"Ray can't go on ({' '.join(str(error).split())[:300]}): mend that and start again."
        raise OSError(msg) from error


class _Worker:
    """Holds the function, and applies it to one piece at a time."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.function: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from ray import cloudpickle

        results: list[Any] = []
        failed = None
        try:
            self.function = self.function or self.make()  # here, for what goes wrong in __init__ is tried for ever
            results.extend(self.function(cloudpickle.loads(batch["piece"][0])))
        except Exception as error:
            failed = _portable(error)
        return {"results": [cloudpickle.dumps((results, failed))]}


def _portable(error: Exception) -> Exception:
    """The error, or its words if it can't be sent to another process: some are made from more than their message."""
    from ray import cloudpickle

    try:
        return cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def _ray(num_workers: int) -> Iterator[Any]:
    """The Ray that is connected; or else the one that RAY_ADDRESS names, or one of this machine, for the block."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    named = os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = (
        {}
        if named
        else {"address": "local", "num_cpus": max(num_workers, os.cpu_count() or 1), "include_dashboard": False}
    )
    try:
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **own)
    except (SystemExit, RuntimeError) as error:  # it exits where another server answers, and says if versions differ
        raise ConnectionError(_unanswered(error)) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _unanswered(error: BaseException) -> str:
    return (
        f"No Ray answers at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')} ({error}): start it there with `ray start "
        "--head`, or unset RAY_ADDRESS to work on this machine alone."
    )
