from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reft_pl.evaluation.at_k import pass_at_k, powers_of_two, rerank_at, tie_break_vote, voting_at, weighted_vote
from reft_pl.formats.answers import answers_equal, most_voted, votes

ANSWERS = st.lists(st.sampled_from([None, 1.0, 2.0, 3.0, 4.0]), min_size=1, max_size=9)


def test_pass_at_k_by_hand():
    assert pass_at_k([True, False, False, False], 1) == 0.25
    assert pass_at_k([True, False, False, False], 2) == 0.5
    assert pass_at_k([True, True, False, False], 2) == pytest.approx(5 / 6)
    assert pass_at_k([False] * 4, 4) == 0
    assert pass_at_k([True, False, False, False], 4) == 1


def test_voting_by_hand():
    answers, right = [7.0, 7.0, 5.0, None], [True, True, False, False]
    # One sample: two of four are right. Two: {7,7}, 2 x {7,5} shared, 2 x {7,None}, {5,None}. All: 7 has two votes of three.
    assert voting_at(answers, right, [1, 2, 4]) == pytest.approx([0.5, (1 + 2 * 0.5 + 2) / 6, 1.0])


def expected_over_subsets(answers, correct, k):
    """Compute the definition, one subset at a time."""
    total = 0.0
    subsets = list(combinations(range(len(answers)), k))
    for subset in subsets:
        votes = {}
        for i in subset:
            if answers[i] is not None:
                votes[answers[i]] = votes.get(answers[i], 0) + 1
        best = [a for a, v in votes.items() if v == max(votes.values())]
        total += sum(correct[answers.index(a)] for a in best) / len(best) if best else 0.0
    return total / len(subsets)


@settings(deadline=None)
@given(answers=ANSWERS, gold=st.sampled_from([1.0, 9.0]))
def test_voting_is_the_expectation_over_subsets(answers, gold):
    correct = [answer == gold for answer in answers]
    ks = list(range(1, len(answers) + 1))
    assert voting_at(answers, correct, ks) == pytest.approx([expected_over_subsets(answers, correct, k) for k in ks])


@settings(deadline=None)
@given(data=st.data(), answers=ANSWERS)
def test_reranking_is_the_expectation_over_subsets(data, answers):
    n = len(answers)
    scores = data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=n, max_size=n))
    correct = [answer == 1.0 for answer in answers]
    for k in range(1, n + 1):
        subsets = list(combinations(range(n), k))
        chosen = [max((i for i in s if answers[i] is not None), key=lambda i: (scores[i], -i), default=None) for s in subsets]
        expected = sum(i is not None and correct[i] for i in chosen) / len(subsets)
        assert rerank_at(scores, answers, correct, [k]) == pytest.approx([expected])


@given(answers=ANSWERS)
def test_with_one_sample_every_method_is_mean_accuracy(answers):
    correct = [answer == 1.0 for answer in answers]
    mean = sum(correct) / len(correct)
    assert pass_at_k(correct, 1) == pytest.approx(mean)
    assert voting_at(answers, correct, [1]) == pytest.approx([mean])
    assert rerank_at([0.5] * len(answers), answers, correct, [1]) == pytest.approx([mean])


@given(answers=ANSWERS)
def test_nothing_beats_the_upper_bound(answers):
    correct = [answer == 1.0 for answer in answers]
    for k in range(1, len(answers) + 1):
        assert voting_at(answers, correct, [k])[0] <= pass_at_k(correct, k) + 1e-12


def test_many_samples_stay_finite():
    answers = [float(i % 7) for i in range(1000)]
    correct = [answer == 3.0 for answer in answers]
    values = voting_at(answers, correct, [1, 500, 1000])
    assert values[0] == pytest.approx(0.143)
    assert values[2] == pytest.approx(1 / 6)  # 1000 = 7 * 142 + 6: class 3 ties with five others at 143
    assert values[0] < values[1] < values[2]


def test_ties_are_shared_or_go_to_the_first():
    assert voting_at([1.0, 2.0], [True, False], [2]) == [0.5]
    assert most_voted([2.0, 1.0, 1.0, 2.0]) == 0
    assert most_voted([None, 2.0, 1.0, 1.0]) == 2
    assert most_voted([None, None]) is None


