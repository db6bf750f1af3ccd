"""A model of how puts lease memory, explored exhaustively: every interleaving of a few puts.

The model has the rules of `trove_async.pool` and `trove_async._engine.parts`. Without any one of them, some
interleaving ends with puts that wait for each other for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest


class Model(NamedTuple):
    """The puts, and the rules that they follow.

    Attributes:
        slots: The slots of the pool.
        part: The slots of a part; at most half of the pool.
        bodies: The slots of each body, which no put knows in advance.
        uneven: Whether the backend accepts a part that is shorter than the others.
        fixed_rules: What a put does whose part cannot grow, if the backend does not accept a short part:
            ``"file"`` moves it to a file and waits for a whole part, ``"wait"`` waits with what it holds.
        growth: ``"try"`` grows a part only if memory is free, ``"wait"`` waits in the queue for it.
        spills: Whether a put that waits may fill a file if nothing else can happen.
        stalls: The puts whose sources yield their last slot only after all other puts have ended.
        early_permit: Whether a put takes the only write permit before it has filled its part.
    """

    slots: int
    part: int
    bodies: tuple[int, ...]
    uneven: bool = True
    fixed_rules: str = "file"
    growth: str = "try"
    spills: bool = True
    stalls: frozenset[int] = frozenset()
    early_permit: bool = False


@dataclass(frozen=True, slots=True)
class Transfer:
    """One put.

    Attributes:
        unread: The slots of its body that were not read.
        step: ``"start"`` before a part, ``"queue"``, ``"fill"`` or ``"full"``.
        held: The slots of the part that is being filled.
        filled: How many of them are full.
        filed: The slots of the part that are in a file.
        wanted: The slots that it waits for.
        sending: The slots of the part that is being sent.
        sends: Whether a part is being sent.
        kept: Whether the memory of that part will be used for the next one.
        permit: Whether it has the write permit.
    """

    unread: int
    step: str = "start"
    held: int = 0
    filled: int = 0
    filed: int = 0
    wanted: int = 0
    sending: int = 0
    sends: bool = False
    kept: bool = False
    permit: bool = False

    @property
    def ended(self) -> bool:
        return not self.unread and self.step == "start" and not self.sends


class State(NamedTuple):
    free: int
    queue: tuple[int, ...]
    puts: tuple[Transfer, ...]


def explore(model: Model) -> list[State]:
    """Return the states that can be reached, in which puts have not ended and nothing can happen."""
    first = State(model.slots, (), tuple(Transfer(size) for size in model.bodies))
    seen, pending, stuck = {first}, [first], []
    while pending:
        state = pending.pop()
        successors = [served(after) for after in steps(model, state)]
        if not successors and model.spills and state.queue:
            # Nothing moves. After `spill_after`, whatever waits in the queue and holds nothing gets a file.
            successors = [served(after) for after in spilled(model, state)]
        if not successors and not all(put.ended for put in state.puts):
            stuck.append(state)
        for after in successors:
            assert 0 <= after.free <= model.slots
            if after not in seen:
                seen.add(after)
                pending.append(after)
    return stuck


def served(state: State) -> State:
    """Serve the queue strictly in order."""
    while state.queue and state.puts[state.queue[0]].wanted <= state.free:
        number, *others = state.queue
        put = state.puts[number]
        state = changed(
            state._replace(free=state.free - put.wanted, queue=tuple(others)),
            number,
            replace(put, step="fill", held=put.held + put.wanted, filled=put.filled + put.filed,
                    filed=0, wanted=0),
        )  # fmt: skip
    return state


def changed(state: State, number: int, put: Transfer) -> State:
    return state._replace(puts=(*state.puts[:number], put, *state.puts[number + 1 :]))


def wait(state: State, number: int, put: Transfer) -> State:
    queue = (*state.queue, number)
    if put.filed:  # it is served before those that begin, after others like it
        count = sum(state.puts[other].filed > 0 for other in state.queue)
        queue = (*state.queue[:count], number, *state.queue[count:])
    return changed(state._replace(queue=queue), number, replace(put, step="queue"))


def steps(model: Model, state: State) -> Iterator[State]:
    for number, put in enumerate(state.puts):
        yield from steps_of(model, state, number, put)


def steps_of(model: Model, state: State, number: int, put: Transfer) -> Iterator[State]:
    # 1. A part that is being sent arrives.
    if put.sends and (put.permit or not any(other.permit for other in state.puts)):
        arrived = replace(put, sending=0, sends=False, kept=False, permit=False)
        if put.kept:
            yield changed(state, number, replace(arrived, step="fill", held=put.sending))
        else:
            yield changed(state._replace(free=state.free + put.sending), number, arrived)
    # 2. The source has another byte: begin a part with one slot.
    others_ended = all(other.ended for n, other in enumerate(state.puts) if n not in model.stalls)
    yields = number not in model.stalls or put.unread > 1 or others_ended
    if put.step == "start" and put.unread and yields and not put.kept:
        if model.early_permit and not put.permit:
            if not any(other.permit for other in state.puts):
                yield changed(state, number, replace(put, permit=True))
            return
        yield wait(state, number, replace(put, wanted=1))
    # 3. Fill it.
    if put.step == "fill":
        yield from filling_steps(model, state, number, put, yields=yields)
    # 4. Send a full part, while the previous one is not being sent.
    if put.step == "full" and not put.sends:
        # The memory of a short part is used again, until the body has got as much as a whole part.
        kept = model.uneven and put.held > 0 and model.bodies[number] - put.unread < model.part
        sent = replace(put, step="start", sending=put.held, sends=True, held=0, filled=0, filed=0)
        yield changed(state, number, replace(sent, kept=kept and put.unread > 0))


def filling_steps(
    model: Model, state: State, number: int, put: Transfer, *, yields: bool
) -> Iterator[State]:
    # 1. Fill a slot.
    if put.filled < put.held and put.unread and yields:
        yield changed(state, number, replace(put, unread=put.unread - 1, filled=put.filled + 1))
    # 2. The body has ended or all slots are full. End the part, without its unused slots, or grow.
    if not put.unread or put.filled == put.held:
        if not put.unread or put.held == model.part:
            full = replace(put, step="full", held=put.filled)
            yield changed(state._replace(free=state.free + put.held - put.filled), number, full)
        elif yields:
            yield grown(model, state, number, put)


def grown(model: Model, state: State, number: int, put: Transfer) -> State:
    wanted = 1 if model.uneven else model.part - put.held
    if model.growth == "wait":
        return wait(state, number, replace(put, wanted=wanted))
    if wanted <= state.free and not state.queue:
        return changed(
            state._replace(free=state.free - wanted), number, replace(put, held=put.held + wanted)
        )
    if model.uneven:
        return changed(state, number, replace(put, step="full"))
    if model.fixed_rules == "wait":
        return wait(state, number, replace(put, wanted=wanted))
    moved = replace(put, filed=put.filled, held=0, filled=0, wanted=model.part)
    return wait(state._replace(free=state.free + put.held), number, moved)


def spilled(model: Model, state: State) -> Iterator[State]:
    """Fill the parts of waiting puts in files, up to a stall of their source."""
    for number in state.queue:
        put = state.puts[number]
        if put.held:
            continue  # memory was leased for its part, which is not moved
        queue = tuple(other for other in state.queue if other != number)
        may_read = put.unread - (number in model.stalls)
        count = min(model.part - put.filed, may_read)
        yield changed(
            state._replace(queue=queue), number, replace(put, unread=put.unread - count, step="full", filed=0, wanted=0)
        )  # fmt: skip


BODIES = [(1, 1, 1), (1, 2, 3), (3, 3), (2, 2, 2), (4, 1, 2), (5, 5)]


@pytest.mark.parametrize("uneven", [True, False])
@pytest.mark.parametrize("bodies", BODIES)
@pytest.mark.parametrize(("slots", "part"), [(2, 1), (3, 1), (4, 2)])
def test_every_interleaving_ends(
    slots: int, part: int, bodies: tuple[int, ...], *, uneven: bool
) -> None:
    # Without spilling: sources that always yield never need it.
    assert not explore(Model(slots, part, bodies, uneven, spills=False))


@pytest.mark.parametrize("uneven", [True, False])
@pytest.mark.parametrize("bodies", BODIES)
@pytest.mark.parametrize("stalls", [{0}, {1}, {0, 1}])
@pytest.mark.parametrize(("slots", "part"), [(2, 1), (4, 2)])
def test_sources_that_wait_for_all_other_puts_delay_none(
    slots: int, part: int, stalls: set[int], bodies: tuple[int, ...], *, uneven: bool
) -> None:
    assert not explore(Model(slots, part, bodies, uneven, stalls=frozenset(stalls)))


def test_waiting_for_growth_with_memory_deadlocks() -> None:
    assert explore(Model(2, 2, (2, 2), growth="wait", spills=False))


def test_waiting_for_the_rest_of_a_part_with_its_first_slot_deadlocks() -> None:
    assert explore(Model(4, 2, (2, 2, 2, 2), spills=False, uneven=False, fixed_rules="wait"))


def test_stalled_sources_without_spilling_deadlock() -> None:
    stalled = Model(2, 2, (2, 2, 1), stalls=frozenset({0, 1}))
    assert explore(stalled._replace(spills=False))
    assert not explore(stalled)


def test_permit_taken_before_the_part_is_filled_deadlocks() -> None:
    assert explore(Model(4, 2, (2, 1), stalls=frozenset({0}), early_permit=True))
