from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, ModelCardData

from reft_pl.models.base_model_metadata import inherited_metadata


def test_a_folder_passes_on_the_metadata_of_its_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\nbase_model: owner/base\nlanguage: en\n---\n# A model\n")
    assert inherited_metadata(str(tmp_path)) == {"license": "mit", "base_model": "owner/base"}


@pytest.mark.parametrize("card", [None, "# A model without metadata", "---\n[broken\n---\n", "---\n- 1\n---\n", "\udcff"])
def test_missing_metadata_is_not_guessed_and_no_card_stops_a_run(card: str | None, tmp_path: Path) -> None:
    if card is not None:
        (tmp_path / "README.md").write_bytes(card.encode("utf-8", "surrogateescape"))
    assert inherited_metadata(str(tmp_path)) == {}
    assert inherited_metadata("runs/gone/hf") == {}


def test_a_hub_model_is_the_base_and_its_card_has_the_license(monkeypatch: pytest.MonkeyPatch) -> None:
    card = ModelCardData(license="other", license_name="theirs", base_model="owner/older")

    def answers(api: HfApi, name: str, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(card_data=card)

    def is_out_of_reach(api: HfApi, name: str, timeout: float) -> SimpleNamespace:
        raise OSError("no route to host")

    monkeypatch.setattr(HfApi, "model_info", answers)
    assert inherited_metadata("owner/model") == {"license": "other", "license_name": "theirs", "base_model": "owner/model"}
    monkeypatch.setattr(HfApi, "model_info", is_out_of_reach)
    assert inherited_metadata("owner/another") == {"base_model": "owner/another"}
