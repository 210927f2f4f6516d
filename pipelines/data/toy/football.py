"""Football reports: goals in the order of the game, the score left to be counted. Knows nothing about splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pipelines.data.toy.draw import Choose, Draw

TEAMS = (
    "Rovers",
    "United",
    "Wanderers",
    "Athletic",
    "Olympia",
    "Viktoria",
    "Dynamo",
    "Sporting",
    "Albion",
    "Racing",
    "Fortuna",
    "Eintracht",
    "Rangers",
    "Borussia",
    "Hansa",
    "Celtic",
    "Rapid",
    "Lokomotiv",
    "Corinthians",
    "Arminia",
)
PLAYERS = (
    "Adler",
    "Becker",
    "Costa",
    "Dupont",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Hansen",
    "Ivanov",
    "Jansen",
    "Kowalski",
    "Lopez",
    "Moreau",
    "Novak",
    "Okafor",
    "Petrov",
    "Quinn",
    "Rossi",
    "Silva",
    "Tanaka",
    "Ueda",
    "Vogel",
    "Weber",
    "Yilmaz",
)
KINDS = (
    "with a header",
    "from the penalty spot",
    "from close range",
    "with a free kick",
    "after a corner",
    "on the break",
)
ASIDES = (
    "It had been raining since noon.",
    "The referee had a quiet evening.",
    "Both teams started slowly.",
    "A dog ran across the field before half-time.",
    "The visitors wore new shirts.",
    "The match had been moved from last week.",
)


@dataclass(frozen=True)
class Goal:
    minute: int
    home: bool
    player: str
    kind: str


@dataclass(frozen=True)
class Football:
    home: str
    away: str
    goals: tuple[Goal, ...]  # in the order of the game
    sent_off: str  # a player, "" for none
    crowd: int

    @property
    def score(self) -> tuple[int, int]:
        """Goals of the home and of the away team."""
        home = sum(goal.home for goal in self.goals)
        return home, len(self.goals) - home

    @property
    def best(self) -> str:
        """The player with the most goals, if two or more; else the last one to score."""
        player, count = Counter(goal.player for goal in self.goals).most_common(1)[0]
        return player if count > 1 else self.goals[-1].player

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The word pairs that decide the split."""
        return ((self.home, self.away), (self.home, self.best))

    def sentences(self, draw: Draw) -> list[str]:
        """The report: one sentence per goal, none with the score."""
        lines = [f"{self.home} played {self.away} in front of {self.crowd} people."]
        for goal in self.goals:
            team = self.home if goal.home else self.away
            scored = draw.pick(
                ("{p} scored for {t} {k} in minute {m}.", "In minute {m}, {p} put the ball in for {t} {k}.")
            )
            lines.append(scored.format(p=goal.player, t=team, k=goal.kind, m=goal.minute))
        if self.sent_off:
            card = draw.pick(("{} was sent off.", "{} saw the red card."))
            lines.append(card.format(self.sent_off))
        while len(lines) < 4 or (len(lines) < 8 and draw.chance(0.3)):
            aside = draw.pick(ASIDES)
            if aside not in lines:
                lines.insert(1 + draw.below(len(lines)), aside)
        return lines

    def summary(self, choose: Choose) -> str:
        """Who won, how high, who scored."""
        home, away = self.score
        own = sum(goal.player == self.best for goal in self.goals)
        count = {1: "a goal", 2: "two goals", 3: "three goals"}.get(own, f"{own} goals")
        thanks = choose("with", "thanks to")
        if home == away:
            verb = choose("drew", "shared the points")
            return f"{self.home} and {self.away} {verb} {home}-{away}, {thanks} {count} by {self.best}."
        winner, loser = (self.home, self.away) if home > away else (self.away, self.home)
        verb = choose("beat", "defeated")
        place = "at home" if home > away else "away"
        high, low = max(home, away), min(home, away)
        return f"{winner} {verb} {loser} {high}-{low} {place}, {thanks} {count} by {self.best}."


def draw_facts(draw: Draw) -> Football:
    """A match with one to five goals. A player scores for one team only."""
    home = draw.pick(TEAMS)
    away = draw.pick([team for team in TEAMS if team != home])
    squads = [[draw.pick(PLAYERS[side::2]) for _ in range(2)] for side in (0, 1)]
    count = draw.weighted(((1, 0.15), (2, 0.25), (3, 0.3), (4, 0.2), (5, 0.1)))
    minutes = sorted(1 + draw.below(90) for _ in range(count))
    goals = []
    for minute in minutes:
        at_home = draw.chance(0.55)
        goals.append(Goal(minute, at_home, draw.pick(squads[0 if at_home else 1]), draw.pick(KINDS)))
    sent_off = draw.pick(squads[draw.below(2)]) if draw.chance(0.25) else ""
    return Football(home, away, tuple(goals), sent_off, 500 * (4 + draw.below(120)))
