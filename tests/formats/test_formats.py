from __future__ import annotations

import json

import pytest

from reft_pl.errors import UserError
from reft_pl.formats import Chat, NaturalLanguage, PythonProgram, format_from_settings


@pytest.mark.parametrize(
    "form", [PythonProgram(), NaturalLanguage(), Chat(r"A: (.*)", instruction="", system="s"), Chat("program")]
)
def test_a_format_is_rebuilt_from_its_settings(form):
    rebuilt = format_from_settings(json.loads(json.dumps(form.settings())))
    assert type(rebuilt) is type(form)
    assert rebuilt.settings() == form.settings()
    assert rebuilt.runs_programs == form.runs_programs


def test_short_names_resolve():
    assert isinstance(format_from_settings({"class_path": "NaturalLanguage"}), NaturalLanguage)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_path": "no.such.Form"}, "may not import one"),
        ({}, "may not import one"),
        ({"class_path": "collections.OrderedDict"}, "not built into reft-pl"),
        ({"class_path": "Chat", "init_args": {"colour": 1}}, "does not accept these settings"),
        ({"class_path": "Chat", "init_args": [1]}, "must be a mapping"),
    ],
)
def test_unusable_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        format_from_settings(settings)


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "payload.PythonProgram",
        "reft_pl.formats.chat.re",
        "reft_pl.formats.base.CoTFormat",
        "reft_pl.formats.FORMATS",
        ".Chat.",
        "Chat.__init__",
        7,
        None,
        ["Chat"],
    ],
)
def test_settings_can_name_only_built_in_formats_and_import_nothing(path, tmp_path, monkeypatch):
    (tmp_path / "payload.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="not built into reft-pl"):
        format_from_settings({"class_path": path})
