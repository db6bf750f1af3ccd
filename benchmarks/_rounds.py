"""The figures of contenders over several rounds: their table, their targets, and us beside each peer."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from _harness import Comparison, Measurement, Memory, ratio_of_medians, table

OURS = "trove_async"
"""The start of the names of our variants. A name that ends with ``uvloop`` runs on uvloop, any other on asyncio."""

Figures = dict[str, dict[str, float]]
"""The figures of one contender in one round, by work: ``rate``, ``cpu``, and ``rss`` if memory was measured."""


def figures(measured: Measurement, memory: Memory | None = None) -> dict[str, float]:
    """Return the figures of one piece of work."""
    values = {"rate": measured.rate, "cpu": measured.cpu / measured.amount}
    return values if memory is None else {**values, "rss": memory.peak}


@dataclass(frozen=True, kw_only=True)
class Target:
    """Bounds for a figure of one of our variants, or for its ratio to a peer's figure.

    Attributes:
        work: The name of the work.
        ours: The name of our variant.
        peer: The name of the other contender. None: the bounds are those of the figure itself.
        peer_work: The other contender's work. None: the same.
        figure: ``"rate"``, ``"cpu"`` or ``"rss"``.
        minimum: The lowest acceptable value.
        maximum: The highest acceptable value.
    """

    work: str
    ours: str = OURS
    peer: str | None = None
    peer_work: str | None = None
    figure: str = "rate"
    minimum: float = 0.0
    maximum: float = float("inf")

    @property
    def bound(self) -> str:
        """The bound as text."""
        return f"≥ {self.minimum:g}" if self.minimum else f"≤ {self.maximum:g}"


class Rounds:
    """What all contenders did in all rounds.

    Args:
        rounds: For each round, the figures of each contender. A contender may lack some work.
        unit: The unit of the rates.
        cpu_unit: The unit of the CPU times, ``"s/GiB"`` or ``"µs"``. The figures are in seconds per
            amount of work, which for ``"s/GiB"`` is a MiB.
    """

    def __init__(
        self, rounds: Sequence[Mapping[str, Figures]], *, unit: str, cpu_unit: str
    ) -> None:
        self._rounds = rounds
        self._unit = unit
        self._cpu_unit = cpu_unit
        self._cpu_scale = 1024 if cpu_unit == "s/GiB" else 1e6
        self.names = list(rounds[0])
        self.works = list(dict.fromkeys(work for name in self.names for work in rounds[0][name]))

    def has(self, name: str, work: str, figure: str = "rate") -> bool:
        """Return whether a contender has a figure for a work."""
        return figure in self._rounds[0].get(name, {}).get(work, {})

    def series(self, name: str, work: str, figure: str) -> list[float]:
        """Return a figure of each round, CPU times in `cpu_unit`."""
        scale = self._cpu_scale if figure == "cpu" else 1
        return [round_[name][work][figure] * scale for round_ in self._rounds]

    def table(self) -> str:
        """Return a table of all contenders: medians, and the lowest and highest rate."""
        rows = [[work, *(self._cell(name, work) for name in self.names)] for work in self.works]
        return table([f"work, {self._unit}", *self.names], rows)

    def _cell(self, name: str, work: str) -> str:
        if not self.has(name, work):
            return ""
        rates = self.series(name, work, "rate")
        cpu = statistics.median(self.series(name, work, "cpu"))
        cpu_text = f"{cpu:.2f}" if self._cpu_unit == "s/GiB" else f"{cpu:,.0f}"
        spread = f" ({min(rates):,.0f}-{max(rates):,.0f})" if len(rates) > 1 else ""
        cell = f"{statistics.median(rates):,.0f}{spread}, {cpu_text} {self._cpu_unit}"
        if not self.has(name, work, "rss"):
            return cell
        return f"{cell}, {statistics.median(self.series(name, work, 'rss')):,.0f} MiB"

    def comparisons(self, scene: str) -> Iterator[Comparison]:
        """Yield each work of each of our variants beside the peers on the same event loop."""
        for work in self.works:
            for peer in self.names:
                for ours in self.names:
                    if (
                        ours.startswith(OURS)
                        and not peer.startswith(OURS)
                        and ours.endswith("uvloop") == peer.endswith("uvloop")
                        and self.has(ours, work)
                        and self.has(peer, work)
                    ):
                        variant = ours.removeprefix(OURS).removesuffix(", uvloop")
                        yield Comparison(
                            work=f"{scene}: {work}{variant}",
                            peer=peer,
                            rate=self._ratio(Target(work=work, ours=ours, peer=peer)),
                            cpu=self._ratio(Target(work=work, ours=ours, peer=peer, figure="cpu")),
                        )

    def _ratio(self, target: Target) -> float:
        ours = self.series(target.ours, target.work, target.figure)
        if target.peer is None:
            return statistics.median(ours)
        theirs = self.series(target.peer, target.peer_work or target.work, target.figure)
        return ratio_of_medians(ours, theirs)

    def check(self, targets: Sequence[Target]) -> tuple[str, int]:
        """Return a table of the targets whose contenders were run, and the number of missed ones."""
        rows, missed = [], 0
        for target in targets:
            if not self.has(target.ours, target.work, target.figure) or (
                target.peer is not None
                and not self.has(target.peer, target.peer_work or target.work)
            ):
                continue
            value = self._ratio(target)
            reached = target.minimum <= value <= target.maximum
            missed += not reached
            peer = "" if target.peer is None else f"{target.peer} {target.peer_work or ''}".strip()
            work = f"{target.work}: {target.figure}, {target.ours}"
            rows.append([work, peer, target.bound, f"{value:.2f}", "" if reached else "missed"])
        if not rows:
            return "", 0
        return table(["target", "peer", "bound", "measured", ""], rows), missed
