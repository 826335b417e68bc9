"""Situations of the stories: seen in training, and unseen."""

from reft_pl.data.stories.grammar import Situation
from reft_pl.data.stories.situations.kitchen import KITCHEN
from reft_pl.data.stories.situations.market import MARKET
from reft_pl.data.stories.situations.outdoors import OUTDOORS
from reft_pl.data.stories.situations.school import SCHOOL
from reft_pl.data.stories.situations.unseen import UNSEEN

SEEN: tuple[Situation, ...] = MARKET + KITCHEN + SCHOOL + OUTDOORS

__all__ = ["SEEN", "UNSEEN", "Situation"]
