"""Bulk work gives the same in one process and in many, and what goes wrong in a worker is said as it is here."""

import os
import socket
import sys

import pytest

from haystack_distill.files.bulk import bulk, check_workers

pytest.importorskip("ray.data", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.usefixtures("two_cores")


def halves_of(made=None, killed=None):
    """Makes a function of a number with two results; in one call of all, it kills its process first."""

    def make():
        if made:
            raise FileNotFoundError(made)

        def halves(number):
            if number == 7 and killed and not killed.exists():
                killed.write_text(str(os.getpid()))
                os.kill(os.getpid(), 9)
            yield number, "first"
            if number == 11:
                msg = "eleven can't be halved"
                raise ValueError(msg)
            yield number, "second"

        return halves

    return make


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_a_fault_after_all_before_it(workers):
    found = []
    with pytest.raises(ValueError, match="^eleven can't be halved$"):
        for result in bulk(iter(range(20)), halves_of(), workers):
            found.append(result)
    assert found == [(number, half) for number in range(12) for half in ("first", "second")][:-1]


def test_a_worker_that_is_killed_costs_no_result(tmp_path):
    killed = tmp_path / "killed"
    found = list(bulk(range(10), halves_of(killed=killed), 2))
    assert found == [(number, half) for number in range(10) for half in ("first", "second")]
    assert int(killed.read_text()) != os.getpid()


def test_more_work_than_is_handed_out_at_once(monkeypatch):
    monkeypatch.setattr("haystack_distill.files.bulk.AT_ONCE", 3)
    assert [number for number, _ in bulk(range(8), halves_of(), 2)] == [number // 2 for number in range(16)]


def test_workers_that_can_t_load_what_they_need_say_why():
    with pytest.raises(FileNotFoundError, match="^the model is nowhere$"):
        list(bulk(range(3), halves_of(made="the model is nowhere"), 2))


def test_an_error_that_can_t_travel_keeps_its_words():
    class Refusal(Exception):  # noqa: N818
        def __init__(self, status, answer):
            super().__init__(f"{status}: {answer}")

    def make():
        raise Refusal(403, "no")

    with pytest.raises(RuntimeError, match="^Refusal: 403: no$"):
        list(bulk(range(3), make, 2))


def test_more_workers_than_cores_work_all_the_same():
    assert len(list(bulk(range(6), halves_of(), 4))) == 12


def test_without_ray_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"^num_workers above 1 needs Ray: pip install 'haystack-distill\[ray\]'.$"):
        list(bulk(range(3), halves_of(), 2))
    assert len(list(bulk(range(3), halves_of(), 1))) == 6


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_without_a_ray_is_one_sentence(form, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(free.getsockname()[1])
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConnectionError, match=f"^No Ray answers at RAY_ADDRESS={address} .*: start it there with"):
        check_workers(2)
    check_workers(1)
