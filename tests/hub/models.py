"""The repositories of the hub's models, laid out as there, with weights of a few thousand numbers.

What is as on the hub: names, files, what config.json and the tokenizer's files say, which weights the safetensors hold
and under which names, where there are only pickles on main and a pull request of the hub's converter has safetensors.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.hub.server import LocalHub

TITLE = "Adding `safetensors` variant of this model"
BOT = "SFconvertbot"
PICKLE = b"\x80\x02cos\nsystem\nq\x00."  # nobody may even ask for it
TEXTS = [
    f"Der Hund {i} läuft schnell nach Hause. The dog {i} runs home quickly; summarize: 12,5 € ½" for i in range(40)
]
SHAPE = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
EXTRA_IDS = [f"<extra_id_{number}>" for number in range(100)]
SPECIAL = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
GENERATION = {"_from_model_config": True, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}

State = Mapping[str, torch.Tensor]


def digest(state: State) -> str:
    """Of the numbers in float32, by name."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(name.encode() + tensor.detach().float().contiguous().numpy().tobytes())
    return found.hexdigest()


def publish(hub: LocalHub, root: Path) -> dict[str, str]:
    """Put every repository under ``root`` and on the hub. Returns the ``digest`` of each one's weights."""
    digests = {}
    for seed, (name, write) in enumerate(REPOSITORIES.items()):
        torch.manual_seed(seed)
        digests[name] = write(hub, name, root / name)
    return digests


def pieces(*, byte_fallback: bool) -> bytes:
    """A sentencepiece model with T5's special tokens and normalization."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=400 if byte_fallback else 120,
        hard_vocab_limit=False,
        byte_fallback=byte_fallback,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def write_config(folder: Path, model: PreTrainedModel, without: tuple[str, ...] = (), **changes: Any) -> None:
    """config.json as older releases of transformers wrote it."""
    config: PreTrainedConfig = model.config
    told = {name: value for name, value in config.to_diff_dict().items() if name not in {"dtype", *without}}
    kind = {"model_type": config.model_type, "architectures": [type(model).__name__]}
    write_json(
        folder / "config.json", told | kind | {"transformers_version": "4.26.0", "torch_dtype": "float32"} | changes
    )


def save(folder: Path, state: State, shards: int = 1) -> None:
    """model.safetensors, or so many shards with their index."""
    names = sorted(state)
    files = (
        ["model.safetensors"]
        if shards == 1
        else [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    )
    places = {name: files[index * shards // len(names)] for index, name in enumerate(names)}
    for file in files:
        save_file(
            {name: state[name].clone() for name in names if places[name] == file}, folder / file, {"format": "pt"}
        )
    if shards > 1:
        size = sum(tensor.nbytes for tensor in state.values())
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})


def once(state: State) -> dict[str, torch.Tensor]:
    """Without further names of a matrix that has come: what the converter leaves, which takes the first name."""
    kept: dict[int, str] = {}
    for name, tensor in state.items():
        kept.setdefault(tensor.data_ptr(), name)
    return {name: state[name] for name in kept.values()}


def t5(*, tied: bool, multilingual: bool = False) -> PreTrainedModel:
    """T5 (tied), T5 v1.1 or mT5. As there, the embedding has a few more rows than the vocabulary has tokens."""
    size = 512 if multilingual else 256
    if multilingual:
        return MT5ForConditionalGeneration(
            MT5Config(vocab_size=size, **SHAPE, tie_word_embeddings=False, feed_forward_proj="gated-gelu")
        )
    untied = {} if tied else {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}
    return T5ForConditionalGeneration(T5Config(vocab_size=size, **SHAPE, **untied))


def vocabulary(folder: Path, *, multilingual: bool) -> None:
    """spiece.model and the two JSON files beside it: all that repositories of before tokenizer.json have."""
    (folder / "spiece.model").write_bytes(pieces(byte_fallback=multilingual))
    if multilingual:
        write_json(folder / "special_tokens_map.json", SPECIAL)
        write_json(folder / "tokenizer_config.json", SPECIAL | {"extra_ids": 0, "additional_special_tokens": None})
    else:
        special = SPECIAL | {"additional_special_tokens": EXTRA_IDS}
        write_json(folder / "special_tokens_map.json", special)
        write_json(folder / "tokenizer_config.json", special | {"extra_ids": 100})


def original(hub: LocalHub, name: str, folder: Path) -> str:
    """google-t5/...: safetensors and tokenizer.json on main."""
    from transformers import T5Tokenizer

    folder.mkdir(parents=True)
    model = t5(tied=True)
    with torch.no_grad():  # it is to write text: no special token, and none beyond the vocabulary
        model.shared.weight[:3], model.shared.weight[90:] = 0, 0
    write_config(folder, model, without=("tie_word_embeddings", "is_encoder_decoder"), is_encoder_decoder=True)
    write_json(folder / "generation_config.json", GENERATION)
    vocabulary(folder, multilingual=False)
    T5Tokenizer.from_pretrained(folder).backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "special_tokens_map.json").unlink()
    save(folder, once(model.state_dict()))
    hub.publish("models", name, folder)
    return digest(model.state_dict())


def converted(*, tied: bool, multilingual: bool, numbers: tuple[int, ...]) -> Callable[[LocalHub, str, Path], str]:
    """A repository with nothing but a pickle on main; the hub's converter opened pull requests of these numbers."""

    def write(hub: LocalHub, name: str, folder: Path) -> str:
        model = t5(tied=tied, multilingual=multilingual)
        proposals = [(number, BOT, TITLE) for number in numbers]
        for revision in ("main", *(f"refs/pr/{number}" for number in numbers)):
            place = folder / revision
            place.mkdir(parents=True)
            write_config(place, model, tokenizer_class="T5Tokenizer")
            write_json(place / "generation_config.json", GENERATION)
            vocabulary(place, multilingual=multilingual)
            (place / "pytorch_model.bin").write_bytes(PICKLE)
            if revision != "main":
                save(place, once(model.state_dict()))
            hub.publish("models", name, place, revision, proposals=proposals)
        return digest(model.state_dict())

    return write


