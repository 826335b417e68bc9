"""The order in which problems are met: a function of seed and epoch, shared out over ranks, resumable at any batch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from reft_pl.errors import UserError

T = TypeVar("T")


class ProblemLoader(Generic[T]):
    """Iterates over this rank's parts of global batches.

    An epoch has ``ceil(n / batch_size)`` global batches whose sizes differ by at most one, so that no batch is a small rest
    with a full-sized step. Ranks take every ``world_size``-th problem of a batch: nothing is padded, lost or met twice,
    and what a global batch holds does not depend on the number of ranks.

    Lightning saves ``state_dict`` in its checkpoints and restores it before the first batch; ``set_epoch``, which it calls for
    any data loader, tells whether the epoch is still the one that was interrupted.

    Args:
        problems: what to iterate over: problems, or what was sampled for them.
        batch_size: problems of a global batch, at most.
        seed: with the epoch, fixes the order.
        shuffle: whether there is an order other than the given one.
        rank: which part is this process's.
        world_size: number of parts.
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
            raise UserError(
                f"a global batch of {batch_size} cannot be shared by {world_size} ranks; set data.batch_size higher"
            )
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
        """Where Lightning looks for ``set_epoch``: it calls ``loader.batch_sampler.sampler.set_epoch`` before every epoch."""
        return SimpleNamespace(sampler=self)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration takes. Any but the interrupted one starts at its beginning."""
        if epoch != self._epoch:
            self._epoch, self._delivered, self._resumed = epoch, 0, None

    def __len__(self) -> int:
        """Number of batches of a whole epoch."""
        return math.ceil(len(self.problems) / self.batch_size)

    def __iter__(self) -> Iterator[list[T]]:
        """Yield this rank's part of every batch of the epoch, or of those left after ``load_state_dict``."""
        # Lightning calls iter() before set_epoch(): a generator does nothing until its first batch is asked for.
        first = self._delivered if self._resumed is not None else 0
        if first and self._resumed != self._identity():
            raise UserError(
                f"the checkpoint stopped in the middle of an epoch of other data ({self._resumed}, now {self._identity()}); "
                "resume with the data, seed and batch size that it was made with"
            )
        self._resumed = None
        for index, batch in enumerate(self.global_batches(self._epoch)):
            if index >= first:
                self._delivered = index + 1
                yield batch[self.rank :: self.world_size]

    def global_batches(self, epoch: int) -> list[list[T]]:
        """All batches of an epoch, as all ranks together see them."""
        order = list(range(len(self.problems)))
        if self.shuffle:
            random.Random(f"{self.seed}:{epoch}").shuffle(order)
        n, k = len(order), len(self)
        return [[self.problems[i] for i in order[n * b // k : n * (b + 1) // k]] for b in range(k)]

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration stands, and in what."""
        return {"epoch": self._epoch, "delivered": self._delivered, "identity": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batch at which ``state_dict`` was taken."""
        self._epoch, self._delivered, self._resumed = state["epoch"], state["delivered"], state["identity"]

    def _identity(self) -> dict[str, Any]:
        return {"problems": len(self.problems), "batch_size": self.batch_size, "seed": self.seed}
