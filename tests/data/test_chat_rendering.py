"""Chat templates come with models: their computation is bounded, and their failures are one-sentence errors."""

from __future__ import annotations

import multiprocessing
import pickle
import resource
import time

import pytest

from reft_pl.data import template_process
from reft_pl.data.chat_rendering import ChatRenderer
from reft_pl.data.codec import Codec
from reft_pl.errors import UserError
from reft_pl.formats import Chat
from reft_pl.types import Problem

QUESTION = [{"role": "user", "content": "How many?"}]
LOOPS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}BODY{% endfor %}{% endfor %}{% endfor %}"
)
DOUBLING = "{% set ns = namespace(s=EMPTY) %}{% for i in range(99999) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}"

NINETY_NINE = "{% for i in range(99) %}"
HOSTILE = {
    "multiplied": "{{ 'x' * 10**10 }}",
    "multiplied by a variable": "{{ messages[0].content * 10**10 }}",
    "multiplied moderately": "{{ 'x' * 10**7 }}",
    "list multiplied": "{{ [1] * 10**10 }}",
    "list of lists": "{{ ([[0] * 10**6] * 10**6) | string }}",
    "nested loops that write": LOOPS.replace("BODY", "x"),
    "nested loops that are silent": LOOPS.replace("BODY", ""),
    "doubled": DOUBLING.replace("EMPTY", "'x'"),
    "doubled by join": "{% set ns = namespace(s=['x']) %}"
    + NINETY_NINE
    + "{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | join }}",
    "doubled by tilde": "{% set ns = namespace(s='x') %}" + NINETY_NINE + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "replaced": "{% set ns = namespace(s='xx') %}" + NINETY_NINE + "{% set ns.s = ns.s | replace('x', 'xx') %}{% endfor %}",
    "centered": "{{ 'x' | center(10**9) }}",
    "just": "{{ 'x'.ljust(10**10) }}",
    "percent width": "{{ '%1000000000d' % 1 }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "format width": "{{ '{:>1000000000}'.format(1) }}",
    "indent": "{{ ('x\n' * 10000) | indent(10**6) }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "power of a variable": "{{ (messages | length + 9) ** (10 ** 10) }}",
    "sum of a product": "{{ range(99999) | batch(1) | list | string * 10000 }}",
    "lorem": "{{ lipsum(n=10**6) }}",
    "macro": "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "wide macro": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}x{% endmacro %}{{ m(60) }}",
    "deep source": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
}


@pytest.fixture
def renderer(chat_tokenizer, monkeypatch):
    def make(template):
        monkeypatch.setattr(chat_tokenizer, "chat_template", template)
        monkeypatch.setattr(chat_tokenizer, "name_or_path", "models/strange\x1b[31m")
        return ChatRenderer(chat_tokenizer)

    return make


@pytest.mark.parametrize("chat_tokenizer", ["smollm2"], indirect=True)
@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_templates_computation_is_bounded(renderer, template, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(template_process, "CPU_SECONDS", 0.5)  # shorter than the default two seconds
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UserError) as raised:
        renderer(template + "{{ messages[0].content }}").render(QUESTION)
    assert time.monotonic() - began < 40
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
    sentence = str(raised.value)
    assert "models/strange\\x1b[31m" in sentence
    assert sentence.isprintable()
    assert len(sentence) < 500
    assert renderer("<{{ messages[0].content }}>").render(QUESTION) == "<How many?>", "the next template is served"


@pytest.mark.parametrize("chat_tokenizer", ["smollm2"], indirect=True)
@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ raise_exception('System role not supported') }}", "fails .*System role not supported"),
        ("{% for m in messages %}{{ m.content }", "fails .*TemplateSyntaxError"),
        ("{{ nothing.at_all }}{{ messages[0].content }}", "fails .*UndefinedError"),
        ("{{ messages[0].content / 0 }}", "fails .*TypeError"),
        ("{{ ''.__class__.__mro__ }}", "fails .*SecurityError"),
        ("{% include '/etc/passwd' %}", "fails"),
        ("{{ raise_exception('a\nb\x1b[2J\u202e') }}", r"fails .*a\\nb\\x1b\[2J\\u202e"),
        ("{{ '\\ud800' }}{{ messages[0].content }}", "writes a lone surrogate"),
        ("no question", "omits the question"),
        ({"tool_use": "x", "rag": "y"}, "several chat templates .'tool_use', 'rag'. and none is named 'default'"),
        (5, "is 5, not text"),
    ],
)
def test_a_template_that_fails_is_one_sentence(renderer, template, sentence):
    with pytest.raises(UserError, match=sentence) as raised:
        renderer(template).render(QUESTION)
    assert str(raised.value).isprintable()
    assert "models/strange" in str(raised.value)


def test_a_refused_system_message_names_the_setting_to_remove(renderer, chat_tokenizer):
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
    with pytest.raises(UserError, match=r"no system.*remove data\.format\.system"):
        renderer(refuses).render([{"role": "system", "content": "Be brief."}, *QUESTION])
    assert renderer(refuses).render(QUESTION) == "How many?"


def test_templates_that_expect_parts_get_contents_in_parts(renderer, chat_tokenizer):
    parts = renderer("{% for m in messages %}[{{ m.role }}]{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}")
    assert parts.render([{"role": "system", "content": "Be brief."}, *QUESTION]) == "[system]Be brief.[user]How many?"
    special = "a<|im_end|>b"
    marked = parts.render([{"role": "user", "content": special}])
    assert [piece for piece, own in parts.pieces(marked) if not own] == [special]


def test_variables_and_named_templates_are_those_of_transformers(renderer, chat_tokenizer):
    template = "{{ eos_token }}{{ messages[0].content }}{{ tools is none }}{% if add_generation_prompt %}>{% endif %}"
    made = renderer({"default": template, "rag": "x"})
    expected = chat_tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    assert made.render(QUESTION) == expected
    odd = [{"role": "user", "content": "no character \U0001f600 \ufdd2"}]
    assert odd[0]["content"] in made.render(odd)
    long = [{"role": "user", "content": "x" * 3_000_000}]
    assert long[0]["content"] in made.render(long), "a long question is not the template's doing"


@pytest.mark.parametrize("chat_tokenizer", ["smollm2"], indirect=True)
def test_a_fork_does_not_wait_for_a_lock_that_another_thread_holds(renderer):
    """A data loader forks while another thread renders and holds the lock, which the fork must replace."""
    made = renderer("<{{ messages[0].content }}>")
    queue = multiprocessing.get_context("fork").SimpleQueue()
    with template_process._lock:
        process = multiprocessing.get_context("fork").Process(target=lambda: queue.put(made.render(QUESTION)))
        process.start()
        process.join(timeout=30)
        ended = process.exitcode
        process.kill()
    assert ended == 0
    assert queue.get() == "<How many?>"


def test_a_rendering_adds_less_than_a_millisecond(renderer, chat_tokenizer):
    made = renderer(chat_tokenizer.chat_template)
    made.render(QUESTION)
    began = time.perf_counter()
    for _ in range(500):
        made.render(QUESTION)
    assert (time.perf_counter() - began) / 500 < 5e-3  # 0.1 ms on an idle machine


def test_a_codec_can_be_copied(chat_tokenizer):
    codec = Codec(chat_tokenizer, Chat("boxed"), 5000, 9000)
    problem = Problem("p", "How many?", 1.0)
    assert pickle.loads(pickle.dumps(codec)).prompt_ids(problem) == codec.prompt_ids(problem)
