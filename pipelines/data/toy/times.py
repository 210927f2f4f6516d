"""Times: adverbs, clock times, week days, dates and numbers in both languages.

Knows calendars and clocks; knows nothing about clauses.
"""

from __future__ import annotations

from pipelines.data.toy.draw import Draw
from pipelines.data.toy.phrases import NUMBERS, Adverbial

HOURS = {"ein": "one", **NUMBERS}
DAYS = {
    "Montag": "Monday",
    "Dienstag": "Tuesday",
    "Mittwoch": "Wednesday",
    "Donnerstag": "Thursday",
    "Freitag": "Friday",
    "Samstag": "Saturday",
    "Sonntag": "Sunday",
}
MONTHS = {
    "Januar": "January",
    "Februar": "February",
    "März": "March",
    "April": "April",
    "Mai": "May",
    "Juni": "June",
    "Juli": "July",
    "August": "August",
    "September": "September",
    "Oktober": "October",
    "November": "November",
    "Dezember": "December",
}
UNITS = {"Tagen": "days", "Wochen": "weeks", "Monaten": "months", "Jahren": "years", "Stunden": "hours"}
TENS = {"zwanzig": "twenty", "dreißig": "thirty", "vierzig": "forty", "fünfzig": "fifty"}
FIXED = (
    Adverbial("heute", ("today",)),
    Adverbial("heute Abend", ("tonight", "this evening"), "future"),
    Adverbial("heute Morgen", ("this morning",), "past"),
    Adverbial("gestern", ("yesterday",), "past"),
    Adverbial("gestern Abend", ("last night", "yesterday evening"), "past"),
    Adverbial("vorgestern", ("the day before yesterday",), "past"),
    Adverbial("letzte Woche", ("last week",), "past"),
    Adverbial("letztes Jahr", ("last year",), "past"),
    Adverbial("jetzt", ("now",), "now"),
    Adverbial("gerade", ("at the moment", "right now"), "now"),
    Adverbial("morgen", ("tomorrow",), "future"),
    Adverbial("morgen früh", ("tomorrow morning",), "future"),
    Adverbial("übermorgen", ("the day after tomorrow",), "future"),
    Adverbial("nächste Woche", ("next week",), "future"),
    Adverbial("bald", ("soon",), "future"),
    Adverbial("jeden Tag", ("every day",), "present"),
    Adverbial("jeden Abend", ("every evening",), "present"),
    Adverbial("am Morgen", ("in the morning",)),
    Adverbial("am Abend", ("in the evening",)),
    Adverbial("in der Nacht", ("at night",)),
    Adverbial("am Wochenende", ("at the weekend", "on the weekend")),
    Adverbial("im Sommer", ("in summer", "in the summer")),
    Adverbial("im Winter", ("in winter", "in the winter")),
)


def number(value: int) -> tuple[str, str]:
    """A number from 2 to 59 in words: 23 is dreiundzwanzig, twenty-three (the digits change places)."""
    hours = list(HOURS.items())
    if value <= 12:
        return hours[value - 1]
    if value < 20:
        teens = ["dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn"]
        names = ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
        return teens[value - 13], names[value - 13]
    ten, tens = list(TENS.items())[value // 10 - 2]
    if value % 10 == 0:
        return ten, tens
    unit, one = hours[value % 10 - 1]
    return f"{unit}und{ten}", f"{tens}-{one}"


def draw_time(draw: Draw) -> Adverbial:
    """A time: half of them fixed adverbs, the rest built from numbers and names."""
    if draw.chance(0.5):
        return draw.pick(FIXED)
    return draw.pick((_clock, _day, _date, _ago, _month))(draw)


def _clock(draw: Draw) -> Adverbial:
    hours = list(HOURS.items())
    hour = draw.below(12)
    word, name = hours[hour]
    kind = draw.pick(("full", "half", "after", "before"))
    if kind == "full":
        return Adverbial(f"um {word} Uhr", (f"at {name} o'clock",))
    word = "eins" if word == "ein" else word
    if kind == "half":  # halb neun is half past eight
        return Adverbial(f"um halb {word}", (f"at half past {hours[hour - 1][1]}",))
    if kind == "after":
        return Adverbial(f"um Viertel nach {word}", (f"at a quarter past {name}",))
    return Adverbial(f"um Viertel vor {word}", (f"at a quarter to {name}",))


def _day(draw: Draw) -> Adverbial:
    day, name = draw.pick(list(DAYS.items()))
    kind = draw.pick(("am", "letzten", "nächsten", "jeden"))
    if kind == "am":
        return Adverbial(f"am {day}", (f"on {name}",))
    if kind == "letzten":
        return Adverbial(f"letzten {day}", (f"last {name}",), "past")
    if kind == "nächsten":
        return Adverbial(f"nächsten {day}", (f"next {name}",), "future")
    return Adverbial(f"jeden {day}", (f"every {name}",), "present")


def _date(draw: Draw) -> Adverbial:
    month, name = draw.pick(list(MONTHS.items()))
    day = draw.below(28) + 1
    return Adverbial(f"am {day}. {month}", (f"on {day} {name}", f"on {name} {day}"))


def _ago(draw: Draw) -> Adverbial:
    word, name = number(draw.below(58) + 2)
    unit, units = draw.pick(list(UNITS.items()))
    return Adverbial(f"vor {word} {unit}", (f"{name} {units} ago",), "past")


def _month(draw: Draw) -> Adverbial:
    month, name = draw.pick(list(MONTHS.items()))
    if draw.chance(0.5):
        return Adverbial(f"im {month}", (f"in {name}",))
    year = 1950 + draw.below(70)
    return Adverbial(f"im {month} {year}", (f"in {name} {year}",), "past")
