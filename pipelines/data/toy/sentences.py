"""Draws whole sentences: single clauses, subordinate and coordinate ones, relative clauses, infinitives, questions.

Knows how clauses combine in both languages; knows nothing about splits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipelines.data.toy import english as english_forms
from pipelines.data.toy.clauses import Clause
from pipelines.data.toy.draw import Choose
from pipelines.data.toy.phrases import NounPhrase, Pronoun
from pipelines.data.toy.sampling import SentenceSampler


@dataclass(frozen=True)
class Sentence:
    """A German sentence and a function that writes a translation of it."""

    german: str
    english: Callable[[Choose], str]


# German conjunction, English options (the usual one first).
SUBORDINATING = (
    ("weil", ("because", "since")),
    ("obwohl", ("although", "though")),
    ("während", ("while",)),
    ("bevor", ("before",)),
    ("wenn", ("if", "when")),
    ("da", ("because", "since")),
    ("sobald", ("as soon as",)),
    ("bis", ("until",)),
)
COORDINATING = (("und", "and"), ("aber", "but"), ("denn", "because"), ("oder", "or"))
CONNECTING = (
    ("deshalb", ("so", "therefore")),
    ("trotzdem", ("nevertheless", "still")),
    ("danach", ("then", "afterwards")),
)
# Verbs of saying and thinking: German ich-form and er-form, English base.
SAYING = {
    "dass": (
        ("glaube", "glaubst", "glaubt", "glauben", "think"),
        ("weiß", "weißt", "weiß", "wissen", "know"),
        ("sage", "sagst", "sagt", "sagen", "say"),
        ("hoffe", "hoffst", "hofft", "hoffen", "hope"),
        ("schreibe", "schreibst", "schreibt", "schreiben", "write"),
        ("vermute", "vermutest", "vermutet", "vermuten", "suspect"),
    ),
    "ob": (
        ("weiß nicht", "weißt nicht", "weiß nicht", "wissen nicht", "not know"),
        ("prüfe", "prüfst", "prüft", "prüfen", "check"),
    ),
}
JUDGING = (("schön", "nice"), ("schade", "a pity"), ("gut", "good"), ("klar", "clear"), ("möglich", "possible"))
# Verbs that take an infinitive with zu: forms as above, participle, English base and past.
TRYING = (
    ("versuche", "versuchst", "versucht", "versuchen", "versucht", "try", "tried"),
    ("hoffe", "hoffst", "hofft", "hoffen", "gehofft", "hope", "hoped"),
    ("beschließe", "beschließt", "beschließt", "beschließen", "beschlossen", "decide", "decided"),
    ("verspreche", "versprichst", "verspricht", "versprechen", "versprochen", "promise", "promised"),
    ("plane", "planst", "plant", "planen", "geplant", "plan", "planned"),
    ("vergesse", "vergisst", "vergisst", "vergessen", "vergessen", "forget", "forgot"),
)
ASKING = (("warum", "why"), ("wann", "when"), ("wie", "how"))
WHO = Pronoun("3s", "m", "wer", "wen", "wem", "who", "whom")
YOU = Pronoun("3p", "p", "Sie", "Sie", "Ihnen", "you", "you")
PERSONS = ("1s", "2s", "3s", "1p", "3p")
SHAPES = (
    ("simple", 0.3),
    ("subordinate", 0.17),
    ("saying", 0.1),
    ("coordinate", 0.1),
    ("relative", 0.11),
    ("infinitive", 0.08),
    ("question", 0.09),
    ("imperative", 0.05),
)


def draw_sentence(sampler: SentenceSampler) -> Sentence:
    """One sentence of any shape. The word pairs it uses are left in ``sampler.pairs``."""
    sampler.pairs.clear()
    shape = sampler.draw.weighted(SHAPES)
    return {
        "simple": _simple,
        "subordinate": _subordinate,
        "saying": _saying,
        "coordinate": _coordinate,
        "relative": _relative,
        "infinitive": _infinitive,
        "question": _question,
        "imperative": _imperative,
    }[shape](sampler)


def _finish(text: str, mark: str) -> str:
    """Join marks to their words, start with a capital, end with the mark."""
    text = re.sub(r"(?: ,)+", ",", " ".join(text.split())).rstrip(",").strip()
    return text[0].upper() + text[1:] + mark


def _sentence(german: str, english: Callable[[Choose], str], mark: str = ".") -> Sentence:
    return Sentence(_finish(german, mark), lambda choose: _finish(english(choose), mark))


def _plain(clause: Clause) -> Clause:
    """The clause in an order that leaves no choice of the first position."""
    return replace(clause, front="subject")


def _simple(s: SentenceSampler) -> Sentence:
    clause = s.clause(time=0.75)
    return _sentence(clause.german("v2"), clause.english)


def _subordinate(s: SentenceSampler) -> Sentence:
    word, options = s.draw.pick(SUBORDINATING)
    main, side = s.clause(time=0.25), _plain(s.clause(time=0.25))
    while "future" in (side.tense, side.time.tense if side.time else ""):  # English has no "when he will come"
        side = _plain(s.clause(time=0.25))
    if s.draw.chance(0.35):
        main = _plain(main)
        german = f"{word} {side.german('final')} , {main.german('first')}"
        return _sentence(german, lambda c: f"{c(*options)} {side.english(c)} , {main.english(c)}")
    german = f"{main.german('v2')} , {word} {side.german('final')}"
    return _sentence(german, lambda c: f"{main.english(c)} {c(*options)} {side.english(c)}")


def _saying(s: SentenceSampler) -> Sentence:
    side = _plain(s.clause(time=0.4))
    if s.draw.chance(0.2):
        german, english = s.draw.pick(JUDGING)
        return _sentence(
            f"es ist {german} , dass {side.german('final')}", lambda c: f"it is {english} that {side.english(c)}"
        )
    kind = s.draw.weighted((("dass", 0.6), ("ob", 0.2), ("w", 0.2)))
    *forms, base = s.draw.pick(SAYING["dass" if kind == "dass" else "ob"])
    speaker = s.subject(None)
    word, link = (kind, "whether") if kind == "ob" else s.draw.pick(ASKING)
    if kind == "dass":
        word = "dass"
    negation, _, rest = base.rpartition(" ")  # "not know" needs "do"
    verb = english_forms.simple_present(f"do {negation}" if negation else rest, speaker.person)
    verb += f" {rest}" if negation else ""
    german = f"{speaker.german('nom')} {forms[min(PERSONS.index(speaker.person), 3)]} , {word} {side.german('final')}"

    def english(c: Choose) -> str:
        joint = c("that", "-").strip("-") if kind == "dass" else link
        return f"{speaker.english(c, subject=True)} {verb} {joint} {side.english(c)}"

    return _sentence(german, english)


def _coordinate(s: SentenceSampler) -> Sentence:
    one, two = s.clause(time=0.25), s.clause(time=0.25)
    if s.draw.chance(0.6):
        word, link = s.draw.pick(COORDINATING)
        comma = " ," if word in ("aber", "denn") else ""
        german = f"{one.german('v2')}{comma} {word} {two.german('v2')}"
        mark = " ," if word == "aber" else ""
        return _sentence(german, lambda c: f"{one.english(c)}{mark} {link} {two.english(c)}")
    two = _plain(two)
    word, options = s.draw.pick(CONNECTING)
    german = f"{one.german('v2')} , {word} {two.german('first')}"
    return _sentence(german, lambda c: f"{one.english(c)} , {c(*options)} {two.english(c)}")


def _relative(s: SentenceSampler) -> Sentence:
    while True:
        s.pairs.clear()
        clause = replace(_plain(s.clause(time=0.0, predicates=0.15)), where=None)
        if clause.verb and clause.verb.frame in ("loc", "dir"):
            continue
        if isinstance(clause.subject, NounPhrase) and s.draw.chance(0.6):
            head, of = clause.subject, "subject"
        elif clause.objects and isinstance(clause.objects[-1].phrase, NounPhrase):
            head, of = clause.objects[-1].phrase, "object"
        else:
            continue
        if head.noun.classes & {"person", "animal", "thing", "text", "clothing", "vehicle", "food", "drink"}:
            clause = replace(clause, relative=s.relative(head), relative_of=of)
            return _sentence(clause.german("v2"), clause.english)


def _bare(s: SentenceSampler) -> Clause:
    """A clause for an infinitive or an imperative: no subject, no time, not negated."""
    clause = s.clause(time=0.0, predicates=0.0)
    return replace(_plain(clause), subject=None, tense="present", modal="", negated=False, adverb=("", ""))


def _infinitive(s: SentenceSampler) -> Sentence:
    action = _bare(s)
    if s.draw.chance(0.4):
        main = s.clause(time=0.25, predicates=0.0)
        if s.draw.chance(0.7):
            german = f"{main.german('v2')} , um {action.german('zu')}"
            return _sentence(german, lambda c: f"{main.english(c)} {c('', 'in order')} {action.english(c, 'to')}")
        german = f"{main.german('v2')} , ohne {action.german('zu')}"
        return _sentence(german, lambda c: f"{main.english(c)} without {action.english(c, 'ing')}")
    who = s.subject(None)
    *forms, participle, base, past = s.draw.pick(TRYING)
    place = PERSONS.index(who.person)
    if s.draw.chance(0.5):
        have = ("habe", "hast", "hat", "haben", "haben")[place]
        german, verb = f"{who.german('nom')} {have} {participle}", past
    else:
        german, verb = f"{who.german('nom')} {forms[min(place, 3)]}", english_forms.simple_present(base, who.person)
    return _sentence(
        f"{german} , {action.german('zu')}",
        lambda c: f"{who.english(c, subject=True)} {verb} {action.english(c, 'to')}",
    )


def _question(s: SentenceSampler) -> Sentence:
    kind = s.draw.pick(("whether", "whether", "who", "what", "why"))
    if kind == "whether":
        clause = _plain(s.clause(time=0.5))
        return _sentence(clause.german("first"), lambda c: clause.english(c, "question"), "?")
    if kind == "who":
        clause = _plain(s.clause(time=0.5, subject=WHO, predicates=0.0))
        return _sentence(clause.german("v2"), clause.english, "?")
    if kind == "what":
        clause = s.gap()
        return _sentence(f"was {clause.german('first')}", lambda c: f"what {clause.english(c, 'question')}", "?")
    word, link = s.draw.pick(ASKING)
    clause = _plain(s.clause(time=0.0 if word == "wann" else 0.3, predicates=0.0))
    return _sentence(f"{word} {clause.german('first')}", lambda c: f"{link} {clause.english(c, 'question')}", "?")


def _imperative(s: SentenceSampler) -> Sentence:
    action = _bare(s)
    german = replace(action, subject=YOU, adverb=("bitte", "")).german("first")

    def english(c: Choose) -> str:
        order = action.english(c, "to").removeprefix("to ")
        return c(f"please {order}", f"{order} , please")

    return _sentence(german, english, "!")
