"""Situations about gardens, animals, roads and the sea."""

from __future__ import annotations

from reft_pl.data.stories.grammar import Situation, piece

OUTDOORS = (
    Situation(
        "garden",
        words={"plant": ("rose", "tulip", "bush/bushes", "tree", "bean")},
        openings=(
            piece(
                "planted = rows * per_row",
                "{p} plants {rows} rows of {per_row} {plant+}.",
                "There are {per_row} {plant+} in a row, and {p} has {rows} rows of them in {his} garden.",
                rows=(3, 15),
                per_row=(4, 25),
            ),
            piece(
                "planted = front + back",
                "{p} plants {front} {plant+} in front of the house and {back} behind it.",
                front=(10, 60),
                back=(10, 60),
            ),
        ),
        events=(
            piece("alive = x - dead", "{dead} {plant+} die in the cold.", "The cold kills {dead} {plant+}.", dead=(2, 20)),
            piece("more = x + new", "In spring {p} plants {new} more.", new=(5, 40)),
            piece("rest = x - dug", "{p} digs up {dug} {plant+} for {q}.", dug=(3, 25)),
        ),
        endings=(
            piece("x", "How many {plant+} grow in the garden now?", "How many {plant+} does {p} have in the end?"),
            piece(
                "water = x * liters",
                "Each {plant} needs {liters} liters of water. How many liters do they need together?",
                liters=(2, 6),
            ),
            piece(
                "beds = x / per_bed",
                "{p} moves them into beds of {per_bed} {plant+}. How many beds are there?",
                per_bed=(3, 12),
            ),
        ),
    ),
    Situation(
        "journey",
        words={"walk": ("walk", "ride", "march/marches")},
        openings=(
            piece(
                "distance = hours * speed",
                "{p} travels {hours} hours at {speed} kilometers an hour.",
                "At {speed} kilometers an hour {p} is on the road for {hours} hours.",
                hours=(2, 9),
                speed=(4, 60),
            ),
            piece(
                "second = first + longer; distance = first + second",
                "On the first day {p} travels {first} kilometers, and on the second day {longer} kilometers more than that.",
                first=(8, 60),
                longer=(3, 25),
            ),
            piece(
                "both_ways = way * 2; distance = both_ways * days",
                "It is {way} kilometers to work, and {p} drives there and back on {days} days.",
                "On {days} days {p} drives to work and back, which is {way} kilometers each way.",
                way=(3, 25),
                days=(2, 9),
            ),
        ),
        events=(
            piece("longer_way = x + detour", "A closed road adds {detour} kilometers.", detour=(3, 25)),
            piece("own_way = x - lift", "A truck carries {p} for {lift} of these kilometers.", lift=(3, 30)),
        ),
        endings=(
            piece("x", "How many kilometers is that in all?", "How far does {p} go by {his} own power?"),
            piece(
                "left = route - x",
                "The whole route is {route} kilometers long. How many kilometers are left?",
                "How many kilometers are missing to {route} kilometers?",
                route=(100, 500),
            ),
            piece(
                "fuel = x / per_liter",
                "One liter of fuel lasts {per_liter} kilometers. How many liters are used?",
                per_liter=(4, 20),
            ),
        ),
    ),
    Situation(
        "aquarium",
        words={"fish": ("goldfish/goldfish", "crab", "frog", "turtle", "snail")},
        openings=(
            piece(
                "animals = tanks * per_tank",
                "A pet shop has {tanks} tanks with {per_tank} {fish+} each.",
                "{per_tank} {fish+} swim in each of the {tanks} tanks of a pet shop.",
                tanks=(3, 12),
                per_tank=(4, 20),
            ),
            piece(
                "big = small * times; animals = small + big",
                "A small tank holds {small} {fish+}, and a big one holds {times} times as many.",
                small=(5, 25),
                times=(2, 5),
            ),
        ),
        events=(
            piece("remaining = x - sold", "{sold} {fish+} are sold.", "{p} takes {sold} {fish+} home.", sold=(3, 30)),
            piece("hatched = x + young", "{young} young {fish+} hatch.", young=(4, 40)),
            piece("healthy = x - sick", "{sick} {fish+} fall sick and are moved away.", sick=(2, 12)),
        ),
        endings=(
            piece("x", "How many {fish+} does the shop have now?", "How many {fish+} are in the tanks in the end?"),
            piece(
                "food = x * grams",
                "Each {fish} eats {grams} grams of food a day. How many grams do all eat a day?",
                grams=(2, 8),
            ),
            piece(
                "tanks_needed = x / size",
                "They are put into new tanks, {size} in each. How many new tanks are needed?",
                size=(3, 15),
            ),
        ),
    ),
    Situation(
        "herd",
        words={"animal": ("sheep/sheep", "goat", "cow", "pony/ponies", "pig")},
        openings=(
            piece(
                "herd = fields * per_field",
                "A farmer keeps {per_field} {animal+} in each of {fields} fields.",
                "On a farm there are {fields} fields, and {per_field} {animal+} are in each.",
                fields=(2, 9),
                per_field=(6, 30),
            ),
            piece("herd", "A farmer has {herd} {animal+}.", herd=(40, 200)),
        ),
        events=(
            piece(
                "after_sale = x - sold", "The farmer sells {sold} {animal+}.", "{sold} {animal+} go to market.", sold=(4, 50)
            ),
            piece("with_young = x + born", "{born} {animal+} are born.", "In spring {born} young ones are born.", born=(4, 40)),
            piece("at_home = x / 2", "Half of the {animal+} are given to a son."),
        ),
        endings=(
            piece("x", "How many {animal+} does the farmer have now?", "How many {animal+} are left on the farm?"),
            piece(
                "hay = x * kilos", "Each eats {kilos} kilos of hay. How many kilos do the {animal+} eat together?", kilos=(2, 9)
            ),
            piece(
                "trips = x / per_trip",
                "A truck carries {per_trip} {animal+} at a time. How many trips does it take for all?",
                per_trip=(3, 12),
            ),
        ),
    ),
    Situation(
        "beach",
        words={"thing": ("shell", "stone", "pebble", "feather")},
        openings=(
            piece(
                "found = days * daily",
                "{p} finds {daily} {thing+} on the beach on each of {days} days.",
                "For {days} days {p} picks up {daily} {thing+} a day.",
                days=(3, 12),
                daily=(4, 25),
            ),
            piece(
                "theirs = mine - fewer; found = mine + theirs",
                "{p} finds {mine} {thing+}. {q} finds {fewer} fewer than {p}. They put all in one bucket.",
                mine=(15, 60),
                fewer=(3, 14),
            ),
            piece(
                "theirs = mine * times; found = mine + theirs",
                "{p} finds {mine} {thing+} and {q} finds {times} times as many. They put all in one bucket.",
                mine=(6, 30),
                times=(2, 5),
            ),
        ),
        events=(
            piece(
                "rest = x - washed",
                "A wave takes {washed} {thing+} away.",
                "{washed} {thing+} fall back into the sea.",
                washed=(3, 25),
            ),
            piece("more = x + later", "Later {p} adds {later} {thing+}.", later=(4, 30)),
        ),
        endings=(
            piece("x", "How many {thing+} are there now?", "How many {thing+} is that in the end?"),
            piece(
                "each = x / friends",
                "{friends} friends get equal parts. How many {thing+} does each friend get?",
                friends=(2, 9),
            ),
            piece(
                "chains = x / per_chain", "A chain takes {per_chain} {thing+}. How many chains can be made?", per_chain=(3, 12)
            ),
        ),
    ),
    Situation(
        "train",
        words={"car": ("train", "bus/buses", "ferry/ferries")},
        openings=(
            piece(
                "riders = cars * per_car",
                "A {car} leaves with {cars} wagons and {per_car} people in each.",
                "{per_car} people sit in each of the {cars} wagons of a {car}.",
                cars=(2, 9),
                per_car=(8, 40),
            ),
            piece("riders", "There are {riders} people on a {car}.", riders=(30, 200)),
        ),
        events=(
            piece(
                "after_exit = x - off",
                "At the first stop {off} people get off.",
                "{off} people leave at the first stop.",
                off=(4, 40),
            ),
            piece(
                "after_entry = x + on",
                "At the next stop {on} people get on.",
                "{on} more people get on at the next stop.",
                on=(4, 40),
            ),
            piece("after_half = x / 2", "In the city half of the people get off."),
        ),
        endings=(
            piece("x", "How many people are on the {car} now?", "How many people does the {car} carry then?"),
            piece(
                "income = x * fare", "Each of those now on board pays {fare} dollars. How much do they pay in all?", fare=(2, 9)
            ),
            piece("free = places - x", "The {car} has room for {places} people. How many places are free?", places=(120, 400)),
        ),
    ),
    Situation(
        "fence",
        words={"board": ("board", "post", "brick", "tile")},
        openings=(
            piece(
                "needed = parts * per_part",
                "{p} builds {parts} parts of a wall with {per_part} {board+} each.",
                "Each part of a wall takes {per_part} {board+}, and {p} builds {parts} parts.",
                parts=(3, 12),
                per_part=(6, 30),
            ),
            piece(
                "girth = length + width; needed = girth * per_meter",
                "{p} paves a path of {length} meters and one of {width} meters with {per_meter} {board+} a meter.",
                length=(4, 20),
                width=(3, 12),
                per_meter=(2, 8),
            ),
        ),
        events=(
            piece("with_waste = x + spare", "{he} gets {spare} {board+} more as a reserve.", spare=(3, 20)),
            piece("to_get = x - found", "{found} of the {board+} needed come from an old house.", found=(4, 40)),
        ),
        endings=(
            piece("x", "How many {board+} does {p} have to buy?", "How many {board+} must be bought?"),
            piece(
                "cost = x * price", "A {board} costs {price} dollars. What does {p} pay for those that {he} buys?", price=(2, 9)
            ),
            piece(
                "loads = x / per_load",
                "{p} carries home {per_load} {board+} at a time. How often does {he} go?",
                per_load=(4, 15),
            ),
        ),
    ),
)
