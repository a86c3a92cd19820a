"""TensorBoard in a process of its own, with an HParams page that is equal at every start, for `mode=board`."""

import sys

from aetrain.evaluation.metric_names import HPARAM_METRICS
from aetrain.utils.compat import hparams_plugin


def main() -> None:
    """Serve the runs that TensorBoard's flags in sys.argv name."""
    from absl import app
    from tensorboard import default, main_lib, program
    from tensorboard.plugins.base_plugin import FlagsError
    from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin

    main_lib.global_init()
    own = hparams_plugin(HPARAM_METRICS)
    server = program.TensorBoard([own if plugin is HParamsPlugin else plugin for plugin in default.get_plugins()])
    try:
        app.run(server.main, flags_parser=server.configure)
    except FlagsError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
