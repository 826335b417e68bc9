"""Situations of the ``unseen`` split only: familiar words and sentences in stories that never occur in training.

Each piece has a single wording, so the language of this split is less varied than that of the others.
"""

from __future__ import annotations

from reft_pl.data.stories.grammar import Situation, piece

UNSEEN = (
    Situation(
        "car park",
        openings=(
            piece(
                "cars = rows * per_row",
                "There are {rows} rows of {per_row} trucks on a farm.",
                rows=(3, 12),
                per_row=(5, 20),
            ),
            piece("cars", "A farm has {cars} trucks.", cars=(40, 150)),
        ),
        events=(
            piece("after_exit = x - left", "In the morning {left} trucks leave.", left=(5, 40)),
            piece("after_entry = x + came", "At noon {came} trucks arrive.", came=(5, 40)),
            piece("after_half = x / 2", "Half of the trucks are sold."),
        ),
        endings=(
            piece("x", "How many trucks are there now?"),
            piece("income = x * fee", "Each truck there then pays {fee} dollars. How much money is that?", fee=(2, 9)),
            piece("rows_left = x / size", "How many rows of {size} trucks does that make?", size=(3, 12)),
        ),
    ),
    Situation(
        "candles",
        openings=(
            piece(
                "made = days * daily",
                "{p} makes {daily} candles a day for {days} days.",
                days=(3, 12),
                daily=(5, 25),
            ),
            piece(
                "kept = daily - burnt; made = kept * days",
                "Every day {p} makes {daily} candles and burns {burnt} of them. {he} does so for {days} days.",
                daily=(10, 30),
                burnt=(2, 9),
                days=(3, 9),
            ),
        ),
        events=(
            piece("whole = x - broken", "{broken} candles are broken.", broken=(2, 15)),
            piece("doubled = x * 2", "Then {q} brings as many candles again."),
        ),
        endings=(
            piece("x", "How many candles are there in the end?"),
            piece("boxes = x / per_box", "A box holds {per_box} candles. How many boxes does {p} fill?", per_box=(3, 12)),
            piece(
                "money = x * price",
                "{p} sells all of them at {price} dollars each. How much money does {he} get?",
                price=(2, 8),
            ),
        ),
    ),
    Situation(
        "hikers",
        openings=(
            piece(
                "people = groups * size",
                "{groups} groups of {size} people walk to a lake.",
                groups=(2, 8),
                size=(4, 15),
            ),
            piece(
                "present = people - ill",
                "{people} people want to walk to a lake, but {ill} of them stay at home.",
                people=(20, 60),
                ill=(3, 15),
            ),
        ),
        events=(piece("more = x + joined", "On the road {joined} more join them.", joined=(3, 15)),),
        endings=(
            piece("water = x * cups", "Each drinks {cups} cups of water. How many cups of water do they need?", cups=(2, 6)),
            piece(
                "food = x * slices; left = brought - food",
                "Each eats {slices} slices of the {brought} slices of cake that {p} has. How many slices are left?",
                slices=(2, 4),
                brought=(90, 300),
            ),
            piece(
                "tents = x / per_tent", "A tent has space for {per_tent} people. How many tents are needed?", per_tent=(2, 6)
            ),
        ),
    ),
    Situation(
        "tower",
        words={"thing": ("brick", "stone", "box/boxes")},
        openings=(
            piece(
                "used = layers * per_layer",
                "{p} builds a wall of {layers} rows with {per_layer} {thing+} in each row.",
                layers=(4, 15),
                per_layer=(3, 15),
            ),
            piece(
                "second = first - less; used = first + second",
                "{p} builds a wall of {first} {thing+}. {q} builds one with {less} {thing+} less. They put the two together.",
                first=(20, 60),
                less=(4, 18),
            ),
        ),
        events=(
            piece("rest = x - fallen", "{fallen} {thing+} fall on the floor.", fallen=(3, 20)),
            piece("half = x / 2", "Half of the wall falls down."),
        ),
        endings=(
            piece("x", "How many {thing+} are in the wall now?"),
            piece("left = total - x", "{p} had {total} {thing+}. How many of them are not in the wall?", total=(100, 300)),
            piece("weight = x * kilos", "A {thing} is {kilos} kilos. How many kilos is the wall?", kilos=(2, 6)),
        ),
    ),
    Situation(
        "letters",
        words={"thing": ("letter", "card", "stamp")},
        openings=(
            piece(
                "written = people * per_person",
                "{people} pupils write {per_person} {thing+} each.",
                people=(4, 20),
                per_person=(2, 9),
            ),
            piece(
                "theirs = own * times; written = theirs - own",
                "{p} has {own} {thing+} and {q} has {times} times as many. {q} hands {p} as many {thing+} as {p} has, and "
                "the others go to a class.",
                own=(6, 30),
                times=(3, 6),
            ),
        ),
        events=(
            piece("sent = x - lost", "{lost} {thing+} get lost on the road.", lost=(2, 12)),
            piece("more = x + new", "The teacher adds {new} {thing+}.", new=(3, 20)),
        ),
        endings=(
            piece("x", "How many {thing+} are there in the end?"),
            piece(
                "each = x / classes",
                "{classes} classes get equal parts of the {thing+}. How many does each class get?",
                classes=(2, 6),
            ),
            piece(
                "cost = x * cents; change = note - cost",
                "Each of them costs {cents} cents. How many cents are left of {note} cents?",
                cents=(2, 9),
                note=(200, 900),
            ),
        ),
    ),
    Situation(
        "printing",
        openings=(
            piece(
                "printed = hours * pages",
                "A shop makes {pages} pages of a book an hour for {hours} hours.",
                hours=(2, 12),
                pages=(10, 60),
            ),
            piece("printed", "A shop has {printed} pages.", printed=(80, 400)),
        ),
        events=(
            piece("good = x - bad", "{bad} pages cannot be sold and are thrown away.", bad=(3, 30)),
            piece(
                "shared = x / shops",
                "The pages are split equally between {shops} shops. {p} has one of these shops.",
                shops=(2, 6),
            ),
        ),
        endings=(
            piece("x", "How many pages does the shop have then?"),
            piece(
                "books = x / per_book",
                "A book has {per_book} pages. How many books does the shop make of them?",
                per_book=(5, 30),
            ),
            piece("money = x * cents", "A page costs {cents} cents. How many cents are all the pages worth?", cents=(2, 9)),
        ),
    ),
)
