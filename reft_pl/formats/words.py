"""Words and units around a number: which leave its value alone, and which change it."""

from __future__ import annotations

import re
from fractions import Fraction


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CURRENCIES = frozenset({"$", "\u20ac", "\u00a3", "\u00a5", "\u20b9", "USD", "EUR", "GBP", "INR", "Rs", "rs", "RS"})

LEADING = _words(
    """
    the a an final answer result value total number exactly precisely about approximately approx roughly around
    circa only just so thus therefore hence then of to we get is it that this be still it's that's he's there
    """
)
"""Words that may precede a number without changing it."""

STATING = _words(
    """
    is are was were equals equal be becomes has have had makes make made earns earned needs need needed pays paid
    costs cost gets get got spends spent sells sold buys bought saves saved receives received uses used eats ate
    gives gave takes took
    """
)
"""Verbs that act as an equals sign: ``Janet makes $18``."""

NUMBER_WORDS: dict[str, Fraction] = {
    "zero": Fraction(0), "one": Fraction(1), "two": Fraction(2), "three": Fraction(3), "four": Fraction(4), "five": Fraction(5),
    "six": Fraction(6), "seven": Fraction(7), "eight": Fraction(8), "nine": Fraction(9), "ten": Fraction(10),
    "eleven": Fraction(11), "twelve": Fraction(12), "thirteen": Fraction(13), "fourteen": Fraction(14), "fifteen": Fraction(15),
    "sixteen": Fraction(16), "seventeen": Fraction(17), "eighteen": Fraction(18), "nineteen": Fraction(19),
    "twenty": Fraction(20), "thirty": Fraction(30), "forty": Fraction(40), "fifty": Fraction(50), "sixty": Fraction(60),
    "seventy": Fraction(70), "eighty": Fraction(80), "ninety": Fraction(90), "dozen": Fraction(12), "hundred": Fraction(100),
    "thousand": Fraction(1000), "million": Fraction(10**6), "billion": Fraction(10**9), "half": Fraction(1, 2),
}  # fmt: skip
"""Number words never state an answer by themselves; beside a number in digits they must agree with it: ``18 (eighteen)``."""

_CHANGING = _words(
    """
    mn bn tn mil mio mrd mill million millions lac lacs lakh lakhs crore crores dozen dozens score gross couple
    hundreds thousands billions half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths
    seventh sevenths eighth eighths ninth ninths tenth tenths hundredth hundredths thousandth thousandths st nd rd
    th squared cubed factorial factor choose mod modulo plus minus times divided multiplied power exponent root log
    ln sin cos tan pi base radix inverse reciprocal negative below not no nor never neither none wrong incorrect
    false impossible except or if else unless otherwise versus vs remainder once twice thrice double doubled triple
    tripled halved ish and/or instead rather grand thou bil ones twos threes fours fives sixes sevens eights nines
    tens fold add added subtracted increased decreased reduced alpha beta gamma delta epsilon theta lambda mu phi
    omega sigma rho tau tsd tys tis tis\u00edc mille mila tusen tuhat duizend ezer ribu juta ngh\u00ecn milyon milj miljoen
    miljoner miljoona mega giga bio
    """
)
_SCALE = re.compile(r"(?:milli(?:on|ard)|billi(?:on|ard)|trillion|quadrillion|zillion|thousand|hundred|millon|tausend|hundert)")
_SHORT = _words(
    """
    a an of in on at to by as is it he we me us so am pm all per off for and pi
    """
)
_VOWEL = re.compile(r"[aeiouy\u00c0-\u024f]", re.IGNORECASE)

ATTACHED = _words(
    """
    cc sq kmph sqft cm mm km nm kg mg ml cl dl ft yd mi lb lbs oz min mins hr hrs sec secs ms mph kph kmh rpm am pm
    pts pcs px cents dollars euros hours minutes seconds days weeks months years degrees percent meters metres kHz
    MHz GHz Hz kW kWh MW MB GB TB KB kB
    """
)
"""Units that may follow the digits without a space (``5cm``). ``m`` is not among them: ``5m`` may mean millions."""

_ORDINALS = _words(
    """
    third fourth fifth sixth seventh eighth ninth tenth
    """
)
_OPERATIONS = _words(
    """
    square cube opposite inverse reciprocal negative root logarithm
    """
)
_LETTERS = _words(
    """
    m g l L s h
    """
)
POWERS_OF = _words(
    """
    cm mm km m ft in yd mi inch inches feet meter meters metre metres mile miles unit units sec s
    """
)
"""Units that may be squared or cubed: ``5 cm^2``."""

_FACTORS: dict[str, dict[str, Fraction]] = {
    "time": {
        "second": Fraction(1),
        "minute": Fraction(60),
        "hour": Fraction(3600),
        "day": Fraction(86400),
        "week": Fraction(604800),
    },
    "money": {"cent": Fraction(1), "dollar": Fraction(100), "$": Fraction(100)},
    "length": {"mm": Fraction(1), "cm": Fraction(10), "m": Fraction(1000), "meter": Fraction(1000), "km": Fraction(10**6)},
    "mass": {"g": Fraction(1), "gram": Fraction(1), "kg": Fraction(1000), "kilogram": Fraction(1000)},
    "volume": {"ml": Fraction(1), "l": Fraction(1000), "liter": Fraction(1000)},
}


def changes_value(word: str) -> bool:
    """Whether a word after a number changes its value, or may: ``million``, ``squared``, ``x``.

    All other words are units or remarks: ``apples``, ``per``, ``third-graders``. Single letters, two-letter words and words
    without a vowel count as variables unless they are known units or short words.
    """
    if len(word) == 1:
        return word not in _LETTERS
    lower = word.lower()
    first, last = lower.split("-", 1)[0], lower.rsplit("-", 1)[-1]
    if last in _CHANGING or last in NUMBER_WORDS or _SCALE.match(lower) or _SCALE.match(last):
        return True
    if "-" in lower and (first in NUMBER_WORDS or first in _CHANGING - _ORDINALS):
        return True
    if lower.endswith(("n't", "n\u2019t")):
        return True
    if word in ATTACHED or word in POWERS_OF or lower in _SHORT:
        return False
    return len(word) == 2 or not _VOWEL.search(word)


def changes_name(word: str, follows: str) -> bool:
    """Whether a word in a quantity's name changes the quantity: ``half of x``, ``x squared``, ``total in thousands``."""
    lower = word.lower()
    if lower in _ORDINALS | _OPERATIONS:
        return follows == "of"  # "the third side" and "the square" are plain names
    return len(lower) > 2 and lower != "base" and (lower in _CHANGING or lower in NUMBER_WORDS or bool(_SCALE.match(lower)))


def number_word(word: str) -> Fraction | None:
    """Return the value of a word such as ``twelve``, or None."""
    return NUMBER_WORDS.get(word.lower())


def factor(unit: str) -> tuple[str, Fraction] | None:
    """Return a unit's dimension and its size in that dimension's smallest unit; None for other words."""
    singular = unit.lower() if len(unit) < 4 else unit.lower().removesuffix("s")
    for dimension, units in _FACTORS.items():
        if singular in units:
            return dimension, units[singular]
    return None
