"""Private interfaces of other packages that aetrain.utils.compat uses still exist.

A failure here means that an upgrade has removed or changed one of them: adapt the function of that name in compat.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf._utils import get_yaml_loader
from torch import nn

from aetrain.data import digits
from aetrain.utils import compat

ADVICE = "an upgrade has changed a private interface: adapt aetrain.utils.compat."


def test_hydra_argument_parser() -> None:
    parsed = compat.hydra_argument_parser().parse_intermixed_args(["-m", "a=1", "--cfg", "job", "b=2"])
    assert parsed.overrides == ["a=1", "b=2"], ADVICE + "hydra_argument_parser"
    assert parsed.multirun, ADVICE + "hydra_argument_parser"
    for name in ("shell_completion", "config_dir"):
        assert hasattr(parsed, name), ADVICE + "hydra_argument_parser"


def test_cpu_features() -> None:
    for feature in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        assert callable(vars(torch.cpu).get(feature)), ADVICE + "cpu_has"
    assert isinstance(compat.cpu_has("amx_tile"), bool)


def test_event_writer(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    compat.add_summary(writer, Summary(value=[Summary.Value(tag="a", simple_value=2.0)]), 3)
    assert callable(compat.event_writer(writer).add_event), ADVICE + "event_writer"
    writer.close()
    (file,) = tmp_path.iterdir()
    events = [event for event in EventFileLoader(str(file)).Load() if event.HasField("summary")]
    assert [event.step for event in events] == [3], ADVICE + "add_summary"


YAML_TEXTS = (
    "a: 1e-3\nb: .5\nc: 1_000\nd: 2024-01-31\ne: on\nf: 0x10\ng: 1:30\nh: .nan\ni: '1'\nj: ~\nk: 'é'\n",
    "a: &x [1, 2]\nb: *x\nc: {d: '${seed}', e: '???'}\n<<: {f: 1}\n1: one\ntrue: yes\n",
    "p: !!python/object/apply:pathlib.Path [a, b]\n",
    *("", "text", "- 1\n- a: b\n", "# only a comment\n"),
)
YAML_MISTAKES = (
    *("a: 1\na: 2\n", "a: [1\n", "a: b: c\n", "\tb: 1\n", "a: \x00", "? [a]\n: 1\n"),
    "a: !!python/name:os.system ''\n",
)


def test_yaml_is_read_as_omegaconf_reads_it() -> None:
    assert compat._fast_yaml_loader() is not get_yaml_loader(), ADVICE + "load_yaml"
    for text in YAML_TEXTS:
        own, read = yaml.load(text, get_yaml_loader()), compat.load_yaml(text)
        assert repr(read) == repr(own), ADVICE + "load_yaml"  # repr, because nan differs from itself
    for text in YAML_MISTAKES:
        with pytest.raises(yaml.YAMLError) as own_error:
            yaml.load(text, get_yaml_loader())
        with pytest.raises(yaml.YAMLError) as error:
            compat.load_yaml(text)
        assert str(error.value) == str(own_error.value)


def test_fast_checksums_equal_tensorboards() -> None:
    code = (
        "from tensorboard.compat.tensorflow_stub import pywrap_tensorflow as p\n"
        "from aetrain.utils import compat\n"
        "slow = p.masked_crc32c(b'aetrain')\n"
        "before = p.crc32c\n"
        "compat.use_fast_checksums()\n"
        "assert p.crc32c is not before, 'not replaced'\n"
        "assert p.masked_crc32c(b'aetrain') == slow, 'another checksum'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{ADVICE}use_fast_checksums: {done.stderr}"


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer:DeprecationWarning")
def test_hparams_plugin() -> None:
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context
    from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin

    for name in ("hparams_metadata", "_compute_hparam_info_from_values", "_compute_metric_names"):
        assert callable(getattr(Context, name, None)), ADVICE + "hparams_plugin"
    assert isinstance(vars(HParamsPlugin(TBContext()))["_context"], Context), ADVICE + "hparams_plugin"
    assert compat.hparams_plugin([]).plugin_name == "hparams", ADVICE + "hparams_plugin"


def test_scikit_learn_file() -> None:
    from sklearn.datasets import load_digits

    record = load_digits()
    pixels, labels = digits._load()
    assert torch.equal(pixels.flatten(1).to(torch.float64), (torch.from_numpy(record.data) * 255 / 16).round()), ADVICE
    assert labels.tolist() == record.target.tolist(), ADVICE + "scikit_learn_file"
    with pytest.raises(FileNotFoundError, match=r"no data file nowhere\.csv"):
        compat.scikit_learn_file("nowhere.csv")


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_optimizer_without_compiler(name: str) -> None:
    original = getattr(torch.optim, name)
    subclass = compat.without_compiler(original)
    assert subclass is compat.without_compiler(original)
    assert issubclass(subclass, original)
    weights = []
    for optimizer_class in (original, subclass):
        weight = nn.Parameter(torch.arange(4.0))
        optimizer = optimizer_class([weight], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        weights.append(weight.detach())
    assert torch.equal(*weights), ADVICE + "without_compiler"
