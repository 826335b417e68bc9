"""Situations about buying, selling, saving and earning."""

from __future__ import annotations

from reft_pl.data.stories.grammar import Situation, piece

MARKET = (
    Situation(
        "fruit stand",
        words={"thing": ("apple", "pear", "lemon", "mango/mangoes", "peach/peaches"), "box": ("crate", "box/boxes", "basket")},
        openings=(
            piece(
                "delivered = boxes * per_box",
                "{p} gets {boxes} {box+} of {thing+} for {his} stand. | Each {box} holds {per_box} {thing+}.",
                "There are {per_box} {thing+} in a {box}, and {p} puts {boxes} {box+} on {his} stand.",
                boxes=(3, 12),
                per_box=(8, 30),
            ),
            piece("stock", "{p} starts the day with {stock} {thing+} on {his} stand.", stock=(40, 200)),
        ),
        events=(
            piece(
                "unsold = x - sold",
                "{p} sells {sold} {thing+} in the morning.",
                "In the morning people buy {sold} {thing+}.",
                sold=(5, 80),
            ),
            piece("good = x - rotten", "{rotten} of the {thing+} turn out to be rotten and are thrown away.", rotten=(2, 20)),
            piece("more = x + extra", "At noon a farmer brings {extra} further {thing+}.", extra=(6, 60)),
        ),
        endings=(
            piece("x", "How many {thing+} are on the stand now?", "How many {thing+} does {p} have on {his} stand then?"),
            piece(
                "bags = x / per_bag",
                "{p} packs all {thing+} on the stand in bags of {per_bag}. How many bags does {he} fill?",
                "How many bags can {p} fill if {per_bag} {thing+} go in a bag?",
                per_bag=(2, 12),
            ),
            piece(
                "money = x * price",
                "All that is there is then sold at {price} dollars a {thing}. How much money does {p} take?",
                "How many dollars are the {thing+} on the stand worth at {price} dollars each?",
                price=(2, 6),
            ),
        ),
    ),
    Situation(
        "shop bill",
        words={
            "thing": ("pen", "ruler", "comb", "candle", "mug", "towel"),
            "other": ("shirt", "scarf/scarves", "lamp", "bowl", "belt", "map"),
        },
        openings=(
            piece(
                "first = count * price; second = others * other_price; bill = first + second",
                "{p} buys {count} {thing+} for {price} dollars each. | {he} also takes {others} {other+} that cost "
                "{other_price} dollars each.",
                "A {thing} costs {price} dollars and a {other} costs {other_price} dollars. {p} buys {count} {thing+} and "
                "{others} {other+}.",
                "A {thing} costs {price} dollars and a {other} costs {other_price} dollars. {p} takes {others} {other+} and "
                "{count} {thing+}.",
                count=(2, 9),
                price=(2, 12),
                others=(2, 6),
                other_price=(5, 25),
            ),
            piece(
                "bill = count * price",
                "{p} buys {count} {thing+} at {price} dollars each.",
                "The price of a {thing} is {price} dollars, and {p} wants {count} of them.",
                count=(2, 12),
                price=(2, 15),
            ),
            piece(
                "bill = one + other_one",
                "{p} picks a {other} for {other_one} dollars and a {thing} for {one} dollars.",
                one=(3, 30),
                other_one=(10, 60),
            ),
        ),
        events=(
            piece(
                "reduced = x - off",
                "{p} has a coupon that takes {off} dollars off the bill.",
                "The seller lowers the bill by {off} dollars.",
                off=(2, 15),
            ),
            piece(
                "delivered = x + fee", "Delivery costs {fee} dollars more.", "{p} adds {fee} dollars for delivery.", fee=(3, 12)
            ),
        ),
        endings=(
            piece("x", "How much does {p} pay in all?", "What is the bill in dollars?"),
            piece(
                "change = note - x",
                "{p} pays with {note} dollars. How much change does {he} get?",
                "How many dollars are left of the {note} dollars that {p} brought?",
                note=(50, 200),
            ),
            piece(
                "share = x / payers",
                "The bill is split equally between {payers} friends. How many dollars does each pay?",
                "{payers} friends pay equal parts of it. How much is one part?",
                payers=(2, 6),
            ),
        ),
    ),
    Situation(
        "savings",
        words={"goal": ("bike", "tent", "guitar", "watch/watches", "camera")},
        openings=(
            piece(
                "saved = weeks * weekly",
                "{p} saves {weekly} dollars a week for {weeks} weeks.",
                "For {weeks} weeks {p} puts {weekly} dollars into a jar every week.",
                weeks=(3, 20),
                weekly=(3, 25),
            ),
            piece(
                "kept = income - costs; saved = kept * months",
                "Every month {p} gets {income} dollars and spends {costs} of them. | {he} does so for {months} months.",
                "{p} earns {income} dollars a month, and {costs} dollars of that are spent. {he} keeps the rest for {months} "
                "months.",
                income=(30, 90),
                costs=(10, 60),
                months=(2, 12),
            ),
            piece("savings", "{p} has {savings} dollars in a jar.", savings=(20, 150)),
        ),
        events=(
            piece("richer = x + gift", "An aunt gives {p} {gift} dollars.", "{p} gets {gift} dollars as a gift.", gift=(5, 50)),
            piece("rest = x - spent", "{p} spends {spent} dollars on a present.", spent=(5, 60)),
            piece("doubled = x * 2", "{p's} father then doubles the money."),
        ),
        endings=(
            piece("x", "How many dollars does {p} have now?", "How much money is that?"),
            piece(
                "missing = price - x",
                "A {goal} costs {price} dollars. How many more dollars does {p} need?",
                "How much is {p} short of the {price} dollars that a {goal} costs?",
                price=(80, 600),
            ),
            piece(
                "each = x / children",
                "{p} shares the money equally among {children} children. How much does each get?",
                children=(2, 8),
            ),
        ),
    ),
    Situation(
        "juice stall",
        words={"drink": ("lemonade", "tea", "juice", "cocoa")},
        openings=(
            piece(
                "income = cups * price",
                "{p} sells {cups} cups of {drink} for {price} dollars each.",
                "A cup of {drink} costs {price} dollars, and {p} sells {cups} cups.",
                cups=(10, 60),
                price=(2, 5),
            ),
            piece(
                "cups = morning + evening; income = cups * price",
                "{p} sells {morning} cups of {drink} in the morning and {evening} cups in the evening. | A cup costs {price} "
                "dollars.",
                morning=(8, 40),
                evening=(8, 40),
                price=(2, 5),
            ),
        ),
        events=(
            piece(
                "profit = x - costs",
                "Sugar and cups cost {p} {costs} dollars.",
                "{p} has to pay {costs} dollars for sugar and cups.",
                costs=(5, 40),
            ),
            piece("with_tips = x + tips", "People leave {tips} dollars in tips.", tips=(3, 25)),
        ),
        endings=(
            piece("x", "How many dollars does {p} make?", "How much money does the stall bring {p}?"),
            piece(
                "share = x / helpers",
                "The money is shared equally by {helpers} helpers. How many dollars does each one get?",
                "If {helpers} helpers divide the money equally, how much does each one take?",
                helpers=(2, 6),
            ),
            piece(
                "ahead = x - rival",
                "{q} makes {rival} dollars. How many dollars more does {p} make than {q}?",
                rival=(10, 90),
            ),
        ),
    ),
    Situation(
        "wages",
        words={"job": ("gardener", "painter", "driver", "waiter", "tutor")},
        openings=(
            piece(
                "pay = hours * rate",
                "{p} works {hours} hours as a {job} for {rate} dollars an hour.",
                "As a {job} {p} earns {rate} dollars an hour. | {he} works {hours} hours.",
                hours=(4, 40),
                rate=(8, 30),
            ),
            piece(
                "hours = days * daily; pay = hours * rate",
                "{p} works {daily} hours a day as a {job} and is paid {rate} dollars an hour. | {he} works on {days} days.",
                days=(2, 6),
                daily=(3, 9),
                rate=(8, 25),
            ),
        ),
        events=(
            piece("with_bonus = x + bonus", "{p} is given a bonus of {bonus} dollars.", bonus=(10, 80)),
            piece(
                "after_tax = x - tax",
                "{tax} dollars of the pay go to taxes.",
                "{p} has to give up {tax} dollars in taxes.",
                tax=(10, 90),
            ),
        ),
        endings=(
            piece("x", "How many dollars does {p} take home?", "What does {p} earn in all?"),
            piece("week = x / weeks", "This lasts {p} {weeks} weeks. How many dollars is that a week?", weeks=(2, 6)),
            piece(
                "behind = other - x",
                "{q} earns {other} dollars. How many dollars less does {p} earn than {q}?",
                "How much more than {p} does {q} earn, who gets {other} dollars?",
                other=(200, 900),
            ),
        ),
    ),
    Situation(
        "warehouse",
        words={"thing": ("lamp", "radio", "kettle", "drill", "fan")},
        openings=(
            piece(
                "stored = shelves * per_shelf",
                "A store has {shelves} shelves with {per_shelf} {thing+} on each.",
                "{per_shelf} {thing+} stand on every one of the {shelves} shelves in a store.",
                shelves=(4, 20),
                per_shelf=(5, 25),
            ),
            piece("stock", "A store keeps {stock} {thing+}.", stock=(60, 300)),
        ),
        events=(
            piece(
                "shipped = trucks * load; rest = x - shipped",
                "{trucks} trucks take away {load} {thing+} each.",
                "{load} {thing+} are loaded on each of {trucks} trucks and leave.",
                trucks=(2, 6),
                load=(4, 20),
            ),
            piece(
                "refilled = x + arrived", "{arrived} new {thing+} arrive.", "Then {arrived} {thing+} come in.", arrived=(10, 60)
            ),
            piece("working = x - broken", "{broken} {thing+} are broken and go back.", broken=(2, 15)),
        ),
        endings=(
            piece("x", "How many {thing+} are in the store now?", "How many {thing+} does the store have then?"),
            piece(
                "room = space - x", "The store has space for {space} {thing+}. How many more would fit in?", space=(200, 700)
            ),
            piece(
                "each = x / shops",
                "The {thing+} go to {shops} shops in equal numbers. How many does each shop get?",
                shops=(2, 8),
            ),
        ),
    ),
)
