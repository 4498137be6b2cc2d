"""Safety, in the four parts that the announcement names. sample.py goes through the first two before a file is written, and through the last after it.

    python safety.py prompt "a knife cutting bread"    a classifier over text refuses prompts that ask for what five policies forbid
    (sample.py)                                        a classifier over frames looks at every one before anything is written or shown
    python safety.py detect clip.mp4                   a classifier over pairs of frames: was this video made by our model?
    python safety.py verify clip.mp4                   C2PA metadata, signed: who made the file, and was it changed?

The toy world has nothing to be afraid of, so `world.coverage` can draw one more shape, the emblem (a ring with a cross in it): it stands for imagery that
may never be shown, no prompt asks for it and no model was trained on it. How the three classifiers are trained and measured: safety_train.py.

Hashed n-grams in a linear classifier: Joulin et al. 2017 (fastText).
C2PA: c2pa.org, specification 2. Letters: N frames or prompts  T H W frames, height, width  D numbers of a sentence vector
"""
import datetime
import functools
import json
import os
import pickle
import re
import sys
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import clips
import text
from config import BadInput, Flags, run

POLICIES = {"allowed": "allowed", "violence": "extreme violence", "sexual": "sexual content", "hate": "hateful imagery", "celebrity": "celebrity likeness", "ip": "others' intellectual property"}
ASSETS = Path(__file__).parent / "assets"
WEIGHTS = ASSETS / "safety.pt"
EXTRA = "pip install -r requirements-extra.txt"
KEYS = Path.home() / ".config/sora-small"

# prompts
HOMOGLYPHS = str.maketrans("абвгеіјкмнопрстухԁѕαβεικνορτυχωɑɡı01345789@$€+", "abbreijkmhonpctyxdsabeiknoptuxwagioieastbgaset")
BUCKETS, GRAMS = 2**16, (3, 4, 5, 6)
SHARPER = 8  # sentence vectors have length 1, so a linear layer's scores of them are small


