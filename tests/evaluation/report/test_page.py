import base64
import hashlib
import json
import re
from typing import Any

from reft_pl.evaluation.report.page import script_json
from reft_pl.evaluation.report.write import write_report
from tests.evaluation.report.conftest import alone


def test_json_is_safe_in_a_script_element() -> None:
    data = {"text": "</script><!-- & \u2028\u2029 \ud800 é", "none": None, "list": [1, 0.5, True]}
    text = script_json(data)
    assert text.isascii()
    assert not re.search("[<>&]", text)
    assert json.loads(text) == data


def test_the_page_is_self_contained_and_blocks_other_scripts(reft: Any, reranker: Any, tmp_path: Any) -> None:
    _, path = write_report(alone(reft.folder, reranker.folder), tmp_path)
    text = path.read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; script-src ")
    assert re.findall(r"'sha256-([^']*)'", policy) == digests
    ours = text.replace(scripts[0], "")
    assert len(ours) < 100_000 < len(scripts[0]), "the first is plotly"
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)", ours), "nothing is fetched"
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    assert reft.hostile in json.loads(data)["browser"]["texts"]
    assert ours.count("hacked") == 1, "a completion occurs once, in the data"
    assert "re&lt;i&gt;ft &amp; co" in ours
    assert "re<i>ft" not in ours


def test_a_page_without_charts_is_small(sft: Any, tmp_path: Any) -> None:
    markdown, path = write_report(alone(sft.folder), tmp_path / "out")
    assert path.stat().st_size < 60_000, "no charts, no plotly"
    assert (tmp_path / "out" / "report.md").read_text() == markdown
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "report.md"]
