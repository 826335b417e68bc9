"""Refuse numbers in ``config.json`` that transformers accepts and that make a model compute NaN or nonsense."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

from reft_pl.errors import UserError

_POSITIVE = "(?<!layer_)theta|base_freq|emb_base|rope_base|factor|rotary_pct|n_positions|max_position_embeddings|soft_cap"
_RULES: tuple[tuple[re.Pattern[str], str, Callable[[float], bool]], ...] = (
    (re.compile(r"(?:^|_)(?:eps|epsilon)$"), "a number from 0", lambda x: x >= 0),
    (re.compile(r"(?:dropout|pdrop|_drop)$"), "a number from 0 to 1", lambda x: 0 <= x <= 1),
    (re.compile(rf"(?:{_POSITIVE}|(?<!router_logit_)softcapping)$"), "a positive number", lambda x: x > 0),
)
"""Names of settings, what they must be, and the test. Null means that the model has no such setting."""

_LISTS = re.compile(r"(?:short|long)_factor$|layer")
"""Settings with a number for each frequency or layer."""


def refuse_values(source: str, config: PreTrainedConfig) -> None:
    """Check all numbers of a configuration, including sections such as ``rope_parameters`` and ``text_config``.

    Raises:
        UserError: A number is NaN, has another type, or is outside its range.
    """
    for key, wanted, value in _wrong(config.to_dict()):
        raise UserError(
            f"{source}/config.json cannot be used ({key} is {value!r}, and must be {wanted}): correct this value, or take the "
            "model's original file."
        )


def _wrong(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield the full name of each wrong number, what it must be, and its value."""
    for name, value in settings.items():
        key = f"{path}{name}"
        if isinstance(value, Mapping):
            yield from _wrong(value, f"{key}.")
            continue
        wanted, accepts = next(((text, test) for pattern, text, test in _RULES if pattern.search(str(name))), (None, None))
        for item in value if isinstance(value, (list, tuple)) and _LISTS.search(str(name)) else [value]:
            if isinstance(item, float) and math.isnan(item):
                yield key, wanted or "a number", item
            elif wanted is not None and accepts is not None and item is not None:
                number = isinstance(item, (int, float))
                if not number or not math.isfinite(item) or not accepts(item):
                    yield key, wanted, item
