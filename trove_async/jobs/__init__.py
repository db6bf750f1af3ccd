"""Jobs: work over the objects of a bucket, while users read and write.

==============  ====================================================================================
`rebalance`     moves objects to the backends that the rules name
`tier`          moves objects by age, size and prefix
`migrate`       copies or moves the objects of one backend to another
`reencode`      applies today's middlewares: new keys, compression
`verify`        reads every object and compares its checksum
`repair`        brings the replicas of a mirrored backend up to date
`sync`          makes a directory or bucket equal to another one
==============  ====================================================================================

**Runs.** A job walks the keys of a bucket, in several ranges at once while listing is the bottleneck. It
processes up to ``concurrency`` objects at a time, and holds in memory those and one page of each listing.
Every job is idempotent. Errors of single objects are collected in its `Report`. `sync` walks both of its sides at
once, in one range, and has no checkpoint: run it again.

**Checkpoints.** With ``checkpoint=``, the state is recorded every few seconds, and at an error or a cancel. A
later call with the same arguments continues. The checkpoint of a dry run must be a file, because a dry run does not
write to the store. After a kill, the work since the last record is done again.
A checkpoint belongs to one run at a time. A second run with the same file raises a ConfigError while the first one
holds the lock file beside it (``NAME.lock``); with an object of the store, or where the file system has no locks,
two runs overwrite each other's state, and the later resume may repeat or skip work.

**Moves.** An object is copied on the condition that the destination has none, the copy is proved, and the
source is deleted if it is still the version that was copied. If it was deleted or replaced meanwhile, the copy
is removed. A put or delete of the key in this process interrupts its move, waits until that is undone, and goes
on; the object is skipped as ``"in use"``. The wait is that for a few small requests. If a backend does not respond,
it is half a minute at most, and never longer than `Timeout.total` of the put or delete. With ``Trove(locate="anywhere")`` an object is therefore readable with
its right content at every moment. A listing that runs at the same time may miss an object that moves. Writes of
*other* processes are covered as far as the backends support conditional requests
(`trove_async._engine.relocation` lists the windows that remain). Two jobs that process the same objects at once
lose none; objects that one of them finds in use by the other are skipped, as ``"changed meanwhile"`` or
``"conflict"``, and processed by the next run.
"""

from ._migrate import migrate
from ._options import Executor
from ._rebalance import rebalance
from ._reencode import reencode
from ._repair import repair
from ._report import Finding, JobProgress, ProgressCallback, Report
from ._sync import SyncChange, SyncReport, sync
from ._tier import TierRule, tier
from ._verify import verify

__all__ = [
    "Executor",
    "Finding",
    "JobProgress",
    "ProgressCallback",
    "Report",
    "SyncChange",
    "SyncReport",
    "TierRule",
    "migrate",
    "rebalance",
    "reencode",
    "repair",
    "sync",
    "tier",
    "verify",
]
