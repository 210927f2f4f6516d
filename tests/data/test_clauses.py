"""Clauses of the German-English grammar, spelled out in every word order."""

from dataclasses import replace

import pytest

from pipelines.data.toy import lexicon
from pipelines.data.toy.clauses import Clause, Object, Predicate
from pipelines.data.toy.draw import first
from pipelines.data.toy.phrases import PRONOUNS, Adverbial, Name, NounPhrase, Where


def noun(word, determiner="d", adjective="", plural=False):
    words = lexicon.load()
    adjectives = tuple(item for item in words.adjectives if item.german == adjective)
    return NounPhrase(determiner, adjectives, next(item for item in words.nouns if item.german == word), plural)


def verb(infinitive):
    return next(item for item in lexicon.load().verbs if item.infinitive == infinitive)


ANNA = Name("Anna", "f")
ICH, DU, ER, SIE, WIR, THEY = PRONOUNS
YESTERDAY = Adverbial("gestern", ("yesterday",), "past")
TOMORROW = Adverbial("morgen", ("tomorrow",), "future")
NOW = Adverbial("jetzt", ("now",), "now")
WINDOW = Object("acc", noun("Fenster"))
OPEN = Clause(ANNA, verb("aufmachen"), "present", objects=(WINDOW,))

SPELLED_OUT = [
    (OPEN, "v2", "Anna macht das Fenster auf", "Anna opens the window"),
    (OPEN, "final", "Anna das Fenster aufmacht", "Anna opens the window"),
    (OPEN, "first", "macht Anna das Fenster auf", "Anna opens the window"),
    (replace(OPEN, subject=None), "zu", "das Fenster aufzumachen", "opens the window"),
    (replace(OPEN, tense="past"), "v2", "Anna hat das Fenster aufgemacht", "Anna opened the window"),
    (replace(OPEN, tense="past"), "final", "Anna das Fenster aufgemacht hat", "Anna opened the window"),
    (replace(OPEN, tense="future"), "final", "Anna das Fenster aufmachen wird", "Anna will open the window"),
    (replace(OPEN, modal="wollen"), "v2", "Anna will das Fenster aufmachen", "Anna wants to open the window"),
    (replace(OPEN, modal="wollen", subject=ICH), "v2", "ich will das Fenster aufmachen", "I want to open the window"),
    (
        replace(OPEN, modal="dürfen", subject=WIR),
        "v2",
        "wir dürfen das Fenster aufmachen",
        "we are allowed to open the window",
    ),
    (replace(OPEN, modal="müssen"), "final", "Anna das Fenster aufmachen muss", "Anna has to open the window"),
    (replace(OPEN, negated=True), "v2", "Anna macht das Fenster nicht auf", "Anna does not open the window"),
    (
        replace(OPEN, negated=True, modal="können"),
        "v2",
        "Anna kann das Fenster nicht aufmachen",
        "Anna cannot open the window",
    ),
    (replace(OPEN, time=NOW), "v2", "Anna macht jetzt das Fenster auf", "Anna is opening the window now"),
    (replace(OPEN, time=TOMORROW), "v2", "Anna macht morgen das Fenster auf", "Anna will open the window tomorrow"),
    (
        replace(OPEN, time=YESTERDAY, tense="past", front="time"),
        "v2",
        "gestern hat Anna das Fenster aufgemacht",
        "yesterday , Anna opened the window",
    ),
    (
        replace(OPEN, adverb=("nie", "never"), modal="können"),
        "v2",
        "Anna kann nie das Fenster aufmachen",
        "Anna can never open the window",
    ),
    (
        Clause(ER, verb("abholen"), "past", objects=(Object("acc", SIE),)),
        "v2",
        "er hat sie abgeholt",
        "he picked her up",
    ),
    (
        Clause(ER, verb("helfen"), "present", objects=(Object("dat", ICH),), time=TOMORROW),
        "v2",
        "er hilft mir morgen",
        "he will help me tomorrow",
    ),
    (
        Clause(
            ANNA, verb("essen"), "present", objects=(Object("acc", noun("Apfel", adjective="rot")),), front="object"
        ),
        "v2",
        "den roten Apfel isst Anna",
        "Anna eats the red apple",
    ),
    (
        Clause(
            noun("Frau"),
            verb("geben"),
            "past",
            objects=(Object("dat", noun("Kind", "ein")), Object("acc", noun("Ball"))),
        ),
        "v2",
        "die Frau hat einem Kind den Ball gegeben",
        "the woman gave a child the ball",
    ),
    (
        Clause(
            noun("Hund", plural=True),
            verb("warten"),
            "present",
            objects=(Object("acc", noun("Zug"), "auf"),),
            negated=True,
        ),
        "final",
        "die Hunde nicht auf den Zug warten",
        "the dogs do not wait for the train",
    ),
    (
        Clause(DU, verb("fahren"), "past", where=Where("an", "acc", noun("Strand"), "to")),
        "v2",
        "du bist an den Strand gefahren",
        "you drove to the beach",
    ),
    (
        Clause(THEY, verb("sitzen"), "present", where=Where("in", "dat", noun("Garten", adjective="ruhig"), "in")),
        "v2",
        "sie sitzen im ruhigen Garten",
        "they sit in the quiet garden",
    ),
    (
        Clause(
            noun("Mann"),
            None,
            "past",
            predicate=Predicate(lexicon.load().adjectives[0], ("sehr", "very")),
            negated=True,
        ),
        "final",
        "der Mann nicht sehr alt war",
        "the man was not very old",
    ),
    (
        replace(OPEN, subject=noun("Mann"), relative=Clause(None, verb("schlafen"), "past"), relative_of="subject"),
        "v2",
        "der Mann , der geschlafen hat , macht das Fenster auf",
        "the man who slept opens the window",
    ),
    (
        replace(
            OPEN,
            tense="past",
            relative=Clause(ER, verb("putzen"), "present", objects=(Object("acc", None),)),
            relative_of="object",
        ),
        "v2",
        "Anna hat das Fenster aufgemacht , das er putzt ,",
        "Anna opened the window that he cleans",
    ),
]


