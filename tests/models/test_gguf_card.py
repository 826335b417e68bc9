from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from huggingface_hub import ModelCard

from reft_pl.models.base_model_metadata import CARD_FILE, inherited_metadata
from reft_pl.models.gguf_card import gguf_card

Fields = Callable[[gguf.GGUFWriter], None]


@pytest.fixture
def inherited(tmp_path: Path) -> Callable[[Fields], dict[str, object]]:
    """Return the metadata that a later stage inherits from the card of a file with these fields."""

    def of(add: Fields) -> dict[str, object]:
        writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
        add(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        (tmp_path / CARD_FILE).write_text(gguf_card(tmp_path / "model.gguf"))
        return inherited_metadata(str(tmp_path))

    return of


def test_the_files_metadata_is_inherited(inherited: Callable[[Fields], dict[str, object]], tmp_path: Path) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_name("A <b>model</b>\n# of theirs")
        writer.add_license("other")
        writer.add_license_name("theirs")
        writer.add_license_link("https://example.org/license")
        writer.add_languages(["en"])
        writer.add_base_model_count(2)
        writer.add_base_model_repo_url(0, "https://huggingface.co/owner/base")
        writer.add_base_model_repo_url(1, "https://example.org/owner/elsewhere")

    assert inherited(add) == {
        "license": "other",
        "license_name": "theirs",
        "license_link": "https://example.org/license",
        "base_model": "owner/base",
    }
    card = ModelCard.load(tmp_path / CARD_FILE)
    assert card.data.language == ["en"]
    assert "    general.name = A <b>model</b> # of theirs\n" in card.text


def test_missing_metadata_is_not_guessed(inherited: Callable[[Fields], dict[str, object]], tmp_path: Path) -> None:
    assert inherited(lambda writer: writer.add_organization("HuggingFaceTB")) == {}
    assert "license:" not in (tmp_path / CARD_FILE).read_text()
    assert inherited(lambda writer: None) == {}
    assert "Metadata in the file" not in (tmp_path / CARD_FILE).read_text()


def test_several_base_models_are_all_named(inherited: Callable[[Fields], dict[str, object]]) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        for place, name in enumerate(("a/b", "c/d")):
            writer.add_base_model_repo_url(place, f"https://huggingface.co/{name}")

    assert inherited(add) == {"base_model": ["a/b", "c/d"]}
