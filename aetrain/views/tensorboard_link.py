"""The command that opens TensorBoard on a folder of runs, and the link to the page that compares them."""

import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import quote, urlencode

from aetrain.storage.run_directory import display_path

# By default TensorBoard shows a random sample of 10 pictures of a tag; these limits are above all that a run writes.
TENSORBOARD_FLAGS = ("--samples_per_plugin", "images=500,scalars=50000")

# A regular expression whose groups are a run's name without its seed and without its start time. TensorBoard gives runs
# with equal groups one colour, so the seeds of one config share a colour.
NAME_WITHOUT_SEED = r"^(.*?),?seed=\d+([^/]*)|^(.*?)(?:/\d{8}-[^/]*)?$"

# A regular expression for the tags of the main metrics and pictures.
MAIN_TAGS = "/(loss|neg_elbo|sse)$|reconstructions|views/rows"


def tensorboard_command(logdir: Path) -> str:
    """Return the shell command that opens TensorBoard on a folder, for the current working directory."""
    beside_python = Path(sys.executable).with_name("tensorboard")
    executable = shutil.which("tensorboard")
    is_on_path = executable is not None and Path(executable) == beside_python
    program = "tensorboard" if is_on_path or not beside_python.is_file() else display_path(beside_python)
    return shlex.join([program, "--logdir", display_path(logdir), *TENSORBOARD_FLAGS])


def tensorboard_link(host: str = "localhost", port: int = 6006) -> str:
    """Return the address of the page Time Series: main metrics and pictures, no smoothing, one colour for each config.

    The parameters are those that TensorBoard 2.21 itself writes into the address.
    """
    parameters = {"smoothing": "0", "tagFilter": MAIN_TAGS, "runColorGroup": f"regex:{NAME_WITHOUT_SEED}"}
    return f"http://{host}:{port}/?{urlencode(parameters, quote_via=quote)}#timeseries"
