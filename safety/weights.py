"""Where the weights of the three classifiers lie: one file, a state dict for each of them.

The file is made by `python -m safety.train` and is part of the repository, so that nobody has to train before
the first prompt can be judged.
"""
from config import BadInput

import pickle
import struct
from pathlib import Path

import torch

ASSETS = Path(__file__).parents[1] / "assets"
WEIGHTS = ASSETS / "safety.pt"

# Whatever torch.load and load_state_dict raise for a file that is missing, damaged or of another kind.
UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
    struct.error,
)


def load_classifier(network, name):
    """Fills a classifier with its weights from assets/safety.pt and returns it, ready to judge.

    name: "prompts", "frames" or "detector". Raises BadInput for a file that cannot be read."""
    try:
        saved = torch.load(WEIGHTS, weights_only=True)
        network.load_state_dict(saved[name])
    except UNREADABLE as error:
        message = str(error) or "it is empty"
        reason = message.splitlines()[0][:100]
        raise BadInput(f"{WEIGHTS}: cannot be read ({reason}); `python -m safety.train` makes it") from error
    return network.eval()
