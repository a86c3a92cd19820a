"""The weights of the best epoch so far, which a run with `keep=best` evaluates and saves in place of the last ones."""

from torch import nn

from aetrain.training.weight_copies import WeightCopies


class BestWeights(WeightCopies):
    """Copies of all parameters and buffers of some modules, such as a model and its objective."""

    def __init__(self, *modules: nn.Module) -> None:
        tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
        super().__init__({id(tensor): tensor for tensor in tensors}.values())  # one that modules share is copied once
