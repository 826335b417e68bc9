"""Situations about school, play and collections."""

from __future__ import annotations

from reft_pl.data.stories.grammar import Situation, piece

SCHOOL = (
    Situation(
        "class supplies",
        words={"thing": ("pencil", "crayon", "brush/brushes", "eraser", "notebook"), "box": ("box/boxes", "pack", "case")},
        openings=(
            piece(
                "bought = boxes * per_box",
                "A teacher buys {boxes} {box+} of {thing+}. | There are {per_box} {thing+} in a {box}.",
                "A {box} holds {per_box} {thing+}, and a teacher orders {boxes} {box+}.",
                boxes=(3, 12),
                per_box=(6, 24),
            ),
            piece(
                "drawers = new + old",
                "A class has {old} old {thing+} and {new} new ones.",
                "There are {new} new {thing+} and {old} old ones in class.",
                old=(8, 50),
                new=(8, 50),
            ),
        ),
        events=(
            piece("remaining = x - lost", "The class loses {lost} {thing+}.", "{lost} {thing+} get lost.", lost=(2, 15)),
            piece(
                "handed = pupils * per_pupil; rest = x - handed",
                "Each of {pupils} pupils is handed {per_pupil} {thing+} to keep.",
                "The teacher hands {per_pupil} {thing+} to each of {pupils} pupils.",
                pupils=(5, 20),
                per_pupil=(2, 4),
            ),
            piece("in_all = x + donated", "Parents donate {donated} {thing+}.", donated=(5, 40)),
        ),
        endings=(
            piece("x", "How many {thing+} does the class have now?", "How many {thing+} are left for the class?"),
            piece(
                "each = x / groups",
                "They are dealt out equally to {groups} groups. How many {thing+} does a group get?",
                groups=(2, 8),
            ),
            piece("missing = wanted - x", "The class needs {wanted} {thing+}. How many are missing?", wanted=(60, 250)),
        ),
    ),
    Situation(
        "collections",
        words={"thing": ("marble", "sticker", "coin", "stamp", "card")},
        openings=(
            piece("own", "{p} has {own} {thing+}.", "There are {own} {thing+} in {p's} collection.", own=(15, 90)),
            piece(
                "before = now + given",
                "After giving {given} {thing+} to a cousin, {p} was left with {now}. Then {he} got the {given} {thing+} back.",
                given=(5, 30),
                now=(10, 60),
            ),
            piece(
                "own = theirs - fewer",
                "{q} has {theirs} {thing+}. {p} has {fewer} {thing+} fewer than {q}.",
                "{p} has {fewer} {thing+} fewer than {q}, who has {theirs}.",
                theirs=(30, 90),
                fewer=(5, 25),
            ),
        ),
        events=(
            piece("after_game = x + won", "{p} wins {won} {thing+} in a game.", won=(4, 30)),
            piece(
                "after_loss = x - lost",
                "{p} loses {lost} {thing+} in a game.",
                "{lost} of {p's} {thing+} get lost.",
                lost=(3, 25),
            ),
            piece("tripled = x * 3", "In a year the collection grows to three times its size."),
        ),
        endings=(
            piece(
                "friend = x + more; together = x + friend",
                "{q} then has {more} {thing+} more than {p}. How many {thing+} do the two have together?",
                more=(3, 30),
            ),
            piece(
                "friend = x * times; together = x + friend",
                "{q} then has {times} times as many {thing+} as {p}. How many do both have together?",
                times=(2, 5),
            ),
            piece(
                "pages = x / per_page",
                "{p} puts {per_page} {thing+} on each page of an album. How many pages does {he} fill?",
                per_page=(3, 12),
            ),
            piece("x", "How many {thing+} does {p} have now?"),
        ),
    ),
    Situation(
        "reading",
        words={"text": ("book", "novel", "comic")},
        openings=(
            piece(
                "read = days * daily",
                "{p} reads {daily} pages of a {text} a day for {days} days.",
                "For {days} days {p} reads {daily} pages of a {text} every day.",
                days=(3, 14),
                daily=(5, 30),
            ),
            piece(
                "second = first * 2; read = first + second",
                "On Monday {p} reads {first} pages of a {text}, and on Tuesday twice as many.",
                first=(10, 50),
            ),
            piece(
                "second = first - less; read = first + second",
                "On Monday {p} reads {first} pages of a {text}, and on Tuesday {less} pages less.",
                first=(20, 60),
                less=(4, 18),
            ),
        ),
        events=(
            piece("further = x + evening", "Then {he} reads {evening} further pages in bed.", evening=(5, 40)),
            piece("counted = x - skipped", "But {skipped} of these pages {p} only skipped.", skipped=(2, 15)),
        ),
        endings=(
            piece("x", "How many pages has {p} read?", "How many pages is that in all?"),
            piece(
                "left = pages - x",
                "The {text} has {pages} pages. How many pages are left to read?",
                "How many of the {pages} pages of the {text} has {p} not read yet?",
                pages=(120, 400),
            ),
            piece(
                "hours = x / per_hour", "{p} reads {per_hour} pages an hour. How many hours does {he} read?", per_hour=(5, 30)
            ),
        ),
    ),
    Situation(
        "school trip",
        words={"place": ("zoo", "museum", "castle", "lake")},
        openings=(
            piece(
                "pupils = classes * size",
                "{classes} classes of {size} pupils go to the {place}.",
                "There are {size} pupils in a class, and {classes} classes visit the {place}.",
                classes=(2, 8),
                size=(15, 30),
            ),
            piece("pupils = boys + girls", "{boys} boys and {girls} girls go to the {place}.", boys=(20, 70), girls=(20, 70)),
        ),
        events=(
            piece("present = x - ill", "{ill} pupils are ill and stay at home.", "{ill} of them cannot come.", ill=(2, 12)),
            piece("with_adults = x + adults", "{adults} adults come along.", "{adults} teachers join them.", adults=(3, 15)),
        ),
        endings=(
            piece("x", "How many people are on the trip?", "How many people visit the {place}?"),
            piece(
                "buses = x / per_bus",
                "A bus takes {per_bus} people. How many buses do they fill?",
                "How many buses with {per_bus} people each are needed?",
                per_bus=(8, 50),
            ),
            piece("price = x * ticket", "A ticket costs {ticket} dollars. How much do all the tickets cost?", ticket=(2, 9)),
            piece(
                "each = cost / x",
                "The bus costs {cost} dollars, which all share equally. How much does each one pay?",
                cost=(100, 900),
            ),
        ),
    ),
    Situation(
        "quiz",
        openings=(
            piece(
                "points = right * worth",
                "{p} answers {right} questions of a quiz, and each gives {worth} points.",
                "In a quiz a right answer is worth {worth} points. | {p} gives {right} right answers.",
                right=(5, 25),
                worth=(2, 9),
            ),
            piece(
                "easy_points = easy * small; hard_points = hard * big; points = easy_points + hard_points",
                "In a quiz {p} solves {easy} easy questions for {small} points each and {hard} hard ones for {big} each.",
                "In a quiz easy questions give {small} points and hard ones give {big}. {p} solves {hard} hard questions and "
                "{easy} easy ones.",
                easy=(4, 15),
                small=(2, 4),
                hard=(2, 9),
                big=(5, 12),
            ),
        ),
        events=(
            piece(
                "fined = wrong * penalty; after_fine = x - fined",
                "{p} loses {penalty} points for each of {wrong} wrong answers.",
                "{wrong} answers are wrong, and each of them costs {penalty} points.",
                wrong=(2, 8),
                penalty=(2, 4),
            ),
            piece("with_bonus = x + bonus", "{p} gets {bonus} extra points for speed.", bonus=(3, 20)),
        ),
        endings=(
            piece("x", "How many points does {p} have?", "What is {p's} score?"),
            piece("gap = record - x", "The record is {record} points. How many points is {p} below it?", record=(80, 250)),
            piece("lead = x - rival", "{q} has {rival} points. By how many points does {p} beat {q}?", rival=(10, 80)),
            piece("average = x / rounds", "There are {rounds} rounds. How many points a round is that?", rounds=(2, 8)),
        ),
    ),
    Situation(
        "theater",
        words={"hall": ("theater", "cinema", "circus/circuses")},
        openings=(
            piece(
                "seats = rows * per_row",
                "A {hall} has {rows} rows of {per_row} seats.",
                "In each of the {rows} rows of a {hall} there are {per_row} seats.",
                rows=(5, 25),
                per_row=(8, 25),
            ),
            piece("seats", "A {hall} has {seats} seats.", seats=(80, 400)),
        ),
        events=(
            piece("empty = x - sold", "{sold} seats are sold.", "People have bought {sold} of the seats.", sold=(20, 200)),
            piece("open = x - closed", "{closed} seats cannot be sold.", closed=(4, 30)),
            piece("bigger = x + added", "{added} seats are added at the back.", added=(6, 50)),
        ),
        endings=(
            piece("x", "How many seats can still be sold?", "How many seats are free?"),
            piece(
                "money = x * price",
                "All seats still free are then sold for {price} dollars each. How much money is that?",
                price=(3, 12),
            ),
            piece("groups = x / size", "How many groups of {size} people can sit on the free seats?", size=(3, 12)),
        ),
    ),
)