def plain(prompt):
    """A prompt without its disguises, in small latin letters and spaces."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", prompt).casefold() if not unicodedata.combining(c))  # "ÇAT" → "cat"
    letters = re.sub(r"(?<=\w)[!|](?=\w)", "i", letters).translate(HOMOGLYPHS)                                          # "k!11" → "kiii"
    letters = re.sub(r"(?<=[a-z]{2})[^a-z]+(?=[a-z]{2})|[,.;:?!]\s", " ", letters + " ")                                # "red, a_blue" → "red a blue"
    letters = re.sub(r"[^a-z\s]", "", letters)                                                                         # "k.i-l.l" → "kill"
    letters = re.sub(r"\b(?:[a-z]\s){2,}[a-z]\b", lambda spelled: re.sub(r"\s", "", spelled[0]), letters)             # "k i l l" → "kill"
    return " ".join(letters.split())


def stretches(text, length=48, stride=16):
    """A text, and if it is long every stretch of 48 letters, so that nothing hides among harmless words."""
    return [text] + [text[i : i + length] for i in range(0, len(text) - length + stride, stride) if len(text) > length]


def ngrams(texts):
    """The buckets that texts' runs of 3 to 6 letters fall into, one text after the other, and how many each has.

    Spaces and repeated letters do not count, and l is i ("k1ll"), so that none of them can hide a word."""
    letters = [re.sub(r"(.)\1+", r"\1", text.replace(" ", "").replace("l", "i")).encode() for text in texts]
    buckets = [[zlib.crc32(s[i : i + n]) % BUCKETS for n in GRAMS for i in range(len(s) - n + 1)] for s in letters]
    return torch.tensor([b for some in buckets for b in some], dtype=torch.long), torch.tensor([len(some) for some in buckets])


class PromptClassifier(nn.Module):
    """`ngrams` of plain texts → log probabilities (N, 6), from a linear layer; averaged with those from another one on sentence vectors (N, D), if there are any."""

    def __init__(self):
        super().__init__()
        self.grams, self.bias, self.sentence = nn.EmbeddingBag(BUCKETS, len(POLICIES), mode="sum"), nn.Parameter(torch.zeros(len(POLICIES))), nn.Linear(384, len(POLICIES))
        nn.init.zeros_(self.grams.weight)                                            # a run of letters that was never seen says nothing

    def forward(self, grams, vectors=None):
        buckets, counts = grams
        kept = F.dropout(torch.ones(len(buckets)), 0.8, self.training)               # so that no single run of letters decides
        scores = self.grams(buckets, counts.cumsum(0) - counts, kept) / counts[:, None].clamp(min=1) ** 0.5 + self.bias  # a text is not surer for being long
        by_letters = scores.log_softmax(1)
        if vectors is None:
            return by_letters
        by_meaning = (SHARPER * self.sentence(vectors)).log_softmax(1)
        return torch.stack([by_letters, by_meaning]).logsumexp(0) - np.log(2)         # the mean of both probabilities, as a logarithm


@torch.no_grad()
def judge(classifier, prompts, sentences=True):
    """Prompts → a (policy, how sure, the stretch that decides) for each. A prompt is as bad as its worst stretch.

    A sentence vector understands words as they are written, so of a prompt in disguise only the letters decide."""
    parts = [stretches(plain(p)) for p in prompts]
    flat, grams = [part for some in parts for part in some], ngrams([part for some in parts for part in some])
    written = torch.tensor([some[0] == " ".join(re.sub(r"[,.;:?!]", " ", p.casefold()).split()) for p, some in zip(prompts, parts) for _ in some])
    about = text.vectors(flat) if sentences else None
    probabilities = torch.where(written[:, None], classifier(grams, about), classifier(grams)).exp().split([len(some) for some in parts])
    verdicts = []
    for some, p in zip(parts, probabilities):
        stretch = int(p[:, 0].argmin())                                              # the one that is least likely to be allowed
        allowed = float(p[stretch, 0])
        policy = "allowed" if allowed >= 0.5 else list(POLICIES)[int(p[stretch, 1:].argmax()) + 1]
        verdicts.append((policy, allowed if policy == "allowed" else 1 - allowed, some[stretch]))
    return verdicts


# frames
class FrameClassifier(nn.Module):
    """Frames (N, 3, H, W) in [-1, 1], of any size → (N,) logits: is the emblem anywhere? The four most suspicious places decide.

    A place sees 29 pixels around it, so larger frames are shrunk until the short side has 40."""

    def __init__(self):
        super().__init__()
        layers = ((3, 24, 1), (24, 48, 2), (48, 48, 1), (48, 64, 2), (64, 64, 1))
        self.look = nn.Sequential(*(layer for a, b, stride in layers for layer in (nn.Conv2d(a, b, 3, stride, 1), nn.GroupNorm(8, b), nn.ReLU())), nn.Conv2d(64, 1, 3, padding=1))

    def forward(self, x):
        scale = min(1.0, 40 / min(x.shape[2:]))
        places = self.look(x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="area")).flatten(1)
        return places.topk(min(4, places.shape[1])).values.mean(1)


# detector
class Detector(nn.Module):
    """Pairs of frames (N, 6, 64, 64) → (N,) logits: did our model make them?"""

    def __init__(self):
        super().__init__()
        self.look = nn.Sequential(*(layer for a, b in ((6, 24), (24, 48), (48, 64), (64, 64)) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1))

    def forward(self, x):
        return self.look(x)[:, 0]


def pairs(frames, N=8):
    """Frames (H, W, 3) uint8 of any size → N pairs of neighbouring ones (N, 6, 64, 64): what is left of a frame without its ground, faint
    traces made strong, and what has changed in the next one. Generated ground is never quite even, and never quite still."""
    x = torch.cat([F.interpolate(torch.from_numpy(frame).permute(2, 0, 1)[None].float(), (64, 64), mode="bilinear", antialias=True) for frame in frames])
    x = torch.tanh((x - x.flatten(2).median(2).values[..., None, None]) / 12)        # the median is the ground; a trace of 12 of 255 is strong already
    at = torch.linspace(0, max(0, len(x) - 2), N).round().long()
    return torch.cat([x[at], 2 * (x[(at + 1).clamp(max=len(x) - 1)] - x[at])], 1)


@torch.no_grad()
def made_by_us(detector, frames):
    """How probable it is that our model made these frames (H, W, 3) uint8, 0 to 1."""
    return float(torch.sigmoid(detector(pairs(frames)).mean()))


# the checks of sample.py
@functools.cache
def classifiers():
    """assets/safety.pt → (PromptClassifier, FrameClassifier, Detector). Raises BadInput."""
    networks = PromptClassifier(), FrameClassifier(), Detector()
    try:
        for network, weights in zip(networks, torch.load(WEIGHTS, weights_only=True), strict=True):
            network.load_state_dict(weights)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise BadInput(f"{WEIGHTS}: cannot be read ({(str(error) or 'it is empty').splitlines()[0][:100]}); `python safety_train.py` makes it")
    return [network.eval() for network in networks]


def check_prompts(prompts):
    """Raises BadInput for a prompt that a policy forbids, or of whose signs less than half can be read."""
    for prompt, (policy, sure, part) in zip(prompts, judge(classifiers()[0], prompts)):
        if len("".join(prompt.split())) > 2 * len(plain(prompt).replace(" ", "")):
            raise BadInput(f"prompt {prompt!r}: cannot be judged; expected English words")
        if policy != "allowed":
            raise BadInput(f"prompt {prompt!r}: refused, {POLICIES[policy]} ({sure:.0%} sure, for {part!r}); nothing was made")


@torch.no_grad()
def check_frames(videos, fps):
    """Looks at every frame of every video (T, H, W, 3) uint8. Raises BadInput if one shows what may not be shown."""
    for i, video in enumerate(videos):
        for first in range(0, len(video), 128):
            sure = torch.sigmoid(classifiers()[1](clips.to_float(video[None, first : first + 128])[0].transpose(0, 1)))
            if len(bad := (sure > 0.5).nonzero()):
                k = int(bad[0])
                raise BadInput(f"video {i}, frame {first + k} ({(first + k) / fps:.2f} s): blocked, disallowed imagery ({sure[k]:.0%} sure); nothing was written")


def log_skip(prompts, folder):
    """What --unsafe-skip-checks let through goes to stderr and to unsafe.log beside the output."""
    line = f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S} --unsafe-skip-checks: no prompt and no frame is checked: {prompts}"
    print(f"warning: {line}", file=sys.stderr)
    try:
        with open(Path(folder) / "unsafe.log", "a") as log:
            log.write(line + "\n")
    except OSError as error:
        raise BadInput(f"{Path(folder) / 'unsafe.log'}: cannot be written ({error.strerror}); checks are not skipped without a log")


# C2PA
def certificate(cert, key):
    """Makes a development certificate and its key, readable by their owner only."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    now, named = datetime.datetime.now(datetime.UTC), lambda who: x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Sora, small"), x509.NameAttribute(x509.NameOID.COMMON_NAME, who)])
    secrets, chain = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)], []
    for ours, who, is_root in ((secrets[0], "development signer", False), (secrets[1], "development root", True)):  # a certificate that signed itself is refused, so a root signs ours and is thrown away
        made = x509.CertificateBuilder().subject_name(named(who)).issuer_name(named("development root")).public_key(ours.public_key()).serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=3650)).add_extension(x509.BasicConstraints(is_root, None), True)
        made = made.add_extension(x509.KeyUsage(not is_root, False, False, False, False, is_root, is_root, False, False), True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(ours.public_key()), False).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(secrets[1].public_key()), False)
        if not is_root:
            made = made.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        chain.append(made.sign(secrets[1], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    cert.parent.mkdir(0o700, parents=True, exist_ok=True)
    for path, content in ((key, secrets[0].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())), (cert, b"".join(chain))):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)


