"""A data loader with a problem order fixed by seed and epoch, sharded over ranks and resumable at any batch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from reft_pl.errors import UserError

T = TypeVar("T")


class ProblemLoader(Generic[T]):
    """Iterates over this rank's shards of global batches.

    An epoch has ``ceil(n / batch_size)`` global batches, and their sizes differ by at most one, so no small last batch gets a
    full-sized step. Each rank takes every ``world_size``-th problem of a batch: no problem is padded, lost or repeated, and the
    contents of a global batch do not depend on the number of ranks.

    Lightning saves ``state_dict`` in its checkpoints and restores it before the first batch. It calls ``set_epoch`` before
    every epoch, which tells the loader whether the epoch is still the interrupted one.

    Args:
        problems: Items to iterate over: problems, or the samples of problems.
        batch_size: Largest size of a global batch, in problems.
        seed: Fixes the order, together with the epoch.
        shuffle: Shuffle the problems; false keeps the given order.
        rank: Index of this process's shard.
        world_size: Number of shards.
    """

    def __init__(
        self,
        problems: Sequence[T],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < world_size:
            raise UserError(f"a global batch of {batch_size} cannot be shared by {world_size} ranks; increase data.batch_size")
        self.problems = problems
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self._epoch = 0
        self._delivered = 0
        self._resumed: dict[str, Any] | None = None

    @property
    def batch_sampler(self) -> SimpleNamespace:
        """Adapter for Lightning, which calls ``loader.batch_sampler.sampler.set_epoch`` before every epoch."""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration. Any epoch except the interrupted one starts at its beginning."""
        if epoch != self._epoch:
            self._epoch, self._delivered, self._resumed = epoch, 0, None

    def __len__(self) -> int:
        """Return the number of batches in a full epoch."""
        return math.ceil(len(self.problems) / self.batch_size)

    def __iter__(self) -> Iterator[list[T]]:
        """Yield this rank's shard of every batch of the epoch, or of the remaining batches after ``load_state_dict``."""
        # Lightning calls iter() before set_epoch(). This works because a generator starts when its first batch is requested.
        first = self._delivered if self._resumed is not None else 0
        if first and self._resumed != self._identity():
            raise UserError(
                f"the checkpoint is from the middle of an epoch of other data ({self._resumed}, now {self._identity()}); "
                "resume with the same data, seed and batch size"
            )
        self._resumed = None
        for index, batch in enumerate(self.global_batches(self._epoch)):
            if index >= first:
                self._delivered = index + 1
                yield batch[self.rank :: self.world_size]

    def global_batches(self, epoch: int) -> list[list[T]]:
        """Return all global batches of an epoch, before sharding."""
        order = list(range(len(self.problems)))
        if self.shuffle:
            random.Random(f"{self.seed}:{epoch}").shuffle(order)
        n, k = len(order), len(self)
        return [[self.problems[i] for i in order[n * b // k : n * (b + 1) // k]] for b in range(k)]

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch, and what identifies the data."""
        return {"epoch": self._epoch, "delivered": self._delivered, "identity": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the batch at which ``state_dict`` was taken."""
        self._epoch, self._delivered, self._resumed = state["epoch"], state["delivered"], state["identity"]

    def _identity(self) -> dict[str, Any]:
        return {"problems": len(self.problems), "batch_size": self.batch_size, "seed": self.seed}
