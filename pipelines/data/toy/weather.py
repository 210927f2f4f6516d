"""Weather reports: a region, a day, three times of day, a wind, perhaps a warning. Knows nothing about splits."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.data.toy.draw import Choose, Draw
from pipelines.data.toy.english import article

REGIONS = (
    "the north coast",
    "the south coast",
    "the Alps",
    "the lake district",
    "the capital",
    "the eastern plains",
    "the western valleys",
    "the islands",
    "the Black Forest",
    "the river delta",
    "the highlands",
    "the border region",
    "the old town",
    "the wine country",
    "the central uplands",
    "the bay area",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# What the sky does -> (noun for the summary, verb phrase of the report).
SKIES = {
    "rain": "it will rain",
    "heavy rain": "it will pour down",
    "sunshine": "the sun will shine",
    "snow": "snow will fall",
    "fog": "thick fog will lie over the fields",
    "thunderstorms": "thunder and lightning are expected",
    "clouds": "clouds will cover the sky",
    "drizzle": "there will be a light drizzle",
    "hail": "hail will come down",
    "showers": "showers will pass through",
}
TIMES = ("In the morning", "In the afternoon", "In the evening", "During the night")
WINDS = ("north", "south", "east", "west")
WARNINGS = ("flood", "storm", "ice", "heat", "avalanche", "landslide", "wind")
ASIDES = (
    "Farmers have been waiting for a change for weeks.",
    "The water in the lakes stays cool.",
    "Pollen counts are low.",
    "Last year the same day was much colder.",
    "Hikers should take a map.",
    "The moon will be full.",
    "Roads are expected to be busy.",
    "The outlook for the rest of the week is uncertain.",
)


@dataclass(frozen=True)
class Weather:
    region: str
    day: str
    skies: tuple[str, ...]  # one per time of day
    degrees: tuple[int, ...]  # one per time of day, Celsius
    wind: str
    speed: int  # km/h
    warning: str  # "" for none

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The word pairs that decide the split."""
        warned = ((self.region, self.warning),) if self.warning else ()
        return ((self.region, self.main), (self.main, str(max(self.degrees))), *warned)

    @property
    def main(self) -> str:
        """The sky that comes most often; the first one, if all differ."""
        return max(self.skies, key=self.skies.count)

    def sentences(self, draw: Draw) -> list[str]:
        """The report. The highest temperature may be in any of its sentences."""
        opening = draw.pick(("Here is the forecast for {} on {}.", "The weather in {} on {}."))
        lines = [opening.format(self.region, self.day)]
        for time, sky, degrees in zip(TIMES, self.skies, self.degrees, strict=False):
            end = draw.pick(("at {}", "and the thermometer will show {}", "with {}"))
            lines.append(f"{time} {SKIES[sky]} {end.format(celsius(degrees))}.")
        gusts = draw.pick(("A wind from the {} will blow at {} km/h.", "The wind comes from the {} at {} km/h."))
        lines.append(gusts.format(self.wind, self.speed))
        if self.warning:
            lines.append(
                draw.pick(("There is {}.", "The weather service has issued {}.")).format(
                    article(f"{self.warning} warning")
                )
            )
        if len(lines) < 8 and draw.chance(0.6):
            lines.insert(1 + draw.below(len(lines)), draw.pick(ASIDES))
        return lines

    def summary(self, choose: Choose) -> str:
        """Main sky, highest temperature, warning."""
        top = celsius(max(self.degrees))
        heat = choose(f"with highs of {top}", f"and up to {top}")
        text = choose(
            f"{self.main} in {self.region} on {self.day} {heat}",
            f"on {self.day}, {self.region} will see {self.main} {heat}",
        )
        if self.warning:
            warning = article(f"{self.warning} warning")
            text += choose(f", and {warning}", f"; {warning} is in force")
        return f"{text[0].upper()}{text[1:]}."


def celsius(degrees: int) -> str:
    """A temperature in words and figures: minus 3 degrees."""
    return f"{'minus ' if degrees < 0 else ''}{abs(degrees)} degree{'' if abs(degrees) == 1 else 's'}"


def draw_facts(draw: Draw) -> Weather:
    """A day's weather with two to four times of day; one sky often holds for most of it."""
    times = 2 + draw.below(3)
    usual = draw.pick(tuple(SKIES))
    skies = tuple(usual if draw.chance(0.6) else draw.pick(tuple(SKIES)) for _ in range(times))
    base = draw.below(30) - 5
    degrees = tuple(base + draw.below(9) - 4 for _ in range(times))
    warning = draw.pick(WARNINGS) if draw.chance(0.4) else ""
    speed = 5 * (1 + draw.below(16))
    return Weather(draw.pick(REGIONS), draw.pick(DAYS), skies, degrees, draw.pick(WINDS), speed, warning)
