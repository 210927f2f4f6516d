"""The candidates of a calibration, from config to policies. Knows Hydra's nodes; knows no policy by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig

import bild
from bild.policies.base import Policy
from pipelines.cli import UserError
from pipelines.decoding.grid import TARGET, expanded


@dataclass(frozen=True)
class Candidate:
    """One candidate."""

    policy: Policy
    node: dict[str, Any]
    """the config it is made from: its class as ``_target_``, and its fields"""

    def exact(self, large: Sequence[list[int]], own: Sequence[list[int]]) -> bool:
        """Whether it stands for the large model without a test: lossless by construction, and (N) lists of tokens that
        are the large model's. At a near tie, or in few bits, a pass over several tokens may round otherwise than single
        steps; such a point is tested as the others are."""
        return self.policy.lossless and list(large) == list(own)


LARGE = Candidate(bild.LargeOnly(), {TARGET: "bild.LargeOnly"})


def points(config: DictConfig) -> list[Candidate]:
    """The large model alone, then the points of ``lossless``, of ``grid``, and ``bild``, each policy once.

    An entry of the two lists is a policy's config; a field with a list of values stands for a point of each, several
    such fields for all combinations.

    Raises:
        UserError: an entry that is no policy, a value that its policy refuses, or one of ``lossless`` that is not.
    """
    found = {LARGE.policy: LARGE}
    for key in ("lossless", "grid"):
        if not isinstance(config[key], ListConfig):
            raise UserError(f"{key}={config[key]}: must be a list of policies, such as [{{{TARGET}: bild.LargeOnly}}]")
        for place, entry in enumerate(config[key]):
            for policy, node in expanded(entry, f"{key}[{place}]"):
                if key == "lossless" and not policy.lossless:
                    raise UserError(
                        f"{key}[{place}]: {policy} may write other texts than the large model; put it in grid"
                    )
                found.setdefault(policy, Candidate(policy, node))
    for policy, node in expanded(config.bild, "bild"):
        found.setdefault(policy, Candidate(policy, node))
    return list(found.values())
