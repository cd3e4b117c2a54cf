"""Delays that double."""

from __future__ import annotations

from vk_provider.pods.backoff import Backoff

S = 1_000_000_000


def test_it_doubles_from_10_to_300() -> None:
    backoff = Backoff()
    delays = []
    now = 0
    for _ in range(7):
        backoff.advance("k", now, now)
        delays.append(backoff.delay_s("k"))
        now += 300 * S
    assert delays == [10, 20, 40, 80, 160, 300, 300]


def test_a_key_without_a_past_need_not_wait() -> None:
    assert Backoff().until_ns("k", 5 * S) == 0
    assert Backoff().retry_ns("k", 5 * S) == 0


def test_the_wait_counts_from_the_event() -> None:
    backoff = Backoff()
    backoff.advance("k", 0, 100 * S)
    assert backoff.until_ns("k", 101 * S) == 111 * S
    assert backoff.retry_ns("k", 101 * S) == 110 * S
    assert backoff.retry_ns("k", 111 * S) == 0


def test_after_ten_quiet_minutes_it_begins_anew() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.advance("k", 0, 0)
    assert backoff.until_ns("k", 601 * S) == 0
    backoff.advance("k", 601 * S, 601 * S)
    assert backoff.delay_s("k") == 10


def test_a_pods_keys_are_forgotten_together() -> None:
    backoff = Backoff()
    backoff.advance("a/1", 0, 0)
    backoff.advance("b/1", 0, 0)
    backoff.forget("a/")
    assert (backoff.delay_s("a/1"), backoff.delay_s("b/1")) == (0, 10)
