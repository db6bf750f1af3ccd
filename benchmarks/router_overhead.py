"""How much time does routing add to each operation, and how does that grow with the number of rules?

Times only `Router.resolve`, with 0 to 10,000 rules of several kinds, in interleaved rounds, and
prints the medians. Exits with 1 if 50 rules cost 10 µs or more, or if 1,000 rules cost at least ten
times as much as 50.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from typing import TYPE_CHECKING

from trove_async.router import Route, Router

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTS = (0, 1, 50, 1000, 10_000)
ROUNDS = 15
CALLS = 2000
BACKENDS = ["default", "cold", "archive"]


def _suffix(rule: int) -> Route:
    return Route(f"*.ext{rule}", "cold")


def _prefix(rule: int) -> Route:
    return Route(f"tenant-{rule}/*", "cold")


def _tree(rule: int) -> Route:
    return Route(f"tenant-{rule}/**", "cold")


def _segment(rule: int) -> Route:
    return Route(f"**/team-{rule}/*.log", "cold")


def _exact(rule: int) -> Route:
    return Route(f"reports/{rule}/latest.json", "cold")


def _infix(rule: int) -> Route:
    return Route(f"*-id{rule}-*", "cold")


def _classes(rule: int) -> Route:
    return Route(f"data/[a-m]*/{rule:04}-?/*.parquet", "cold")


def _per_bucket(rule: int) -> Route:
    return Route("*.log", "cold", bucket=f"bucket-{rule}")


MIXES: dict[str, list[Callable[[int], Route]]] = {
    "`*.ext`": [_suffix],
    "`dir/*`": [_prefix],
    "`**/x/*.log`": [_segment],
    "exact": [_exact],
    "`*-x-*`": [_infix],
    "classes": [_classes],
    "one per bucket": [_per_bucket],
    "all mixed": [_suffix, _prefix, _segment, _exact, _tree, _infix, _classes, _per_bucket],
}


def keys(count: int) -> list[tuple[str, str]]:
    """Return pairs of a bucket and a key, some of which match a rule."""
    rng = random.Random(7)
    names = []
    for _ in range(100):
        rule = rng.randrange(max(2 * count, 2))
        names += [
            ("data", f"photos/2024/05/{rule:08}.jpeg"),
            ("data", f"report.ext{rule}"),
            ("data", f"tenant-{rule}/invoice.pdf"),
            ("data", f"var/team-{rule}/app.log"),
            ("data", f"reports/{rule}/latest.json"),
            (f"bucket-{rule}", "app.log"),
            ("data", f"data/kappa/{rule:04}-x/part-00000-of-00128.parquet"),
        ]
    return names


def measure(router: Router, names: list[tuple[str, str]]) -> float:
    """Return the mean time of a call of `resolve`, in µs."""
    resolve = router.resolve
    repeats = CALLS // len(names) + 1
    started = time.perf_counter()
    for _ in range(repeats):
        for bucket, key in names:
            resolve(bucket, key)
    return (time.perf_counter() - started) / (repeats * len(names)) * 1e6


def main() -> int:
    """Print the table, and return the exit status."""
    cases = {
        (mix, count): (
            Router(
                [kinds[rule % len(kinds)](rule) for rule in range(count)],
                backends=BACKENDS,
            ),
            keys(count),
        )
        for mix, kinds in MIXES.items()
        for count in COUNTS
    }
    times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case, (router, names) in cases.items():
            times[case].append(measure(router, names))
    medians = {case: statistics.median(values) for case, values in times.items()}

    print("| rules | " + " | ".join(f"{count:,}" for count in COUNTS) + " | 1,000 / 50 |")
    print("| --- |" + " ---: |" * (len(COUNTS) + 1))
    failed = False
    for mix in MIXES:
        few, many = medians[mix, 50], medians[mix, 1000]
        cells = [f"{medians[mix, count]:.2f} µs" for count in COUNTS]
        print(f"| {mix} | " + " | ".join(cells) + f" | {many / few:.1f}x |")
        if few >= 10:
            failed = True
            print(f"{mix}: 50 rules must cost less than 10 µs, got {few:.1f} µs", file=sys.stderr)
        if many >= 10 * few:
            failed = True
            print(
                f"{mix}: 1,000 rules must cost less than 10 times as much as 50,"
                f" got {many / few:.1f} times",
                file=sys.stderr,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
