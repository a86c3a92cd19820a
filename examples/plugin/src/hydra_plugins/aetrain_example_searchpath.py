"""Add the configs of `aetrain_example` to Hydra's search path, so that their options need no `--config-dir`."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class AetrainExampleSearchPath(SearchPathPlugin):
    """The folder `aetrain_example/configs`, after aetrain's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder. Hydra calls this for every program that uses Hydra in this environment."""
        search_path.append(provider="aetrain_example", path="pkg://aetrain_example.configs")
