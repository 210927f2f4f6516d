"""Train reports: a line, a cause, a delay that may be corrected, a replacement. Knows nothing about splits."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.data.toy.draw import Choose, Draw

CITIES = (
    "Berlin",
    "Hamburg",
    "Munich",
    "Cologne",
    "Leipzig",
    "Dresden",
    "Bremen",
    "Kassel",
    "Vienna",
    "Zurich",
    "Prague",
    "Basel",
    "Bonn",
    "Mainz",
    "Ulm",
    "Kiel",
)
CAUSES = {
    "a signal failure": "signals have stopped working",
    "a fallen tree": "a tree has come down on the track",
    "a broken rail": "a rail has cracked",
    "a strike": "drivers have stopped work",
    "a power cut": "the overhead line has lost its current",
    "flooding": "water is standing on the track",
    "a landslide": "earth has slipped onto the track",
    "animals on the line": "cows have been seen beside the track",
    "a technical fault": "an engine has broken down",
    "snow": "the points are frozen",
}
HELP = ("buses", "taxis", "trams", "regional trains")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ASIDES = (
    "The restaurant car is closed.",
    "Tickets remain valid.",
    "Coffee is served free of charge at the stations.",
    "The line was built a hundred years ago.",
    "Staff in red jackets can help.",
    "Bicycles cannot be taken along.",
    "A spokeswoman asked for patience.",
    "The next timetable starts in December.",
)


@dataclass(frozen=True)
class Trains:
    start: str
    end: str
    cause: str
    place: str
    minutes: int  # of delay; 0 if the trains are cancelled
    first_guess: int  # an earlier estimate that the report corrects, 0 for none
    help: str
    until: str

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The word pairs that decide the split."""
        return ((self.start, self.end), (self.cause, self.end))

    def sentences(self, draw: Draw) -> list[str]:
        """The report. A first guess of the delay stands before the right one."""
        lines = [
            draw.pick(
                ("Travellers from {} to {} need patience.", "There is trouble on the line from {} to {}.")
            ).format(self.start, self.end),
            draw.pick(("Near {}, {}.", "Close to {}, {}.")).format(self.place, CAUSES[self.cause]),
        ]
        if self.first_guess:
            lines.append(f"At first a delay of {self.first_guess} minutes was announced.")
        if self.minutes:
            later = "Now trains" if self.first_guess else "Trains"
            lines.append(
                draw.pick(("{} arrive {} minutes late.", "{} run {} minutes behind time.")).format(later, self.minutes)
            )
        else:
            lines.append(draw.pick(("No trains run at all.", "All trains have been taken out of service.")))
        lines.append(draw.pick(("{} take passengers onwards.", "Instead, {} are in use.")).format(self.help))
        lines.append(f"The work is to end on {self.until}.")
        for _ in range(2):
            if len(lines) < 8 and draw.chance(0.4):
                aside = draw.pick(ASIDES)
                if aside not in lines:
                    lines.insert(1 + draw.below(len(lines)), aside)
        return [line[0].upper() + line[1:] for line in lines]

    def summary(self, choose: Choose) -> str:
        """What happens on which line, why, until when."""
        line = choose(f"between {self.start} and {self.end}", f"from {self.start} to {self.end}")
        what = f"delayed by {self.minutes} minutes" if self.minutes else choose("cancelled", "not running")
        why = choose("because of", "due to")
        return f"Trains {line} are {what} until {self.until} {why} {self.cause}, with {self.help} as a replacement."


def draw_facts(draw: Draw) -> Trains:
    """A disturbance on a line between two cities."""
    start = draw.pick(CITIES)
    end = draw.pick([city for city in CITIES if city != start])
    place = draw.pick([city for city in CITIES if city not in (start, end)])
    minutes = 5 * (1 + draw.below(24)) if draw.chance(0.75) else 0
    first_guess = 5 * (1 + draw.below(24)) if minutes and draw.chance(0.4) else 0
    first_guess = 0 if first_guess == minutes else first_guess
    cause = draw.pick(tuple(CAUSES))
    return Trains(start, end, cause, place, minutes, first_guess, draw.pick(HELP), draw.pick(DAYS))
