"""Safety, in the four parts that Sora's announcement names. sample.py passes a video through
the first two before it is written, and through the last after it.

    python -m safety prompt "a knife"   safety/prompts.py: prompts that policies forbid are refused
    (sample.py)                         safety/frames.py: every frame is looked at before it is written
    python -m safety detect clip.mp4    safety/detector.py: was this video made by our model?
    python -m safety verify clip.mp4    safety/provenance.py: who made the file, and was it changed? The exit
                                        code is 1 where it was changed, or says nothing of itself

How the three classifiers are trained and measured: safety/train.py.
"""
from config import BadInput

import json
import sys

from data.video_io import read_frames
from safety.detector import classifier as detector_classifier
from safety.detector import made_by_us
from safety.prompts import POLICIES, judge
from safety.prompts import classifier as prompt_classifier
from safety.provenance import verify
from utils.cli import Flags, run

EXAMPLES = [
    "a knife cutting bread",
    "a red cross moving left",
    "a nude-coloured square",
    "a man beheading a woman",
    "T a y l o r  S w 1 f t sings",
]


def main():
    parser = Flags(__doc__)
    parser.add_argument(
        "what",
        choices=("prompt", "detect", "verify"),
        nargs="?",
        default="prompt",
        help="judge a prompt; say whether our model made a file; read a file's signature",
    )
    parser.add_argument("value", nargs="*", help="the prompts (default: a few examples), or the file")
    args = parser.parse_args()

    if args.what == "prompt":
        show_verdicts(args.value or EXAMPLES)
        return
    if len(args.value) != 1:
        raise BadInput(f"{args.what} {' '.join(args.value)}: expected one file")
    if args.what == "detect":
        show_detection(args.value[0])
    elif not show_signature(args.value[0]):
        sys.exit(1)


def show_verdicts(prompts):
    for prompt, (policy, prob, text) in zip(prompts, judge(prompt_classifier(), prompts), strict=True):
        reason = "" if policy == "allowed" else f", for {text!r}"
        print(f"{prompt!r}: {POLICIES[policy]} ({prob:.0%} sure{reason})")


def show_detection(path):
    frames = [frame for _, frame in read_frames(path)]
    prob = made_by_us(detector_classifier(), frames)
    print(f"{path}: made by our model with probability {prob:.1%}")


def show_signature(path):
    """Prints who signed a file → whether it is unchanged since."""
    state, who, action = verify(path)
    meanings = {
        "missing": "no C2PA metadata; it was never signed, or was saved again by a program that drops them",
        "changed": f"not what was signed by {who}",
        "valid": f"not changed since it was signed by {who}, as the signer calls itself; "
        "nobody vouches for the name",
        "trusted": f"not changed since it was signed by {who}",
    }
    print(f"{path}: {state}: {meanings[state]}")
    unchanged = state in ("valid", "trusted")
    if unchanged:
        print(json.dumps(action, indent=2))
    return unchanged


if __name__ == "__main__":
    run(main)
