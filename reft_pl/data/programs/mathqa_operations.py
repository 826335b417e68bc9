"""MathQA's operations and constants in Python, as publicly described (arXiv 1905.13319).

A percentage is always the first argument: ``p_after_gain(25, 80)`` is 100. Angles are in radians.
"""

from __future__ import annotations

OPERATIONS: dict[str, str] = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "power": "{0} ** {1}",
    "negate": "-{0}",
    "inverse": "1 / {0}",
    "sqrt": "math.sqrt({0})",
    "log": "math.log({0})",
    "floor": "math.floor({0})",
    "factorial": "math.factorial({0})",
    "max": "max({0}, {1})",
    "min": "min({0}, {1})",
    "reminder": "{0} % {1}",
    "gcd": "math.gcd({0}, {1})",
    "lcm": "math.lcm({0}, {1})",
    "choose": "math.comb({0}, {1})",
    "permutation": "math.perm({0}, {1})",
    "sine": "math.sin({0})",
    "cosine": "math.cos({0})",
    "tangent": "math.tan({0})",
    "speed": "{0} / {1}",
    "speed_in_still_water": "({0} + {1}) / 2",
    "stream_speed": "({0} - {1}) / 2",
    "p_after_gain": "(1 + {0} / 100) * {1}",
    "original_price_before_gain": "100 * {1} / (100 + {0})",
    "original_price_before_loss": "100 * {1} / (100 - {0})",
    "negate_prob": "1 - {0}",
    "square_area": "{0} ** 2",
    "square_perimeter": "4 * {0}",
    "square_edge_by_area": "math.sqrt({0})",
    "square_edge_by_perimeter": "{0} / 4",
    "rectangle_area": "{0} * {1}",
    "rectangle_perimeter": "2 * ({0} + {1})",
    "rhombus_area": "{0} * {1} / 2",
    "rhombus_perimeter": "4 * {0}",
    "quadrilateral_area": "{0} * ({1} + {2}) / 2",
    "triangle_area": "{0} * {1} / 2",
    "triangle_perimeter": "{0} + {1} + {2}",
    "triangle_area_three_edges": (
        "math.sqrt(({0} + {1} + {2}) * (-{0} + {1} + {2}) * ({0} - {1} + {2}) * ({0} + {1} - {2})) / 4"
    ),
    "diagonal": "math.sqrt({0} ** 2 + {1} ** 2)",
    "circle_area": "math.pi * {0} ** 2",
    "circumface": "2 * math.pi * {0}",
    "cube_edge_by_volume": "{0} ** (1 / 3)",
    "volume_cube": "{0} ** 3",
    "surface_cube": "6 * {0} ** 2",
    "volume_rectangular_prism": "{0} * {1} * {2}",
    "surface_rectangular_prism": "2 * ({0} * {1} + {1} * {2} + {0} * {2})",
    "volume_cylinder": "math.pi * {0} ** 2 * {1}",
    "surface_cylinder": "2 * math.pi * {0} * ({0} + {1})",
    "volume_cone": "math.pi * {0} ** 2 * {1} / 3",
    "volume_sphere": "4 * math.pi * {0} ** 3 / 3",
    "surface_sphere": "4 * math.pi * {0} ** 2",
}
"""Python templates of the operations. Arguments are names or non-negative numbers."""

NAMES = {"add": "total", "subtract": "difference", "multiply": "product", "divide": "quotient", "reminder": "remainder"}
"""Variable names of steps; other operations give their own name."""

SPECIAL_CONSTANTS = {"const_pi": "math.pi", "const_deg_to_rad": "(math.pi / 180)"}
