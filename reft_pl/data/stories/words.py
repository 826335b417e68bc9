"""Words shared by all situations: people, number words, and irrelevant remarks."""

from __future__ import annotations

from typing import NamedTuple

from reft_pl.data.stories.grammar import Piece, piece


class Pronouns(NamedTuple):
    """Subject, possessive and object form."""

    he: str
    his: str
    him: str


MALE = Pronouns("he", "his", "him")
FEMALE = Pronouns("she", "her", "her")

PEOPLE: dict[str, Pronouns] = {
    **dict.fromkeys(("Tom", "Omar", "Luca", "Jonas", "Amir", "Felix", "Hugo", "Ravi", "Noah", "Emil", "Kofi", "Pavel"), MALE),
    **dict.fromkeys(("Anna", "Mia", "Leila", "Nora", "Priya", "Sofia", "Yuki", "Clara", "Zoe", "Rosa", "Ines", "Hana"), FEMALE),
}

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

REMARKS: tuple[Piece, ...] = (
    piece("x", "{p} is {aside} years old.", aside=(7, 60)),
    piece("x", "{p} lives {aside} minutes away.", aside=(3, 45)),
    piece("x", "It is {aside} degrees outside.", aside=(8, 32)),
    piece("x", "All this takes {aside} minutes.", aside=(15, 90)),
    piece("x", "{p} has {aside} cousins.", aside=(2, 12)),
    piece("x", "{aside} people watch {p} at this.", aside=(2, 12)),
)