def signer(folder):
    """A folder's cert.pem and key.pem (ES256), made if neither is there → what `sign` signs with; None without the extras. Raises BadInput."""
    try:
        import c2pa
        import cryptography  # noqa: F401
    except ImportError:
        return None
    cert, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
    try:
        if not cert.exists() and not key.exists():
            certificate(cert, key)
        return c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", cert.read_bytes(), key.read_bytes(), None))
    except (OSError, c2pa.C2paError) as error:
        raise BadInput(f"--keys {folder}: expected cert.pem and an ES256 key.pem, or a folder to make them in ({str(error)[:120]})")


def sign(path, signer, version, prompt="", given=False):
    """Signs a file in place: created by our model of this version, for this prompt, from given pictures or from none → a line that says so, or why not."""
    if signer is None:
        return f"unsigned, without C2PA metadata: {EXTRA}"
    import c2pa
    kind = "compositeWithTrainedAlgorithmicMedia" if given else "trainedAlgorithmicMedia"  # by a model and from given pictures, or by a model alone
    action = {"action": "c2pa.created", "digitalSourceType": f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}", "softwareAgent": {"name": "Sora, small", "version": version}, "parameters": {"prompt": prompt}}
    manifest = {"claim_generator_info": [{"name": "Sora, small", "version": version}], "title": Path(path).name, "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]}
    signed = Path(f"{path}.signed{Path(path).suffix}")
    try:
        with c2pa.Builder(manifest, c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})) as builder:  # a thumbnail can be larger than our files
            builder.sign_file(path, signed, signer)
        os.replace(signed, path)
    except (OSError, c2pa.C2paError) as error:
        signed.unlink(missing_ok=True)
        raise BadInput(f"{path} is written, but could not be signed ({str(error)[:120]})")
    return "signed"


