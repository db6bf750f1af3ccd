"""Sizes of the chunks that are sent to fast and slow clients."""

from __future__ import annotations

from trove_async.integrations._pacing import LARGE, PROMPT, PROVEN, SMALL, Pace


def sizes(pace: Pace, count: int, seconds: float) -> list[int]:
    chunk_sizes = []
    for _ in range(count):
        chunk_sizes.append(pace.size)
        pace.record(pace.size, seconds)
    return chunk_sizes


def test_fast_client_gets_large_chunks_once_proven() -> None:
    small = PROVEN // SMALL
    assert sizes(Pace(), small + 2, 0.0) == [SMALL] * small + [LARGE] * 2


def test_slow_client_always_gets_small_chunks() -> None:
    assert set(sizes(Pace(), 1000, PROMPT * 1.01)) == {SMALL}


def test_client_that_slows_down_falls_back_to_small_chunks() -> None:
    pace = Pace()
    sizes(pace, 100, PROMPT)
    assert sizes(pace, 2, PROMPT * 2) == [LARGE, SMALL]
    assert sizes(pace, PROVEN // SMALL + 1, 0.0)[-2:] == [SMALL, LARGE]
