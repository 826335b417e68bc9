"""Word a plot as text: sentences, names, pronouns."""

from __future__ import annotations

import re
from collections.abc import Mapping

from reft_pl.data.stories.dice import Dice
from reft_pl.data.stories.grammar import Situation
from reft_pl.data.stories.plot import Plot
from reft_pl.data.stories.words import NUMBER_WORDS, PEOPLE

PRONOUN_CHANCE = 0.5
"""Probability that a person who was already mentioned appears as a pronoun."""

NUMBER_WORD_CHANCE = 0.15
"""Probability that a number up to twelve is written as a word."""

BEFORE_SUBJECT = ("does ", "can ", "must ", "has ", "and ", "that ", "if ")
"""Words after which a name is the subject of a clause; in other positions the pronoun would need another case."""

SLOT = re.compile(r"\{([a-z_]+)(\+|'s)?\}")


def tell(situation: Situation, plot: Plot, dice: Dice) -> str:
    """Word the plot as one paragraph that ends with the question."""
    paragraphs = []
    for piece in plot.pieces:
        clauses = [clause.strip() for clause in dice.choice(piece.texts).split("|")]
        paragraphs.append(" ".join(dice.sample(clauses, len(clauses))))
    if plot.remark is not None:
        paragraphs.insert(dice.between(1, len(paragraphs) - 1), plot.remark.texts[0])
    template = " ".join(paragraphs)

    first, second = dice.sample(tuple(PEOPLE), 2)
    words = {slot: dice.choice(options) for slot, options in situation.words.items()}
    numbers = {
        name: NUMBER_WORDS[number] if number < len(NUMBER_WORDS) and dice.chance(NUMBER_WORD_CHANCE) else str(number)
        for name, number in plot.numbers.items()
    }
    alone = "{q}" not in template and "{q's}" not in template
    sentences: list[str] = []
    known = False
    for sentence in re.split(r"(?<=[.?]) ", template):
        pronoun = known and alone and dice.chance(PRONOUN_CHANCE)
        text = _fill(sentence, first, second, {**words, **numbers}, pronoun=pronoun, known=known)
        sentences.append(text[0].upper() + text[1:])
        known = known or any(slot in sentence for slot in ("{p}", "{p's}", "{he}"))
    return " ".join(sentences)


def _fill(sentence: str, first: str, second: str, values: Mapping[str, str], *, pronoun: bool, known: bool) -> str:
    """Fill a sentence's slots.

    ``known`` is whether an earlier sentence mentions the person, ``pronoun`` whether a pronoun may replace the name.
    """
    pronouns = PEOPLE[first]

    def person(slot: str, suffix: str, before: str) -> str:
        if slot == "p" and pronoun and suffix:
            return pronouns.his
        if slot == "p" and pronoun and (not before or before.endswith(BEFORE_SUBJECT)):
            return pronouns.he
        # In the second case the clause was swapped with the one that names the person.
        if slot == "p" or (slot == "he" and not known and "{p}" not in before and "{p's}" not in before):
            return first + suffix
        return second + suffix if slot == "q" else str(getattr(pronouns, slot))

    def fill(match: re.Match[str]) -> str:
        slot, suffix = match[1], match[2] or ""
        if slot in ("p", "q", "he", "his", "him"):
            return person(slot, suffix, sentence[: match.start()])
        singular, _, plural = values[slot].partition("/")
        return (plural or singular + "s") if suffix == "+" else singular

    return SLOT.sub(fill, sentence)
