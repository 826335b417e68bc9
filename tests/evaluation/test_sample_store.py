"""The sample file that several processes write."""

import pytest

from reft_pl.data.sample_file import Prediction, SampledQuestion, read_samples, to_line
from reft_pl.errors import UserError
from reft_pl.evaluation.sample_store import SampleStore

SIZES = [2, 1, 3]
ITEMS = [SampledQuestion(f"q_{i}", f"Question {i}?", float(i), (Prediction("x\u2028y", float(i), True),)) for i in range(6)]
BATCHES = [ITEMS[:2], ITEMS[2:3], ITEMS[3:]]


def store(tmp_path, **settings):
    return SampleStore(tmp_path, "train", SIZES, {"n": 1, "form": ("a", 1), **settings})


def fill(samples, *batches):
    for batch in batches:
        with samples.claim(batch) as mine:
            assert mine
            samples.add(batch, BATCHES[batch])


def test_batches_in_any_order_end_in_order(tmp_path):
    samples = store(tmp_path)
    fill(samples, 2, 0)
    assert [item.id for item in read_samples(samples.path)] == ["q_0", "q_1"], "the file is a prefix of the finished one"
    assert not samples.finish()
    fill(samples, 1)
    assert read_samples(samples.path) == ITEMS
    assert samples.finish()
    assert not samples.parts.exists()


def test_only_a_complete_file_has_the_authors_list_beside_it(tmp_path):
    samples = store(tmp_path)
    samples.authors_list.write_text("[]")
    assert not store(tmp_path).authors_list.exists(), "it was of a file that is gone"
    fill(samples, 0, 1)
    assert not samples.finish()
    assert not samples.authors_list.exists()
    fill(samples, 2)
    assert samples.finish()
    assert read_samples(samples.authors_list) == read_samples(samples.path) == ITEMS
    store(tmp_path)
    assert read_samples(samples.authors_list) == ITEMS, "a finished one stays"


def test_finished_and_locked_batches_are_not_taken(tmp_path):
    samples, other = store(tmp_path), store(tmp_path)
    fill(samples, 0, 2)
    for batch in (0, 2):
        with other.claim(batch) as mine:
            assert not mine
    with samples.claim(1) as mine, other.claim(1) as also:
        assert mine
        assert not also
    with other.claim(1) as mine:
        assert mine, "whoever gave it back did not do it"


def test_a_late_process_finds_everything_done(tmp_path):
    samples, late = store(tmp_path), store(tmp_path)
    fill(samples, 0, 1, 2)
    samples.finish()
    with late.claim(2) as mine:
        assert not mine
    assert late.finish()


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_an_interrupted_append_is_repaired(tmp_path, kept):
    samples = store(tmp_path)
    fill(samples, 0)
    whole = samples.path.read_bytes()
    torn = "".join(map(to_line, BATCHES[1] + BATCHES[2])).encode()
    (samples.parts / "1.jsonl").write_text("".join(map(to_line, BATCHES[1])))
    (samples.parts / "2.jsonl").write_text("".join(map(to_line, BATCHES[2])))
    samples.path.write_bytes(whole + torn[: int(kept * len(torn))])
    assert store(tmp_path).finish()
    assert read_samples(samples.path) == ITEMS


def test_a_file_of_an_earlier_version_with_fewer_settings_is_continued(tmp_path):
    fill(store(tmp_path), 0)
    assert store(tmp_path, weights="abc").done == 1


def test_only_other_settings_are_refused(tmp_path):
    fill(store(tmp_path), 0)
    assert store(tmp_path).done == 1
    with pytest.raises(UserError, match=r"other settings \(n: 1 there, 2 here\)"):
        store(tmp_path, n=2)
