"""Clauses: one plan, its German in every word order, its English.

Knows word order in both languages; knows nothing about how plans are drawn. German orders: "v2" (finite verb second),
"final" (subordinate, finite verb last), "first" (questions and main clauses after a subordinate one), "zu" (no
subject, zu with the infinitive).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.data.toy import english, german
from pipelines.data.toy.draw import Choose
from pipelines.data.toy.lexicon import Adjective, Verb
from pipelines.data.toy.phrases import Adverbial, Nominal, Where

# German modal -> English phrase that takes the bare verb; the two lists have other grammar.
AUXILIARIES = {"können": "can", "sollen": "should"}
LEXICAL = {"müssen": "have to", "wollen": "want to", "dürfen": "be allowed to", "möchten": "like to"}


@dataclass(frozen=True)
class Object:
    """An object: its case, a preposition or "", and the phrase (None where a relative or question word stands)."""

    case: str
    phrase: Nominal | None
    preposition: str = ""

    @property
    def light(self) -> bool:
        """Whether it is a bare pronoun, which stands before everything but the subject."""
        return self.phrase is not None and self.phrase.pronoun and not self.preposition

    def german(self) -> str:
        if self.phrase is None:
            return ""
        phrase = self.phrase.german(self.case)
        return german.contract(self.preposition, phrase) if self.preposition else phrase


@dataclass(frozen=True)
class Predicate:
    """sein with an adjective: "ist sehr müde"."""

    adjective: Adjective
    degree: tuple[str, str]  # German and English word, both "" for none

    def german(self) -> str:
        return f"{self.degree[0]} {self.adjective.german}".strip()

    def english(self, choose: Choose) -> str:
        return f"{self.degree[1]} {choose(self.adjective.english, self.adjective.synonym)}".strip()


@dataclass(frozen=True)
class Clause:
    """What happens, to whom, when and where. An infinitive has no ``subject``, nor has a clause whose pronoun is it."""

    subject: Nominal | None
    verb: Verb | None  # None with a predicate
    tense: str  # present, past (German perfect, or war), future
    modal: str = ""
    objects: tuple[Object, ...] = ()
    predicate: Predicate | None = None
    negated: bool = False
    adverb: tuple[str, str] = ("", "")  # oft, immer: before the English verb
    time: Adverbial | None = None
    where: Where | Adverbial | None = None
    front: str = "subject"  # German first position in v2: subject, time, object
    person: str = "3s"  # agreement where the subject is None
    relative: Clause | None = None  # relative clause of the subject (front) or of the last object (end)
    relative_of: str = ""  # subject, object

    @property
    def agreement(self) -> str:
        return self.subject.person if self.subject else self.person

    def german(self, order: str) -> str:
        """The clause's words without a final mark. Commas stand around embedded relative clauses."""
        finite, end = self._verbs()
        if order == "v2":
            opening = {"subject": self._subject, "time": self._time, "object": lambda: self.objects[-1].german()}
            words = [opening[self.front](), finite, *self._middle(self.front), *end]
        elif order == "first":
            words = [finite, *self._middle(""), *end]
        elif order == "zu":
            words = [*self._middle("subject"), german.zu_infinitive(self.verb)]
        else:
            if self.verb and self.verb.particle and end == [self.verb.particle]:
                words = [*self._middle(""), self.verb.particle + finite]
            else:
                words = [*self._middle(""), *end, finite]
        if self.relative_of == "object":
            words.append(f", {self._relative(self.objects[-1].phrase)} ,")
        return " ".join(word for word in words if word)

    def _verbs(self) -> tuple[str, list[str]]:
        """The finite verb and what closes the bracket."""
        person = self.agreement
        if self.verb is None:
            if self.modal:
                return german.modal(self.modal, person), ["sein"]
            if self.tense == "future":
                return german.WERDEN[person], ["sein"]
            return (german.WAR if self.tense == "past" else german.SEIN)[person], []
        if self.modal:
            return german.modal(self.modal, person), [self.verb.infinitive]
        if self.tense == "future":
            return german.WERDEN[person], [self.verb.infinitive]
        if self.tense == "past":
            return (german.SEIN if self.verb.auxiliary == "ist" else german.HABEN)[person], [self.verb.participle]
        return german.present(self.verb, person), [self.verb.particle] if self.verb.particle else []

    def _middle(self, front: str) -> list[str]:
        """Subject, pronouns, time, adverb, objects, negation, place: what is not in front, in German order."""
        objects = self.objects[:-1] if front == "object" else self.objects
        heavy = [item for item in objects if item.phrase and not item.light]
        words = [] if front == "subject" else [self._subject()]
        words += [item.german() for item in objects if item.light]
        words += [] if front == "time" else [self._time()]
        words.append(self.adverb[0])
        words += [item.german() for item in heavy if not item.preposition]
        words.append("nicht" if self.negated else "")
        words += [item.german() for item in heavy if item.preposition]
        words.append(self.where.german if self.where else "")
        words.append(self.predicate.german() if self.predicate else "")
        return words

    def _subject(self) -> str:
        if self.subject is None:
            return ""
        phrase = self.subject.german("nom")
        return f"{phrase} , {self._relative(self.subject)} ," if self.relative_of == "subject" else phrase

    def _time(self) -> str:
        return self.time.german if self.time else ""

    def _relative(self, head: Nominal) -> str:
        gap = next((item.case for item in self.relative.objects if item.phrase is None), "nom")
        return f"{german.RELATIVE[gap][head.slot]} {self.relative.german('final')}"

    def english(self, choose: Choose, order: str = "statement") -> str:
        """The clause's words. Orders: statement, question (auxiliary first), to (infinitive), ing."""
        auxiliary, main = self._english_verbs(choose, order)
        subject = self._english_subject(choose)
        rest = self._english_rest(main, choose)
        time = self.time.english(choose) if self.time else ""
        adverb = self.adverb[1]
        if order == "question":
            words = [auxiliary, subject, "not" if self.negated else "", adverb, *rest, time]
        elif self.front == "time" and choose("front", "end") == "front":
            words = [f"{time} ,", subject, auxiliary, adverb, *rest]
        else:
            words = [subject, auxiliary, adverb, *rest, time]
        return " ".join(word for word in words if word)

    def _english_subject(self, choose: Choose) -> str:
        if self.subject is None:
            return ""
        phrase = self.subject.english(choose, subject=True)
        return f"{phrase} {self._english_relative(choose)}" if self.relative_of == "subject" else phrase

    def _english_relative(self, choose: Choose) -> str:
        gap_is_object = any(item.phrase is None for item in self.relative.objects)
        head = self.subject if self.relative_of == "subject" else self.objects[-1].phrase
        living = "person" in head.noun.classes
        pronoun = "that" if gap_is_object or not living else choose("who", "that")
        return f"{pronoun} {self.relative.english(choose)}"

    def _english_verbs(self, choose: Choose, order: str) -> tuple[str, str]:
        """The auxiliary ("" if there is none) and the rest of the verb phrase."""

        def refuse(auxiliary: str) -> str:
            if not self.negated or order == "question":  # a question has its "not" after the subject
                return auxiliary
            full = english.negate(auxiliary)
            return choose(full, english.SHORT.get(full, ""))

        base, past = ("be", "") if self.verb is None else (self.verb.english, self.verb.past)
        if self.verb and self.verb.synonym[0]:
            base, past = choose(f"{base}/{past}", "/".join(self.verb.synonym)).split("/")
        if order == "to":
            return "", f"to {base}"
        if order == "ing":
            return "", english.progressive(base)
        if self.modal in AUXILIARIES:
            return refuse(AUXILIARIES[self.modal]), base
        if self.modal == "möchten":
            return refuse("would"), f"like to {base}"
        if self.modal == "dürfen":
            return refuse(english.BE[self.agreement]), f"allowed to {base}"
        if self.modal:
            base, past = f"{LEXICAL[self.modal]} {base}", ""
        elif self.tense == "future" or (self.time and self.time.tense == "future"):
            return refuse("will"), base
        elif self.verb is None:
            return refuse((english.WAS if self.tense == "past" else english.BE)[self.agreement]), ""
        elif self.time and self.time.tense == "now" and not self.verb.state:
            return refuse(english.BE[self.agreement]), english.progressive(base)
        if self.negated or order == "question":
            do = "did" if self.tense == "past" else english.simple_present("do", self.agreement)
            return refuse(do), base
        return "", past if self.tense == "past" else english.simple_present(base, self.agreement)

    def _english_rest(self, main: str, choose: Choose) -> list[str]:
        """Verb, objects, place, predicate, in English order."""
        where = self.where.english(choose) if self.where else ""
        predicate = self.predicate.english(choose) if self.predicate else ""
        phrases = [item.phrase.english(choose) for item in self.objects if item.phrase]
        if self.relative_of == "object":
            phrases[-1] += f" {self._english_relative(choose)}"
        words = main.split(" ")
        if phrases and self.objects[-1].phrase and self.objects[-1].phrase.pronoun and words[-1] in english.PARTICLES:
            return [" ".join(words[:-1]), *phrases, words[-1], where]
        if len(phrases) == 2 and choose("double", "to") == "to":
            phrases = [phrases[1], f"to {phrases[0]}"]
        return [main, *phrases, predicate, where]