@pytest.mark.parametrize(("clause", "order", "german", "english"), SPELLED_OUT)
def test_spelled_out(clause, order, german, english):
    assert clause.german(order) == german
    assert clause.english(first) == english


QUESTIONS = [
    (OPEN, "does Anna open the window"),
    (replace(OPEN, subject=THEY), "do they open the window"),
    (replace(OPEN, tense="past"), "did Anna open the window"),
    (replace(OPEN, negated=True), "does Anna not open the window"),
    (replace(OPEN, negated=True, modal="können"), "can Anna not open the window"),
    (replace(OPEN, modal="müssen"), "does Anna have to open the window"),
    (replace(OPEN, modal="dürfen"), "is Anna allowed to open the window"),
    (replace(OPEN, tense="future"), "will Anna open the window"),
    (Clause(ER, None, "past", predicate=Predicate(lexicon.load().adjectives[0], ("", ""))), "was he old"),
]


@pytest.mark.parametrize(("clause", "english"), QUESTIONS)
def test_questions(clause, english):
    assert clause.english(first, "question") == english


def test_infinitives():
    bare = replace(OPEN, subject=None)
    assert bare.english(first, "to") == "to open the window"
    assert bare.english(first, "ing") == "opening the window"


def test_other_translations():
    def last(*options):
        return [option for option in options if option][-1]

    assert replace(OPEN, negated=True).english(last) == "Anna doesn't open the window"
    asked = Clause(ANNA, verb("anrufen"), "past", objects=(Object("acc", noun("Oma")),), time=YESTERDAY, front="time")
    assert asked.english(last) == "Anna phoned the grandma yesterday"
    given = Clause(ER, verb("geben"), "past", objects=(Object("dat", ANNA), Object("acc", noun("Sofa", "ein"))))
    assert given.english(last) == "he gave a couch to Anna"
