from __future__ import annotations

import pytest

from reft_pl.data.cache import TokenCache
from reft_pl.data.codec import Example

SEQUENCES = [Example((1, 2, 3), 2), Example((70000,), 1), Example((4, 5), 1)]


def never() -> list[Example]:
    raise AssertionError("made again")


def test_a_stored_entry_is_found(tmp_path):
    cache = TokenCache(tmp_path / "deep" / "er")
    assert cache.get("k", lambda: SEQUENCES) == SEQUENCES
    assert TokenCache(cache.folder).get("k", never) == SEQUENCES
    assert [p.name for p in cache.folder.iterdir()] == ["k.safetensors"]


def test_a_damaged_file_is_rebuilt(tmp_path):
    cache = TokenCache(tmp_path)
    cache.get("k", lambda: SEQUENCES)
    path = tmp_path / "k.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.get("k", lambda: SEQUENCES) == SEQUENCES
    assert cache.get("k", never) == SEQUENCES


def test_an_unwritable_folder_is_logged_and_ignored(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot cache"):
        assert TokenCache(tmp_path / "file" / "sub").get("k", lambda: SEQUENCES) == SEQUENCES
