"""Which changes affect the digest of problems or of a tokenizer."""

from copy import deepcopy
from dataclasses import replace

import pytest
from tokenizers import processors

from reft_pl.data.identity import problems_digest, tokenizer_digest
from reft_pl.types import Problem

PROBLEMS = [Problem("q_0", "How many?", 7.0, "seven"), Problem("q_1", "Which?", "b")]


def test_the_same_problems_have_the_same_digest():
    assert problems_digest(PROBLEMS) == problems_digest([replace(problem) for problem in PROBLEMS])
    assert len(problems_digest(PROBLEMS)) == 16


@pytest.mark.parametrize(
    "change", [{"id": "q_9"}, {"question": "How much?"}, {"answer": 8.0}, {"answer": "7.0"}, {"solution": None}]
)
def test_every_part_of_a_problem_counts(change):
    assert problems_digest([replace(PROBLEMS[0], **change), PROBLEMS[1]]) != problems_digest(PROBLEMS)


def test_columns_count_if_there_are_any():
    with_level, with_tests = ([replace(PROBLEMS[0], columns=columns)] for columns in ({"level": 1}, {"tests": [{1, 2}]}))
    assert len({problems_digest(problems) for problems in (PROBLEMS[:1], with_level, with_tests)}) == 3
    assert problems_digest(PROBLEMS) == "20d277a27617aed4", "digests of problems without columns do not change between versions"


def test_order_and_number_of_problems_count():
    assert len({problems_digest(problems) for problems in (PROBLEMS, PROBLEMS[::-1], PROBLEMS[:1], [])}) == 4


def test_the_last_call_of_a_tokenizer_does_not_count(plain_tokenizer):
    tokenizer = deepcopy(plain_tokenizer)
    before = tokenizer_digest(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2, split_special_tokens=True)
    assert tokenizer_digest(tokenizer) == before


def test_every_rule_of_a_tokenizer_counts(plain_tokenizer):
    kinds = [deepcopy(plain_tokenizer) for _ in range(5)]
    kinds[1].add_tokens("another")
    kinds[2].eos_token = kinds[2].convert_ids_to_tokens(5)
    kinds[3].chat_template = "{{ messages }}"
    kinds[4].backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{plain_tokenizer.eos_token} $A", special_tokens=[(plain_tokenizer.eos_token, plain_tokenizer.eos_token_id)]
    )
    assert len({tokenizer_digest(tokenizer) for tokenizer in kinds}) == 5
