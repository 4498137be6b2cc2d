"""Where the classifiers' weights lie."""
import pickle
from pathlib import Path

import torch

from config import BadInput

ASSETS = Path(__file__).parents[1] / "assets"
WEIGHTS = ASSETS / "safety.pt"


def load_classifier(network, name):
    """Fills a classifier with its weights in assets/safety.pt. name: "prompts", "frames" or "detector". Raises BadInput."""
    try:
        saved = torch.load(WEIGHTS, weights_only=True)
        network.load_state_dict(saved[name])
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        why = (str(error) or "it is empty").splitlines()[0][:100]
        raise BadInput(f"{WEIGHTS}: cannot be read ({why}); `python -m safety.train` makes it")
    return network.eval()
