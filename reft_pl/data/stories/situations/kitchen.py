"""Situations about cooking, eating and drinking."""

from __future__ import annotations

from reft_pl.data.stories.grammar import Situation, piece

KITCHEN = (
    Situation(
        "baking",
        words={"thing": ("cookie", "muffin", "bun", "roll", "waffle")},
        openings=(
            piece(
                "baked = trays * per_tray",
                "{p} bakes {trays} trays of {thing+}. | There are {per_tray} {thing+} on a tray.",
                "{p} fills {trays} trays with {per_tray} {thing+} each and bakes them.",
                trays=(2, 9),
                per_tray=(6, 24),
            ),
            piece(
                "baked = morning + evening",
                "{p} bakes {morning} {thing+} in the morning and {evening} in the evening.",
                morning=(12, 60),
                evening=(12, 60),
            ),
        ),
        events=(
            piece("unburnt = x - burnt", "{burnt} {thing+} get burnt and nobody wants them.", burnt=(2, 12)),
            piece(
                "uneaten = x - eaten",
                "The family eats {eaten} {thing+}.",
                "{eaten} of the {thing+} are eaten at once.",
                eaten=(3, 30),
            ),
            piece("in_all = x + brought", "{q} brings {brought} {thing+} more.", brought=(4, 30)),
        ),
        endings=(
            piece("x", "How many {thing+} are there now?", "How many {thing+} are left to eat?"),
            piece(
                "plates = x / per_plate",
                "{p} puts {per_plate} {thing+} on each plate. How many plates does {he} need?",
                per_plate=(2, 9),
            ),
            piece(
                "each = x / guests",
                "{guests} guests share them equally. How many {thing+} does each guest get?",
                "How many {thing+} does each of {guests} guests get if all get the same?",
                guests=(2, 12),
            ),
        ),
    ),
    Situation(
        "pizza party",
        words={"dish": ("pizza", "pie", "cake")},
        openings=(
            piece(
                "slices = dishes * cuts",
                "{p} orders {dishes} {dish+} and cuts each into {cuts} slices.",
                "Each {dish} is cut into {cuts} slices, and {p} has {dishes} {dish+}.",
                dishes=(2, 9),
                cuts=(4, 12),
            ),
        ),
        events=(
            piece(
                "eaten = guests * per_guest; rest = x - eaten",
                "{guests} guests eat {per_guest} slices each.",
                "Each of the {guests} guests has {per_guest} slices.",
                guests=(3, 12),
                per_guest=(2, 5),
            ),
            piece("kept = x - fallen", "{fallen} slices fall on the floor.", "The dog steals {fallen} slices.", fallen=(2, 8)),
            piece("more = x + bought", "{q} comes with another {bought} slices.", bought=(2, 16)),
        ),
        endings=(
            piece("x", "How many slices are left?", "How many slices of {dish} are there in the end?"),
            piece(
                "each = x / children", "{children} children share the slices equally. How many does each get?", children=(2, 8)
            ),
            piece("cost = x * price", "A slice costs {price} dollars. What do all these slices cost?", price=(2, 5)),
        ),
    ),
    Situation(
        "drinks",
        words={"drink": ("milk", "water", "juice", "tea")},
        openings=(
            piece(
                "filled = jugs * per_jug",
                "{p} fills {jugs} jugs with {per_jug} cups of {drink} each.",
                "A jug holds {per_jug} cups of {drink}. | {p} has {jugs} full jugs.",
                jugs=(2, 9),
                per_jug=(5, 20),
            ),
            piece("cups", "{p} has {cups} cups of {drink} in the kitchen.", cups=(20, 120)),
        ),
        events=(
            piece("dry = x - spilled", "{spilled} cups are spilled.", "{p} spills {spilled} cups.", spilled=(2, 12)),
            piece(
                "drunk = days * daily; rest = x - drunk",
                "For {days} days the family drinks {daily} cups a day.",
                "The family drinks {daily} cups every day for {days} days.",
                days=(2, 7),
                daily=(2, 8),
            ),
            piece("half = x / 2", "Half of it is given to {q}.", "{p} gives half of the {drink} away."),
        ),
        endings=(
            piece("x", "How many cups of {drink} does {p} have now?", "How many cups of {drink} are left?"),
            piece("days_left = x / per_day", "How many days does it last if {p} drinks {per_day} cups a day?", per_day=(2, 6)),
            piece(
                "missing = wanted - x",
                "{p} needs {wanted} cups for a party. How many cups are missing?",
                "How many more cups are needed to have {wanted} cups?",
                wanted=(40, 200),
            ),
        ),
    ),
    Situation(
        "eggs",
        words={"bird": ("hen", "duck", "goose/geese")},
        openings=(
            piece(
                "laid = birds * eggs",
                "{p} has {birds} {bird+}, and each lays {eggs} eggs a week.",
                "Each week a {bird} lays {eggs} eggs. | {p} keeps {birds} {bird+}.",
                birds=(4, 20),
                eggs=(3, 7),
            ),
            piece(
                "daily = birds * eggs; laid = daily * days",
                "Each of {p's} {birds} {bird+} lays {eggs} eggs a day, and {he} collects them for {days} days.",
                birds=(3, 12),
                eggs=(2, 3),
                days=(3, 9),
            ),
        ),
        events=(
            piece("whole = x - cracked", "{cracked} eggs crack.", "{p} drops {cracked} of the eggs.", cracked=(2, 12)),
            piece("uneaten = x - cooked", "The family cooks {cooked} eggs.", cooked=(3, 20)),
            piece("together = x + traded", "A neighbor gives {p} {traded} eggs more.", traded=(4, 30)),
        ),
        endings=(
            piece("x", "How many eggs does {p} have now?", "How many eggs are there in the end?"),
            piece(
                "cartons = x / per_carton",
                "{p} puts {per_carton} eggs in a carton. How many cartons does {he} fill?",
                "How many cartons of {per_carton} eggs does that make?",
                per_carton=(4, 12),
            ),
            piece(
                "money = x * cents", "{p} sells the eggs at {cents} cents each. How many cents does {he} get?", cents=(5, 30)
            ),
        ),
    ),
    Situation(
        "restaurant",
        openings=(
            piece(
                "seats = tables * chairs",
                "A restaurant has {tables} tables with {chairs} chairs each.",
                "There are {chairs} chairs at each of the {tables} tables of a restaurant.",
                tables=(5, 20),
                chairs=(2, 8),
            ),
            piece(
                "inside = tables * chairs; seats = inside + outside",
                "A restaurant has {tables} tables with {chairs} chairs each inside, and {outside} chairs outside.",
                tables=(4, 15),
                chairs=(2, 8),
                outside=(5, 30),
            ),
        ),
        events=(
            piece(
                "usable = x - broken", "{broken} chairs are broken.", "{broken} of the chairs cannot be used.", broken=(2, 10)
            ),
            piece("more = x + added", "The owner buys {added} more chairs.", added=(3, 20)),
            piece(
                "free = x - taken", "{taken} people come in and sit down.", "{taken} chairs are taken by guests.", taken=(5, 60)
            ),
        ),
        endings=(
            piece("x", "How many chairs are free now?", "How many people can still sit down?"),
            piece("short = group - x", "A group of {group} people arrives. How many of them find no chair?", group=(30, 160)),
            piece(
                "income = x * meal",
                "Each free chair is then taken by a guest who pays {meal} dollars. How much do they pay?",
                meal=(5, 20),
            ),
        ),
    ),
    Situation(
        "recipe",
        words={"thing": ("potato/potatoes", "carrot", "tomato/tomatoes", "onion")},
        openings=(
            piece(
                "needed = guests * per_guest",
                "{p} cooks soup for {guests} guests and needs {per_guest} {thing+} for each.",
                "A bowl of soup takes {per_guest} {thing+}. | {p} cooks {guests} bowls.",
                guests=(4, 20),
                per_guest=(2, 6),
            ),
            piece(
                "people = adults + kids; needed = people * per_guest",
                "{adults} adults and {kids} kids come to eat soup. {p} needs {per_guest} {thing+} for each of them.",
                adults=(3, 12),
                kids=(2, 12),
                per_guest=(2, 5),
            ),
        ),
        events=(
            piece("more = x + extra", "{he} wants {extra} {thing+} more to be safe.", extra=(2, 12)),
            piece("to_buy = x - have", "{have} of these {thing+} are already in the kitchen.", have=(3, 25)),
        ),
        endings=(
            piece("x", "How many {thing+} must {p} buy?", "How many {thing+} does {p} still have to get?"),
            piece(
                "bags = x / per_bag",
                "{p} buys them in bags of {per_bag}. How many bags are that?",
                "A bag has {per_bag} {thing+}. How many bags does {p} buy?",
                per_bag=(2, 10),
            ),
            piece(
                "cost = x * cents", "One costs {cents} cents. How many cents does {p} pay for what {he} buys?", cents=(5, 40)
            ),
        ),
    ),
)
