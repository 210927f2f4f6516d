"""Draws phrases and clauses of the German-English grammar, and notes which words it put together.

Knows which phrases and tenses go together and how often; knows nothing about sentences, splits or output.
"""

from __future__ import annotations

from dataclasses import replace

from pipelines.data.toy.clauses import Clause, Object, Predicate
from pipelines.data.toy.draw import Draw
from pipelines.data.toy.lexicon import Lexicon, Noun, Verb
from pipelines.data.toy.phrases import CITIES, NAMES, NUMBERS, PRONOUNS, Adverbial, Nominal, NounPhrase, Where
from pipelines.data.toy.times import draw_time

FRAMES = (
    ("acc", 0.54),
    ("dat", 0.08),
    ("dat+acc", 0.09),
    ("none", 0.09),
    ("loc", 0.05),
    ("dir", 0.06),
    ("auf:acc", 0.02),
    ("an:acc", 0.02),
    ("mit:dat", 0.03),
    ("von:dat", 0.01),
    ("über:acc", 0.01),
)
TENSES = {
    "any": (("present", 0.45), ("past", 0.35), ("modal", 0.2)),
    "past": (("past", 1.0),),
    "present": (("present", 0.7), ("modal", 0.3)),
    "future": (("future", 0.5), ("present", 0.25), ("modal", 0.25)),
    "now": (("present", 1.0),),
    "none": (("present", 0.37), ("past", 0.37), ("modal", 0.18), ("future", 0.08)),
}
MODALS = ("können", "müssen", "wollen", "sollen", "dürfen", "möchten")
# Determiners by kind of noun; "number" and "plural" make the phrase a plural one.
COUNTED = (
    ("d", 0.42),
    ("ein", 0.2),
    ("dies", 0.06),
    ("mein", 0.04),
    ("dein", 0.03),
    ("sein", 0.04),
    ("ihr", 0.04),
    ("unser", 0.03),
    ("number", 0.06),
    ("plural", 0.08),
)
DEFINITE = (("d", 0.6), ("dies", 0.1), ("mein", 0.08), ("sein", 0.07), ("ihr", 0.07), ("unser", 0.08))
MASS = (("", 0.55), ("d", 0.35), ("mein", 0.05), ("dein", 0.05))
FREQUENCY = (("oft", "often"), ("immer", "always"), ("manchmal", "sometimes"), ("nie", "never"), ("selten", "rarely"))
DEGREES = (("", ""), ("sehr", "very"), ("zu", "too"), ("ziemlich", "quite"))


