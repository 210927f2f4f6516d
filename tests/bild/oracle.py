"""The two BiLD loops written again, naively: one row, no cache, every position recomputed for every token.

Written from the description of the algorithms alone; shares no line with the decoder. Slow and meant to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import LogitsProcessorList

Scorer = Callable[[list[int]], Tensor]
"""Decoder tokens (T) to raw logits (T, V); entry t scores the token after position t."""


def t5_scorer(model: torch.nn.Module, source: Tensor, vocab_size: int) -> Scorer:
    """Full forward of a transformers model on an unpadded (1, S) source, its encoder run once. A narrower head is
    padded with -inf, a wider one cut."""
    with torch.no_grad():
        encoded = model.get_encoder()(source)

    @torch.no_grad()
    def score(tokens: list[int]) -> Tensor:
        output = model(encoder_outputs=encoded, decoder_input_ids=torch.tensor([tokens]), use_cache=False)
        logits = output.logits[0]
        missing = vocab_size - logits.shape[-1]
        return torch.nn.functional.pad(logits, (0, missing), value=-math.inf) if missing > 0 else logits[:, :vocab_size]

    return score


def function_scorer(model: Callable[[tuple[int, ...]], list[float]]) -> Scorer:
    """A fake model, asked at every prefix."""

    def score(tokens: list[int]) -> Tensor:
        rows = [model(tuple(tokens[: place + 1])) for place in range(len(tokens))]
        return torch.tensor(rows, dtype=torch.float64)

    return score


@dataclass
class Outcome:
    """What a loop wrote and how often it did what."""

    tokens: list[int] = field(default_factory=list)
    """written tokens, without the start"""
    rounds: int = 0
    drafted: int = 0
    accepted: int = 0
    rolled_back: int = 0
    fallbacks: int = 0
    small_steps: int = 0
    large_steps: int = 0

    def counts(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if name != "tokens"} | {"tokens": len(self.tokens)}


@dataclass(frozen=True)
class Setting:
    """The knobs that both loops share."""

    fallback: float
    rollback: float
    draft_length: int
    max_new_tokens: int
    verify_eos: bool = False
    eos: tuple[int, ...] = (1,)
    start: int = 0
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)

    @property
    def draft_cap(self) -> int:
        """A fallback above 1 means that nothing is ever drafted."""
        return 0 if self.fallback > 1 else self.draft_length

    def processed(self, tokens: list[int], raw: Tensor) -> Tensor:
        """(V) raw logits after ``tokens`` to (V) processed ones."""
        return self.processors(torch.tensor([tokens]), raw.clone().unsqueeze(0))[0]


def plain(logits: Tensor) -> list[float]:
    return torch.softmax(logits, -1).tolist()


def slow_draw(probs: list[float], uniform: float) -> int:
    """Walk along the probabilities until they have used up the uniform number."""
    running = 0.0
    for token, prob in enumerate(probs):
        running += prob
        if uniform < running:
            return token
    raise AssertionError("uniform number at the very end of the distribution; choose another seed")


def paper_loop(
    large: Scorer,
    small: Scorer,
    setting: Setting,
    tempered: Callable[[Tensor], list[float]] | None = None,
    uniforms: Callable[[int], list[float]] | None = None,
) -> Outcome:
    """Algorithm 1 of the BiLD paper. Sampling with ``tempered`` (processed (V) logits to probabilities) and
    ``uniforms`` (n -> n numbers of the row's stream, asked once a round for the draft's and the verification's)."""
    out = Outcome()
    tokens = [setting.start]
    limit = 1 + setting.max_new_tokens

    def choose(processed: Tensor, uniform: float | None) -> int:
        if uniform is None or tempered is None:
            return int(processed.argmax())
        return slow_draw(tempered(processed), uniform)

    while True:
        out.rounds += 1
        numbers: Iterator[float | None] = iter([None] * (2 * setting.draft_cap + 1))
        if uniforms is not None:
            numbers = iter(uniforms(2 * setting.draft_cap + 1))
        for_draft = [next(numbers) for _ in range(setting.draft_cap)]
        for_large = list(numbers)
        begin, unsure = len(tokens), False
        # The small model writes.
        for number in for_draft:
            ended = len(tokens) > begin and tokens[-1] in setting.eos
            if ended or len(tokens) == limit:
                break
            processed = setting.processed(tokens, small(tokens)[-1])
            out.small_steps += 1
            unsure = max(plain(processed)) < setting.fallback
            if unsure:
                break
            tokens.append(choose(processed, number))
        drafted = len(tokens) - begin
        out.drafted += drafted
        out.fallbacks += unsure
        if drafted > 0 and tokens[-1] in setting.eos and not setting.verify_eos:
            out.accepted += drafted
            break
        # The large model looks at all of it.
        raw = large(tokens)
        out.large_steps += 1
        replaced = False
        for place in range(begin, len(tokens)):
            processed = setting.processed(tokens[:place], raw[place - 1])
            if -torch.log_softmax(processed, -1)[tokens[place]].item() > setting.rollback:
                own = choose(processed, for_large[place - begin])
                if own != tokens[place]:
                    out.rolled_back += len(tokens) - place
                    out.accepted += place - begin
                    tokens = [*tokens[:place], own]
                    replaced = True
                    break
        if not replaced:
            out.accepted += drafted
            if drafted > 0 and tokens[-1] in setting.eos:
                break
            if len(tokens) == limit:
                break
            processed = setting.processed(tokens, raw[len(tokens) - 1])
            tokens.append(choose(processed, for_large[drafted]))
        if tokens[-1] in setting.eos or len(tokens) == limit:
            break
    out.tokens = tokens[1:]
    return out


def authors_loop(large: Scorer, small: Scorer, setting: Setting) -> Outcome:
    """What the authors' published code does, as a machine that hands the pen from one model to the other."""
    out = Outcome()
    tokens = [setting.start]
    limit = 1 + setting.max_new_tokens
    pen, unchecked, left = "large", len(tokens), 0
    out.rounds = 1
    while True:
        if pen == "small":
            processed = setting.processed(tokens, small(tokens)[-1])
            out.small_steps += 1
            if max(plain(processed)) < setting.fallback:
                out.fallbacks += 1
                pen = "large"
                continue
            tokens.append(int(processed.argmax()))
            out.drafted += 1
            left -= 1
            if tokens[-1] in setting.eos or len(tokens) == limit:
                out.accepted += len(tokens) - unchecked
                break
            if left == 0:
                pen = "large"
            continue
        raw = large(tokens)
        out.large_steps += 1
        surprising = [
            place
            for place in range(unchecked, len(tokens))
            if -torch.log_softmax(raw[place - 1], -1)[tokens[place]].item() > setting.rollback
        ]
        if surprising and int(raw[surprising[0] - 1].argmax()) != tokens[surprising[0]]:
            place = surprising[0]
            out.rolled_back += len(tokens) - place
            out.accepted += place - unchecked
            tokens = [*tokens[:place], int(raw[place - 1].argmax())]
            unchecked = len(tokens)
            out.rounds += 1
            continue  # the large model goes again, whatever it has just written
        out.accepted += len(tokens) - unchecked
        tokens.append(int(setting.processed(tokens, raw[-1]).argmax()))
        unchecked = len(tokens)
        if tokens[-1] in setting.eos or len(tokens) == limit:
            break
        out.rounds += 1
        if setting.draft_cap > 0:
            pen, left = "small", setting.draft_cap
    out.tokens = tokens[1:]
    return out
