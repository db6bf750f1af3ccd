"""Sizes of the chunks that are sent to fast and slow clients."""

from __future__ import annotations

from trove_async.integrations._pacing import LARGE, PROMPT_SECONDS, PROVEN_BYTES, SMALL, Pace


def sizes(pace: Pace, count: int, seconds: float) -> list[int]:
    chunk_sizes = []
    for _ in range(count):
        chunk_sizes.append(pace.size)
        pace.record(pace.size, seconds)
    return chunk_sizes


def test_fast_client_gets_large_chunks_after_some_small_ones() -> None:
    small_count = PROVEN_BYTES // SMALL
    assert sizes(Pace(), small_count + 2, 0.0) == [SMALL] * small_count + [LARGE] * 2


def test_slow_client_always_gets_small_chunks() -> None:
    assert set(sizes(Pace(), 1000, PROMPT_SECONDS * 1.01)) == {SMALL}


def test_client_that_slows_down_falls_back_to_small_chunks() -> None:
    pace = Pace()
    sizes(pace, 100, PROMPT_SECONDS)
    assert sizes(pace, 2, PROMPT_SECONDS * 2) == [LARGE, SMALL]
    assert sizes(pace, PROVEN_BYTES // SMALL + 1, 0.0)[-2:] == [SMALL, LARGE]
