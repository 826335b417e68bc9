"""Documents are correct: commands and options are accepted, links resolve, all private names are listed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reft_pl.cli import VERBS, main

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    ROOT / "configs" / "README.md",
    *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
DOCUMENTS = [*PAGES, *(ROOT / "configs").rglob("*.yaml")]
FOREIGN = ("tensorboard", "pre-commit", "apt")
"""Programs of others, whose arguments are not ours to check."""
STAGES = {"ppo": "fit", "sft": "fit", "reranker": "fit", "sample": "predict"}


def commands_of(document: Path) -> Iterator[str]:
    """Yield the commands of a document, one line each, with the shell variables that it sets filled in."""
    text = document.read_text(encoding="utf-8")
    variables: dict[str, str] = {}
    if document.suffix == ".yaml":
        list(
            _commands_of_blocks((ROOT / "docs" / "howto" / "launch.md").read_text(encoding="utf-8"), variables)
        )  # headers use its variables
        for line in re.findall(r"^#\s+(reft-pl .*)", _joined(text, r"\n#"), re.MULTILINE):
            command = re.split(r" {2,}| \[", re.sub(r"^(reft-pl \w+) +", r"\1 ", line))[0]  # explanations follow two spaces
            yield _filled(command, variables)
        return
    yield from _commands_of_blocks(text, variables)
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
        if document.name != "CHANGELOG.md" and re.match(r"(?:OMP\w+=\S+ )?(reft-pl|python|make|pytest|pip) ", span):
            yield " ".join(span.split())


def _commands_of_blocks(text: str, variables: dict[str, str]) -> Iterator[str]:
    for block in re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL):
        for line in _joined(block, r"\n").splitlines():
            assignment = re.fullmatch(r'(\w+)="(.*)"', line.strip())
            if assignment:
                variables[assignment[1]] = _filled(assignment[2], variables)
            else:
                yield from (part.strip() for part in _filled(line, variables).split("&&") if part.strip())


def _joined(text: str, newline: str) -> str:
    return re.sub(rf"\s*\\{newline}\s*", " ", text)


def _filled(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda match: variables.get(match[1], "1"), text)


def all_commands() -> list[str]:
    return sorted({command for document in DOCUMENTS for command in commands_of(document)})


def words_of(command: str) -> list[str]:
    """Return the program and its arguments: without launchers, variables and redirections."""
    words = shlex.split(command, comments=True)
    if "reft-pl" in words:
        words = words[words.index("reft-pl") :]
    while words and "=" in words[0]:
        words = words[1:]
    return words


REFT = sorted({tuple(words[1:]) for c in all_commands() if (words := words_of(c))[:1] == ["reft-pl"] and words[1:]})
OTHERS = sorted({tuple(words) for command in all_commands() if (words := words_of(command)) and words[0] != "reft-pl"})


def test_commands_are_found() -> None:
    assert len(REFT) > 60
    assert len(OTHERS) > 10


@pytest.fixture
def bare_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with only the documents' classes."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"`(my_\w+)\.py`\):?\n\n```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert {name for name, _ in blocks} == {
        "my_reward",
        "my_functions",
        "my_columns",
        "my_judge",
        "my_trl",
        "my_advantages",
        "my_callback",
    }
    for name, code in blocks:
        (tmp_path / f"{name}.py").write_text(code)
    for page in PAGES:
        for name, text in re.findall(r"`(\w+\.yaml)`\):\n\n```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", REFT, ids=" ".join)
def test_a_command_of_a_document_is_accepted(
    words: tuple[str, ...], bare_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training verbs are checked up to the resolved config, other commands up to missing files."""
    verb, *arguments = words
    if "--help" in arguments or any(argument.endswith(".help") for argument in arguments):
        code = main(words)
    elif verb in VERBS:
        code = main([*words, "--print_config"]) if arguments[0] != "--ckpt_path" else 0
    elif verb == "memory" and arguments:
        code = min(main(words), 1) - 1  # 1: it does not fit
        code = 0 if code <= 0 else code
    elif verb in ("recipes", "doctor"):
        code = main(words)
    elif (
        verb in ("memory", "rollout-server") or (verb == "init" and not arguments) or (verb == "prepare" and len(arguments) < 2)
    ):  # a mention, or what would stay
        code = _help(verb)
    else:
        code = _refused_by_parser(words, capsys)
    assert code == 0, capsys.readouterr().err


