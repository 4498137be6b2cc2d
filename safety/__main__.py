"""Safety, in the four parts that the announcement names. sample.py goes through the first two before a file is written, and through the last after it.

    python safety.py prompt "a knife cutting bread"    a classifier over text refuses prompts that ask for what five policies forbid
    (sample.py)                                        a classifier over frames looks at every one before anything is written or shown
    python safety.py detect clip.mp4                   a classifier over pairs of frames: was this video made by our model?
    python safety.py verify clip.mp4                   C2PA metadata, signed: who made the file, and was it changed?

The toy world has nothing to be afraid of, so `scenes.coverage` can draw one more shape, the emblem (a ring with a cross in it): it stands for imagery that
may never be shown, no prompt asks for it and no model was trained on it. How the three classifiers are trained and measured: safety_train.py.

Hashed n-grams in a linear classifier: Joulin et al. 2017 (fastText).
C2PA: c2pa.org, specification 2. Letters: N frames or prompts  T H W frames, height, width  D numbers of a sentence vector
"""
import json

from config import BadInput
from data import video_io
from safety.detector import classifier, made_by_us
from safety.prompts import POLICIES, classifier as prompt_classifier, judge
from safety.provenance import verify
from utils.cli import Flags, run


def main():
    parser = Flags(__doc__)
    parser.add_argument("what", choices=("prompt", "detect", "verify"), nargs="?", default="prompt", help="judge a prompt; say whether our model made a file; read a file's signature")
    parser.add_argument("value", nargs="*", help="the prompts, or the file")
    args = parser.parse_args()
    if args.what == "prompt":
        prompts = args.value or ["a knife cutting bread", "a red cross moving left", "a nude-coloured square", "a man beheading a woman", "T a y l o r  S w 1 f t sings"]
        for prompt, (policy, sure, part) in zip(prompts, judge(prompt_classifier(), prompts)):
            print(f"{prompt!r}: {POLICIES[policy]} ({sure:.0%} sure{f', for {part!r}' * (policy != 'allowed')})")
    elif len(args.value) != 1:
        raise BadInput(f"{args.what} {' '.join(args.value)}: expected one file")
    elif args.what == "detect":
        print(f"{args.value[0]}: made by our model with probability {made_by_us(classifier(), (frame for _, frame in video_io.read_frames(args.value[0]))):.1%}")
    else:
        state, who, action = verify(args.value[0])
        print(f"{args.value[0]}: {state}: " + {
            "missing": "no C2PA metadata; it was never signed, or was saved again by a program that drops them", "changed": f"not what was signed by {who}",
            "valid": f"not changed since it was signed by {who}, as the signer calls itself; nobody vouches for the name", "trusted": f"not changed since it was signed by {who}"}[state])
        if state in ("valid", "trusted"):
            print(json.dumps(action, indent=2))


if __name__ == "__main__":
    run(main)
