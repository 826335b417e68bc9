"""A sample file that grows batch by batch, by one process or several, and survives all of them being killed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from reft_pl.data.sample_file import SampledQuestion, read_samples, to_authors_list, to_line
from reft_pl.errors import UserError
from reft_pl.evaluation.files import write_aside


class SampleStore:
    """The file ``<folder>/<name>.jsonl`` of a fixed list of batches of questions.

    A batch is the unit of work: a process claims it by a file lock, which its death releases, samples it, and puts the lines
    aside as a *part*. Parts that are next in order are appended to the file. So the file is at any time a prefix of the
    finished one (but for a last batch that is being appended, which the next call mends), whoever was killed when; and since
    a batch is always sampled as a whole, the finished file is the same to the byte.

    When every question is there, the same samples also stand in ``<folder>/<name>.json``, the one list that the authors'
    scripts read and write. It is a copy for other programs: reft-pl looks for ``*.jsonl``, so that nothing is counted twice.

    Args:
        folder: Where the file is; on a file system that all processes share.
        name: Of the set of questions.
        batch_sizes: Number of questions of each batch, in order.
        settings: What the samples depend on: model, parameters, questions. JSON-serialisable.

    Raises:
        UserError: the file was begun with other settings.
    """

    def __init__(self, folder: Path, name: str, batch_sizes: Sequence[int], settings: Mapping[str, Any]) -> None:
        self.path = folder / f"{name}.jsonl"
        self.authors_list = folder / f"{name}.json"
        self.parts = folder / f".{name}.parts"
        self._ends = list(accumulate(batch_sizes))  # lines of the file after each batch
        folder.mkdir(parents=True, exist_ok=True)
        self._check_settings(folder / f"{name}.settings.json", settings)
        self.parts.mkdir(exist_ok=True)
        self._append()
        if not self.complete:  # a list that is there is of a file that was deleted since
            self.authors_list.unlink(missing_ok=True)

    @property
    def done(self) -> int:
        """Batches that stand in the file, in order from the first."""
        lines = _count_lines(self.path)
        return sum(end <= lines for end in self._ends)

    @property
    def complete(self) -> bool:
        """Whether every question is there."""
        return self.done == len(self._ends)

    @contextmanager
    def claim(self, batch: int) -> Iterator[bool]:
        """Try to take a batch: True while it is this process's, False if it is done or another process is at it."""
        with ExitStack() as stack:
            try:
                lock = stack.enter_context((self.parts / f"{batch}.lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, FileNotFoundError):  # somebody is at it, or has just finished the file
                yield False
                return
            # In this order: a part that is being appended is in the file before it is gone from here.
            yield not self._part(batch).exists() and batch >= self.done

    def add(self, batch: int, items: Sequence[SampledQuestion]) -> None:
        """Put a claimed batch's questions into the file, or aside until those before it are there."""
        write_aside(self._part(batch), "".join(map(to_line, items)))
        self._append()

    def finish(self) -> bool:
        """Write the authors' list and clean up if every question is there; says whether it is."""
        self._append()
        if self.complete:
            write_aside(self.authors_list, to_authors_list(read_samples(self.path)))
            shutil.rmtree(self.parts, ignore_errors=True)
        return self.complete

    def _part(self, batch: int) -> Path:
        return self.parts / f"{batch}.jsonl"

    def _append(self) -> None:
        """Move the parts that are next in order to the end of the file; one process at a time."""
        with ExitStack() as stack:
            try:
                lock = stack.enter_context((self.parts / "append.lock").open("a"))
            except FileNotFoundError:  # another process has just finished the file
                return
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = self.done
            if self.path.exists() and not self._part(done).exists():
                return
            with self.path.open("ab") as file:
                # What follows the last whole batch is of an append that was cut off; its part is still there.
                file.truncate(_offset_of_line(self.path, self._ends[done - 1] if done else 0))
                while done < len(self._ends) and self._part(done).exists():
                    file.write(self._part(done).read_bytes())
                    file.flush()
                    os.fsync(file.fileno())
                    self._part(done).unlink()
                    done += 1

    def _check_settings(self, path: Path, settings: Mapping[str, Any]) -> None:
        # What JSON makes of them, so that tuples and lists compare equal.
        here = json.loads(json.dumps(dict(settings)))
        if not path.exists():
            write_aside(path, json.dumps(here, indent=2) + "\n")
            return
        there = json.loads(path.read_text(encoding="utf-8"))
        for key in there:  # not those that an older version did not write down
            if there.get(key) != here.get(key):
                raise UserError(
                    f"{self.path} was begun with other settings ({key}: {there.get(key)!r} there, {here.get(key)!r} here): "
                    f"choose another --run_dir, or delete {self.path.name} and {path.name} to sample anew"
                )


def _count_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _offset_of_line(path: Path, lines: int) -> int:
    """Bytes up to the end of the first ``lines`` lines."""
    with path.open("rb") as file:
        return sum(len(file.readline()) for _ in range(lines))
