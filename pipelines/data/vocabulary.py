"""A vocabulary for models that start from scratch, trained on a task's text.

Knows nothing about models or tasks: text in, tokenizer out.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterable

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from pipelines.cli import UserError

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2, as in T5
SMALLEST = 300  # 3 special tokens, 256 bytes, some letters


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train a unigram tokenizer: pad 0, EOS 1 (appended to every text), unknown 2, then 256 bytes, then pieces.

    The same texts and size always give the same tokenizer. A character that is not in the vocabulary is spelled in
    UTF-8 bytes, so that every text can be read back, up to NFC normalization and runs of white space.

    Args:
        texts: training text, in any order of magnitude up to a few million lines.
        size: number of tokens wanted; a text with fewer distinct pieces gives a smaller vocabulary.

    Raises:
        UserError: ``size`` is too small for the text's letters, or there is no text.
    """
    if size < SMALLEST:
        raise UserError(f"vocabulary size {size} is too small: needs at least {SMALLEST} (256 of them are bytes)")
    return _wrap(_pieces(texts, size))


def _pieces(texts: Iterable[str], size: int) -> list[tuple[str, float]]:
    """(piece, log probability) in id order, from sentencepiece's trainer."""
    model = io.BytesIO()
    lines = (unicodedata.normalize("NFC", text.replace("\n", " ")) for text in texts)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=0.9995,
            normalization_rule_name="identity",
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            pad_piece=PAD,
            eos_piece=EOS,
            unk_piece=UNK,
            num_threads=1,  # more threads add in another order, and the last bits decide which piece stays
            max_sentence_length=1 << 16,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rsplit("] ", 1)[-1]
        raise UserError(f"no vocabulary of {size} tokens can be trained on this text: {reason}") from None
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    return [(piece.piece, piece.score) for piece in proto.pieces]


def _wrap(pieces: list[tuple[str, float]]) -> PreTrainedTokenizerFast:
    """The pieces as a fast tokenizer that splits and joins words as sentencepiece does."""
    tokenizer = Tokenizer(Unigram(pieces, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