NEAR = st.lists(st.sampled_from([None, 2.992, 3.0, 3.004, 3.011, 1234567.0, 1234568.0]), min_size=1, max_size=7)


@settings(deadline=None)
@given(NEAR, st.sampled_from([3.0, 3.004, 1234568.0]), st.randoms(use_true_random=False))
def test_votes_of_near_numbers_do_not_depend_on_the_order(answers, gold, random):
    permuted = random.sample(answers, len(answers))
    ks = list(range(1, len(answers) + 1))
    figures = [voting_at(order, [answers_equal(a, gold) for a in order], ks) for order in (answers, permuted)]
    assert figures[0] == pytest.approx(figures[1])


@settings(deadline=None)
@given(NEAR, st.sampled_from([3.0, 1234568.0]))
def test_voting_of_near_numbers_is_the_expectation_over_subsets(answers, gold):
    group_of = {index: group[0] for group in votes(answers) for index in group}
    represented = [None if answer is None else answers[group_of[index]] for index, answer in enumerate(answers)]
    correct = [answers_equal(answer, gold) for answer in answers]
    ks = list(range(1, len(answers) + 1))
    expected = [expected_over_subsets(represented, [answers_equal(a, gold) for a in represented], k) for k in ks]
    assert voting_at(answers, correct, ks) == pytest.approx(expected)


def test_near_numbers_share_a_vote_and_large_integers_do_not():
    answers = [3.0, 3.004, 5.0, 5.0, 3.0]
    assert voting_at(answers, [answers_equal(a, 3.0) for a in answers], [5]) == [1.0]
    large = [1234567.0, 1234568.0, 1234568.0]
    assert voting_at(large, [answers_equal(a, 1234568.0) for a in large], [3]) == [1.0]
    assert weighted_vote([0.4, 0.3, 0.3, 0.2, 0.0], answers, [answers_equal(a, 3.0) for a in answers])


def test_weighted_vote_by_hand():
    answers, right = [1.0, 2.0, 2.0, None], [True, False, False, False]
    assert weighted_vote([0.9, 0.4, 0.4, 1.0], answers, right)
    assert not weighted_vote([0.9, 0.5, 0.5, 0.0], answers, right)
    assert not weighted_vote([0.9], [None], [False])


def test_scores_break_ties_of_a_vote_but_do_not_overrule_it():
    answers, right = [1.0, 2.0, 2.0, 1.0, 3.0], [True, False, False, True, False]
    assert tie_break_vote([0.5, 0.4, 0.4, 0.5, 0.0], answers, right)
    assert not tie_break_vote([0.4, 0.5, 0.5, 0.4, 0.0], answers, right)
    assert not weighted_vote([0.1, 0.1, 0.1, 0.1, 0.9], answers, right)
    assert tie_break_vote([0.1, 0.1, 0.1, 0.1, 0.9], answers, right), "equal sums: the answer sampled first"
    assert not tie_break_vote([0.9], [None], [False])


@pytest.mark.parametrize(("n", "expected"), [(1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (100, [1, 2, 4, 8, 16, 32, 64, 100])])
def test_the_ks_of_a_curve(n, expected):
    assert powers_of_two(n) == expected


@pytest.mark.parametrize("k", [0, 3])
def test_k_outside_the_samples_is_refused(k):
    for call in (
        lambda: pass_at_k([True, False], k),
        lambda: voting_at([1.0, 2.0], [True, False], [k]),
        lambda: rerank_at([0.1, 0.2], [1.0, 2.0], [True, False], [k]),
    ):
        with pytest.raises(ValueError, match=f"k={k} of n=2"):
            call()


def test_every_small_case_sums_to_a_probability():
    for answers in product([None, 1.0, 2.0], repeat=4):
        per_answer = [voting_at(answers, [a == gold for a in answers], [3])[0] for gold in (1.0, 2.0)]
        all_none = sum(a is None for a in answers) >= 3
        assert sum(per_answer) <= 1 + 1e-12
        if not all_none and sum(a is None for a in answers) <= 2:
            assert sum(per_answer) == pytest.approx(1.0)
