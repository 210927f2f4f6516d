"""Composing the project's configs in tests."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parent.parent


def composed(root: str, *overrides: str, hydra: bool = False) -> DictConfig:
    """``conf/{root}.yaml`` with the overrides of a command line; with ``hydra``, its own node as well."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose(config_name=root, overrides=list(overrides), return_hydra_config=hydra)