class SentenceSampler:
    """Draws from the lexicon. ``pairs`` collects the word pairs used since it was last emptied."""

    def __init__(self, draw: Draw, lexicon: Lexicon) -> None:
        self.draw = draw
        self.lexicon = lexicon
        self.pairs: list[tuple[str, str]] = []

    def subject(self, verb: Verb | None) -> Nominal:
        """A pronoun, a name or a noun phrase that can do what the verb says."""
        kind = self.draw.weighted((("pronoun", 0.27), ("name", 0.2), ("noun", 0.53)))
        if kind == "pronoun":
            return self.draw.pick(PRONOUNS)
        if kind == "name":
            return self.draw.pick(NAMES)
        animal = verb is not None and verb.animal and self.draw.chance(0.4)
        return self.noun_phrase(self.lexicon.by_class["animal" if animal else "person"])

    def noun_phrase(self, nouns: tuple[Noun, ...], definite: bool = False, adjectives: float = 0.36) -> NounPhrase:
        """A noun of the list with a determiner and, with the given probability, an adjective or two."""
        noun = self.draw.pick(nouns)
        if noun.modifier:
            self.pairs.append((noun.modifier, noun.german))
        weights = DEFINITE if definite or not noun.countable else COUNTED
        if "mass" in noun.classes and not definite:
            weights = MASS
        determiner, plural = self.draw.weighted(weights), False
        if determiner == "number":
            determiner, plural = self.draw.pick(tuple(NUMBERS)), True
        elif determiner == "plural" or (determiner not in ("ein", "") and noun.countable and self.draw.chance(0.12)):
            determiner, plural = "d" if determiner == "plural" else determiner, True
        chosen = []
        fitting = self.lexicon.attributes[noun.german]
        while fitting and len(chosen) < 2 and self.draw.chance(adjectives / (1 + 3 * len(chosen))):
            word = self.draw.pick(fitting)
            if word not in chosen:
                chosen.append(word)
                self.pairs.append((word.german, noun.german))
        return NounPhrase(determiner, tuple(chosen), noun, plural)

    def objects(self, verb: Verb, definite: bool) -> tuple[Object, ...]:
        """The objects that the verb's frame asks for."""
        if verb.frame in ("none", "loc", "dir"):
            return ()
        nouns = self.lexicon.objects[verb.infinitive]
        if verb.frame == "dat+acc":
            receiver = self.person(definite)
            given = self.noun_phrase(nouns, definite, adjectives=0.25)
            self.pairs.append((verb.infinitive, given.noun.german))
            return Object("dat", receiver), Object("acc", given)
        preposition, _, case = verb.frame.rpartition(":")
        if verb.objects == {"person"} and self.draw.chance(0.4):
            return (Object(case, self.person(definite), preposition),)
        phrase = self.noun_phrase(nouns, definite)
        self.pairs.append((verb.infinitive, phrase.noun.german))
        return (Object(case, phrase, preposition),)

    def person(self, definite: bool) -> Nominal:
        """A person as an object: a pronoun, a name or a noun phrase."""
        kind = self.draw.weighted((("pronoun", 0.3), ("name", 0.2), ("noun", 0.5)))
        if kind == "pronoun":
            return self.draw.pick(PRONOUNS)
        if kind == "name":
            return self.draw.pick(NAMES)
        return self.noun_phrase(self.lexicon.by_class["person"], definite, adjectives=0.2)

    def where(self, verb: Verb) -> Where | Adverbial | None:
        """A direction if the verb needs one, a place if it needs one or may have one."""
        direction = verb.frame == "dir"
        usual = 1.0 if direction or verb.frame == "loc" else 0.4 if verb.rests else 0.12
        if not self.draw.chance(usual):
            return None
        if self.draw.chance(0.15):
            city = self.draw.pick(CITIES)
            return Adverbial(f"{'nach' if direction else 'in'} {city}", (f"{'to' if direction else 'in'} {city}",))
        phrase = self.noun_phrase(self.lexicon.by_class["place"], definite=self.draw.chance(0.8), adjectives=0.2)
        preposition, at = phrase.noun.place
        if not direction:
            return Where(preposition, "dat", phrase, at)
        if self.draw.chance(0.4):
            return Where("zu", "dat", phrase, "to")
        return Where(preposition, "acc", phrase, "to")

    def tense(self, time: Adverbial | None) -> tuple[str, str]:
        """A tense that goes with the time, and a modal verb or ""."""
        tense = self.draw.weighted(TENSES[time.tense if time else "none"])
        return ("present", self.draw.pick(MODALS)) if tense == "modal" else (tense, "")

    def time(self, probability: float) -> Adverbial | None:
        """A time, with the given probability."""
        return draw_time(self.draw) if self.draw.chance(probability) else None

    def clause(self, time: float = 0.5, subject: Nominal | None = None, predicates: float = 0.1) -> Clause:
        """A whole clause with its own subject, or with the given one."""
        if self.draw.chance(predicates):
            return self.state(time, subject)
        verb = self.draw.pick(self.lexicon.by_frame[self.draw.weighted(FRAMES)])
        when = self.time(time)
        while when and when.tense == "now" and verb.state:
            when = self.time(1.0)
        tense, modal = self.tense(when)
        subject = self.subject(verb) if subject is None else subject
        negated = self.draw.chance(0.1)
        objects = self.objects(verb, definite=negated)
        where = self.where(verb)
        often = not negated and when is None and tense in ("present", "past") and self.draw.chance(0.15)
        adverb = self.draw.pick(FREQUENCY) if often else ("", "")
        front = "time" if when and self.draw.chance(0.4) else "subject"
        if front == "subject" and not negated and verb.frame == "acc" and self.draw.chance(0.12):
            front = "object" if objects[-1].phrase.accusative else front
        return Clause(
            subject, verb, tense, modal, objects, None, negated, adverb, when, where, front, subject.person
        )  # fmt: skip

    def state(self, time: float, subject: Nominal | None = None) -> Clause:
        """sein with an adjective that fits the subject."""
        noun = None
        if subject is None:
            names = ("person", "animal", "thing", "clothing", "vehicle", "room", "text", "event", "food")
            nouns = self.lexicon.by_class[self.draw.pick(names)]
            subject = self.noun_phrase(nouns, definite=True, adjectives=0.1)
        if isinstance(subject, NounPhrase):
            noun = subject.noun
        fitting = self.lexicon.attributes[noun.german] if noun else self.lexicon.attributes["Mann"]
        adjective = self.draw.pick(fitting)
        if noun:
            self.pairs.append((adjective.german, noun.german))
        when = self.time(time)
        tense = self.draw.weighted(TENSES[when.tense if when else "none"])
        tense = "present" if tense == "modal" else tense
        front = "time" if when and self.draw.chance(0.4) else "subject"
        predicate = Predicate(adjective, self.draw.pick(DEGREES))
        return Clause(
            subject, None, tense, predicate=predicate, negated=self.draw.chance(0.1), time=when, front=front,
            person=subject.person,
        )  # fmt: skip

    def relative(self, head: NounPhrase) -> Clause:
        """A relative clause about the head: it is the subject, or the accusative object where people act on it."""
        living = head.noun.classes & {"person", "animal"}
        while living and self.draw.chance(0.6):
            clause = self.clause(time=0.25, subject=head, predicates=0.0)
            if "person" in head.noun.classes or clause.verb.animal:
                return replace(clause, front="subject", subject=None, person=head.person)
        return self.gap(head.noun)

    def gap(self, noun: Noun | None = None) -> Clause:
        """A clause whose accusative object is missing: it is the noun, or a thing that a question asks for."""
        classes = noun.classes if noun else frozenset({"thing", "food", "text"})
        verb = self.draw.pick([verb for verb in self.lexicon.by_frame["acc"] if verb.objects & classes])
        when = self.time(0.3)
        while when and when.tense == "now" and verb.state:
            when = self.time(1.0)
        tense, modal = self.tense(when)
        subject = self.subject(verb)
        if noun:
            self.pairs.append((verb.infinitive, noun.german))
        return Clause(subject, verb, tense, modal, (Object("acc", None),), time=when, person=subject.person)