def _help(verb: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    return int(stop.value.code or 0)


def _refused_by_parser(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> int:
    try:
        code = main(words)
    except SystemExit:
        return 1
    assert code == 2, "nothing is here to work on"
    return int("usage:" in capsys.readouterr().err)


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_other_programs_in_documents_exist(words: tuple[str, ...]) -> None:
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {argument for argument in arguments if "=" not in argument} <= set(targets)
    elif program == "python" and arguments[0].endswith(".py"):
        assert any(f"(`{arguments[0]}`):" in page.read_text(encoding="utf-8") for page in PAGES)
    elif program == "python":
        assert arguments[:2] == ["-m", "benchmarks"]
        modules = [path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")]
        assert arguments[2] in (*modules, "NAME", "--help")
    elif program == "pytest":
        assert all((ROOT / argument).exists() for argument in arguments if argument.startswith("tests"))
    elif program == "pip":
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert all(extra in extras for argument in arguments for extra in re.findall(r"\[(\w+)\]", argument))
    else:
        assert program in FOREIGN


def options() -> list[str]:
    """Yield every ``--section.key value`` of the prose; ``a|b`` gives two."""
    found = set()
    for document in DOCUMENTS:
        if document.suffix == ".md" and document.name != "CHANGELOG.md":
            for span in re.findall(r"(?<!`)`(--(?:model|data|trainer|checkpoints)\.[^`]+)`(?!`)", document.read_text()):
                flag, _, values = span.partition(" ")
                found |= {f"{flag} {value}" for value in (values.split("|") if " --" not in values else [values]) if value}
    return sorted(found)


@pytest.mark.parametrize("option", options())
def test_an_option_of_the_prose_is_accepted(option: str, bare_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusals = []
    for stage, verb in STAGES.items():
        if main([verb, "--config", f"configs/{stage}.yaml", *option.split(), "--print_config"]) == 0:
            return
        refusals.append(capsys.readouterr().err)
    pytest.fail("no stage takes it:\n" + "\n".join(refusals))


def test_the_readmes_reward_for_truncated_completions(overlay: Callable[..., str], micro_model: Path, tmp_path: Path) -> None:
    """The README's `--model.reward.truncated zero`, trained for an iteration."""
    one = {"max_epochs": 1, "limit_train_batches": 1}
    config = overlay("ppo", init_from=micro_model, model={"init_args": {"policy": {"from_scratch": True}}}, trainer=one)
    assert main(["fit", "--config", "configs/ppo.yaml", "--config", config, "--model.reward.truncated", "zero"]) == 0
    assert "truncated: zero" in (tmp_path / "ppo" / "config.yaml").read_text()


def test_the_readme_fits_its_limit() -> None:
    assert (ROOT / "README.md").stat().st_size <= 6000


LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:)([^)#\s]+)(?:#[^)\s]*)?\)")
FENCE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_resolve(page: Path) -> None:
    """The site's build checks its own pages; the README's and CONTRIBUTING's links are for a reader of the repository."""
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        assert (page.parent / target).exists(), target


PRIVATE = re.compile(r"(?<!self)(?<!cls)(?<!super\(\))\._(?P<attribute>[a-z]\w+)|import .*?\b_(?P<imported>[A-Za-z]\w+)")
OWN = re.compile(r"\b(?:self|cls|other)\._(\w+)|(?:def|class) _(\w+)|^\s*_(\w+)\s*[:=]", re.MULTILINE)
STANDARD = {"exit", "fields", "getframe"}
"""Of ``os``, ``ast`` and ``sys``, all documented."""


def test_every_private_name_of_another_library_is_listed() -> None:
    sources = [
        path.read_text(encoding="utf-8") for folder in ("reft_pl", "callbacks") for path in (ROOT / folder).rglob("*.py")
    ]
    own = {name for source in sources for names in OWN.findall(source) for name in names if name}
    reached = {match["attribute"] or match["imported"] for source in sources for match in PRIVATE.finditer(source)}
    page = (ROOT / "docs" / "private_apis.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`_(\w+)`", page))
    assert reached - own - STANDARD <= listed
    assert listed <= {name for source in sources for name in re.findall(r"\b_(\w+)", source)}, "a name is no longer used"


def test_the_api_reference_has_each_formula_module_once() -> None:
    page = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"automodule:: reft_pl\.rl\.(\w+)", page)
    assert listed == sorted(path.stem for path in (ROOT / "reft_pl" / "rl").glob("*.py") if path.stem != "__init__")