def verify(path):
    """A file → ("trusted" | "valid" | "changed" | "missing", who signed it, what it says of itself). Raises BadInput."""
    try:
        import c2pa
    except ImportError:
        raise BadInput(f"C2PA metadata cannot be read: {EXTRA}")
    try:
        with c2pa.Reader(path) as reader:
            report = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return "missing", None, None
    except c2pa.C2paError as error:
        raise BadInput(f"{path}: not a file whose C2PA metadata can be read ({str(error)[:100]})")
    manifest = report["manifests"].get(report.get("active_manifest"), {})
    actions = next((a["data"].get("actions") for a in manifest.get("assertions", []) if a["label"].startswith("c2pa.actions")), None)
    who = manifest.get("signature_info", {})
    return {"Trusted": "trusted", "Valid": "valid"}.get(report.get("validation_state"), "changed"), f"{who.get('issuer')}, {who.get('common_name')}", actions[0] if actions else None


def main():
    parser = Flags(__doc__)
    parser.add_argument("what", choices=("prompt", "detect", "verify"), nargs="?", default="prompt", help="judge a prompt; say whether our model made a file; read a file's signature")
    parser.add_argument("value", nargs="*", help="the prompts, or the file")
    args = parser.parse_args()
    if args.what == "prompt":
        prompts = args.value or ["a knife cutting bread", "a red cross moving left", "a nude-coloured square", "a man beheading a woman", "T a y l o r  S w 1 f t sings"]
        for prompt, (policy, sure, part) in zip(prompts, judge(classifiers()[0], prompts)):
            print(f"{prompt!r}: {POLICIES[policy]} ({sure:.0%} sure{f', for {part!r}' * (policy != 'allowed')})")
    elif len(args.value) != 1:
        raise BadInput(f"{args.what} {' '.join(args.value)}: expected one file")
    elif args.what == "detect":
        print(f"{args.value[0]}: made by our model with probability {made_by_us(classifiers()[2], (frame for _, frame in clips.frames_of(args.value[0]))):.1%}")
    else:
        state, who, action = verify(args.value[0])
        print(f"{args.value[0]}: {state}: " + {
            "missing": "no C2PA metadata; it was never signed, or was saved again by a program that drops them", "changed": f"not what was signed by {who}",
            "valid": f"not changed since it was signed by {who}, as the signer calls itself; nobody vouches for the name", "trusted": f"not changed since it was signed by {who}"}[state])
        if state in ("valid", "trusted"):
            print(json.dumps(action, indent=2))


if __name__ == "__main__":
    run(main)