def causal(
    model: Callable[[], PreTrainedModel],
    shards: int = 1,
    gated: bool = False,
    bare: bool = False,
    dtype: str = "float32",
) -> Callable[[LocalHub, str, Path], str]:
    """A decoder-only repository. ``bare``: its weights are named as the model without a head names them."""

    def write(hub: LocalHub, name: str, folder: Path) -> str:
        folder.mkdir(parents=True)
        made = model().to(getattr(torch, dtype))
        write_config(folder, made, torch_dtype=dtype)
        write_json(folder / "generation_config.json", {"_from_model_config": True, "eos_token_id": 0})
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet()
        special = ["<|endoftext|>", "<bos>"]
        backend.train_from_iterator(
            TEXTS,
            trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=letters, show_progress=False),
        )
        backend.save(str(folder / "tokenizer.json"))
        told = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0], "model_max_length": 1024}
        write_json(folder / "tokenizer_config.json", told | ({"pad_token": special[1]} if gated else {}))
        state = once(made.state_dict())
        if bare:
            state = {key.removeprefix("transformer."): value for key, value in state.items()}
            state["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)  # a mask that was once a weight
        save(folder, state, shards)
        hub.publish("models", name, folder, gated=gated)
        return digest(made.state_dict())

    return write


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=304, n_embd=16, n_head=2, n_layer=1, n_positions=64))


def _gemma() -> PreTrainedModel:
    shape = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    return Gemma2ForCausalLM(Gemma2Config(vocab_size=304, num_key_value_heads=1, query_pre_attn_scalar=8, **shape))


def _qwen() -> PreTrainedModel:
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=304, num_key_value_heads=1, tie_word_embeddings=True, **shape))


_V1_1 = {"small": (1,), "base": (1,), "large": (2,), "xl": (1,), "xxl": (2,)}
_TUNED = ("large-{}", "small-{}", "small-{}-bild-aligned")  # the checkpoints of the BiLD paper's authors
# By repository, what writes it and puts it on the hub.
REPOSITORIES: dict[str, Callable[[LocalHub, str, Path], str]] = {
    **{f"google-t5/t5-{size}": original for size in ("small", "base", "large")},
    **{
        f"google/t5-v1_1-{size}": converted(tied=False, multilingual=False, numbers=numbers)
        for size, numbers in _V1_1.items()
    },
    "google/mt5-small": converted(tied=False, multilingual=True, numbers=(9,)),
    "google/mt5-large": converted(tied=False, multilingual=True, numbers=(4, 2)),
    **{
        f"kssteven/T5-{name.format(task)}": converted(tied=True, multilingual=False, numbers=(1,))
        for task in ("xsum", "cnndm")
        for name in _TUNED
    },
    **{
        f"kssteven/mT5-{name.format(task)}": converted(tied=False, multilingual=True, numbers=(1,))
        for task in ("iwslt2017-de-en", "wmt2014-de-en")
        for name in _TUNED
    },
    "openai-community/gpt2": causal(_gpt2, bare=True),
    "openai-community/gpt2-large": causal(_gpt2),
    "google/gemma-2-2b": causal(_gemma, shards=3, gated=True),
    "google/gemma-2-9b": causal(_gemma, shards=8, gated=True),
    "Qwen/Qwen2.5-0.5B": causal(_qwen, dtype="bfloat16"),
    "Qwen/Qwen2.5-1.5B": causal(_qwen, dtype="bfloat16"),
}
