"""Text generation with two Hugging Face models: a small one drafts, a large one verifies, a policy decides.

>>> out = bild.generate(large, small, input_ids, attention_mask=mask, policy=bild.BigLittle(fallback=0.6, rollback=2.0))
"""

from bild.api import generate
from bild.custom import custom_generate
from bild.engine.prepared import forget
from bild.many import generate_many
from bild.policies.big_little import BigLittle
from bild.policies.calm import Calm
from bild.policies.cascade import SequenceCascade, TokenCascade
from bild.policies.oracle import OracleDiff, OracleMixing
from bild.policies.single import LargeOnly, SmallOnly
from bild.policies.speculative import Speculative
from bild.policies.speculative_cascade import SpeculativeCascade
from bild.sources.bigram import Bigram
from bild.sources.early_exit import EarlyExit
from bild.sources.prompt_lookup import PromptLookup
from bild.trace import write_json_lines
from bild.types import DecodeOutput, RowStats, TokenTrace

__version__ = "0.1.0"

__all__ = [
    "BigLittle",
    "Bigram",
    "Calm",
    "DecodeOutput",
    "EarlyExit",
    "LargeOnly",
    "OracleDiff",
    "OracleMixing",
    "PromptLookup",
    "RowStats",
    "SequenceCascade",
    "SmallOnly",
    "Speculative",
    "SpeculativeCascade",
    "TokenCascade",
    "TokenTrace",
    "custom_generate",
    "forget",
    "generate",
    "generate_many",
    "write_json_lines",
]
