"""The page in a real browser: charts draw, completions stay text, controls work, and no other script runs."""

import base64
import hashlib
import html
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from reft_pl.evaluation.report.write import write_report
from tests.evaluation.report.conftest import alone

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=10000", "--enable-logging=stderr", "--v=0",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium"),
]


@pytest.fixture
def page(sft: Any, reft: Any, reranker: Any, tmp_path: Path) -> Path:
    """A report of hostile runs."""
    return write_report(alone(sft.folder, reft.folder, reranker.folder), tmp_path / "report")[1]


def rendered(address: str, profile: Path) -> tuple[str, str]:
    """Return the document after its scripts ran, without the embedded data, and the console output."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", address]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, preexec_fn=lambda: os.nice(10))
    document = re.sub(r'(<script type="application/json" id="data">).*?(</script>)', r"\1\2", done.stdout, flags=re.DOTALL)
    return document, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def title(document: str) -> str:
    return html.unescape(re.findall("<title>(.*?)</title>", document)[0])


def test_charts_draw_and_hostile_text_is_text(page: Path, reft: Any, tmp_path: Path) -> None:
    document, console = rendered(f"{page.as_uri()}#verdict=wrong&text=HACKED", tmp_path / "profile")
    assert console == ""
    for section, charts in {"accuracy": 3, "curves": 2, "statuses": 1}.items():
        (body,) = re.findall(rf'<section id="{section}">(.*?)</section>', document, flags=re.DOTALL)
        assert body.count("<figure>") == charts
        assert body.count('class="plot js-plotly-plot"') == charts
        assert len(re.findall(r'<path class="js-(?:line|fill)[^"]*"[^>]* d="M', body)) >= charts, "lines were drawn"
    assert "re<i>ft &amp; co" not in document
    assert "re&lt;i&gt;ft &amp; co" in document

    assert title(document) == "reft-pl: sft, re<i>ft & co, reranker", "no script of a model's has changed it"
    assert "<img" not in document
    cards = re.findall(r'<article class="card">(.*?)</article>', document, flags=re.DOTALL)
    # Three greedy answers and a sample of q1; the rollout with this text has the correct answer.
    assert len(cards) == 4
    for card in cards:
        (text,) = re.findall(r"<pre[^>]*>(.*?)</pre>", card, flags=re.DOTALL)
        assert html.unescape(text) == reft.hostile
        assert "✗ wrong" in card
    assert "Solutions 1 to 4 of 4 (18 without filters)" in document


DRIVER = """
const log = [];
const note = (name) => log.push(name + "=" + document.getElementById("found").value);
document.getElementById("after").click(); note("next");
form.elements.verdict.value = "correct";
form.dispatchEvent(new Event("input", { bubbles: true }));
setTimeout(() => {
  note("correct");
  document.querySelector("#cards button").click();
  log.push("address=" + location.hash);
  document.getElementById("question-after").click();
  document.title = log.join("|");
}, 500);
"""


def test_controls_work_and_nothing_foreign_runs(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(DRIVER.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src 'sha256-{allowed}' ", 1)
    foreign = "<script>document.body.id = 'hacked'</script><img src=x onerror=\"document.body.id = 'hacked'\">"
    page.write_text(text.replace("</body>", f"{foreign}<script>{DRIVER}</script></body>"), encoding="utf-8")
    document, console = rendered(page.as_uri(), tmp_path / "profile")
    assert '<body id="hacked"' not in document
    assert console.count("Content Security Policy") >= 2, "both were refused"
    assert title(document).split("|") == [
        "next=Solutions 13 to 18 of 18",
        "correct=Solutions 1 to 6 of 6 (18 without filters)",
        "address=#verdict=correct&question=0",
    ]
    (dialog,) = re.findall(r"<dialog[^>]* open=.*?</dialog>", document, flags=re.DOTALL)
    assert "What is q1?" in dialog, "the next question that somebody solved"
    assert dialog.count('<div class="column">') == 2, "answers of both runs"
    assert '<span class="comment"># none</span>' in dialog
    assert '<span class="keyword">return</span> <span class="string">\'a1\'</span> + <span class="number">12</span>' in dialog
