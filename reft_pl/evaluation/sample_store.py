"""A sample file that one or more processes extend batch by batch, and that survives kills of any of them."""

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
    """Store the samples of a fixed list of question batches in ``<folder>/<name>.jsonl``.

    A batch is the unit of work. A process claims it with a file lock, which the system releases if the process dies, samples
    it, and writes its lines to a separate *part*. Parts are appended to the file in order. At any time the file is a prefix of
    the finished one, except for the remains of an interrupted append, which the next call repairs. Because a batch is always
    sampled as a whole, the finished file is identical to the byte.

    When every question is sampled, ``<folder>/<name>.json`` holds the same samples as one list, which the authors' scripts
    read and write. It is a copy for other programs: reft-pl reads only ``*.jsonl``, so nothing is counted twice.

    Args:
        folder: Folder of the file, on a file system that all processes share.
        name: Name of the set of questions.
        batch_sizes: Number of questions of each batch, in order.
        settings: What the samples depend on: model, parameters, questions. JSON-serialisable.

    Raises:
        UserError: The file was begun with other settings.
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
        if not self.complete:  # an existing list belongs to a file deleted since
            self.authors_list.unlink(missing_ok=True)

    @property
    def done(self) -> int:
        """Number of batches in the file, in order from the first."""
        lines = _count_lines(self.path)
        return sum(end <= lines for end in self._ends)

    @property
    def complete(self) -> bool:
        """Whether every question is sampled."""
        return self.done == len(self._ends)

    @contextmanager
    def claim(self, batch: int) -> Iterator[bool]:
        """Try to claim a batch: yield True while this process holds it, False if it is done or claimed elsewhere."""
        with ExitStack() as stack:
            try:
                lock = stack.enter_context((self.parts / f"{batch}.lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, FileNotFoundError):  # claimed elsewhere, or the file was just finished
                yield False
                return
            # Check in this order: an appended part enters the file before it is removed here.
            yield not self._part(batch).exists() and batch >= self.done

    def add(self, batch: int, items: Sequence[SampledQuestion]) -> None:
        """Append a claimed batch to the file, or keep it as a part until earlier batches are there."""
        write_aside(self._part(batch), "".join(map(to_line, items)))
        self._append()

    def finish(self) -> bool:
        """If every question is sampled, write the authors' list and clean up; return whether it is."""
        self._append()
        if self.complete:
            write_aside(self.authors_list, to_authors_list(read_samples(self.path)))
            shutil.rmtree(self.parts, ignore_errors=True)
        return self.complete

    def _part(self, batch: int) -> Path:
        return self.parts / f"{batch}.jsonl"

    def _append(self) -> None:
        """Append the next parts in order to the file, one process at a time."""
        with ExitStack() as stack:
            try:
                lock = stack.enter_context((self.parts / "append.lock").open("a"))
            except FileNotFoundError:  # another process just finished the file
                return
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = self.done
            if self.path.exists() and not self._part(done).exists():
                return
            with self.path.open("ab") as file:
                # Bytes after the last whole batch come from an interrupted append; its part still exists.
                file.truncate(_offset_of_line(self.path, self._ends[done - 1] if done else 0))
                while done < len(self._ends) and self._part(done).exists():
                    file.write(self._part(done).read_bytes())
                    file.flush()
                    os.fsync(file.fileno())
                    self._part(done).unlink()
                    done += 1

    def _check_settings(self, path: Path, settings: Mapping[str, Any]) -> None:
        # Round-trip through JSON, so that tuples and lists compare equal.
        here = json.loads(json.dumps(dict(settings)))
        if not path.exists():
            write_aside(path, json.dumps(here, indent=2) + "\n")
            return
        there = json.loads(path.read_text(encoding="utf-8"))
        for key in there:  # skips settings that an older version did not record
            if there.get(key) != here.get(key):
                raise UserError(
                    f"{self.path} was begun with other settings ({key}: {there.get(key)!r} there, {here.get(key)!r} here): "
                    f"choose another --run_dir, or delete {self.path.name} and {path.name} to sample again"
                )


def _count_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def _offset_of_line(path: Path, lines: int) -> int:
    """Return the byte offset after the first ``lines`` lines."""
    with path.open("rb") as file:
        return sum(len(file.readline()) for _ in range(lines))
