"""Composing the project's configs in tests."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parent.parent


def composed(root: str, *overrides: str, hydra: bool = False) -> DictConfig:
    """``conf/{root}.yaml`` with the overrides of a command line; with ``hydra``, its own node as well."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose(config_name=root, overrides=list(overrides), return_hydra_config=hydra)


def jobs(root: str, *overrides: str) -> list[list[str]]:
    """What ``-m`` makes of a command line: the overrides of every job."""
    params = composed(root, *overrides, hydra=True).hydra.sweeper.params
    words = [*(f"{name}={values}" for name, values in params.items()), *overrides]
    parsed = OverridesParser.create().parse_overrides(words)
    return [list(job) for job in BasicSweeper.split_arguments(parsed, None)[0]]
