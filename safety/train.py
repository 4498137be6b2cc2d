"""Trains the three classifiers of safety/, and measures them on what they were not trained on.

    python -m safety.train            makes assets/safety.pt: prompts from assets/prompts.tsv, frames from
                                      the world, videos of the shipped model
    python -m safety.train --score    error rates: prompts by five-fold cross-validation over templates,
                                      frames and videos with other seeds

assets/prompts.tsv has a line per prompt: label, template, prompt. Lines of one template are alike, so a fold
holds whole templates. assets/prompts-outside.tsv (label, prompt) was written by somebody who saw nothing of
that file, and nothing learns from it.

Letters
    N   frames or videos in a batch
    T   frames of a video
    H W height, width in pixels
"""
from config import BadInput, clip_shapes

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import sample
from data import video_io
from safety import detector as detectors
from safety import frames as frame_checks
from safety import minilm, provenance, weights
from safety import prompts as prompt_checks
from safety.prompts import POLICIES, SHARPER, judge, ngrams, plain, stretches
from utils import checkpoint as checkpoints
from utils.cli import Flags, progress_bar, run
from world.captions import describe, describe_briefly, describe_fully
from world.scenes import (
    COLOURS,
    GROUND,
    HELD_OUT,
    KINDS,
    SEEN,
    SIMPLE_SHAPES,
    coverage,
    draw_rich_scene,
    draw_scene,
    frame_extent,
    render,
)

DISGUISES = ("case", "spacing", "punctuation", "leetspeak", "homoglyphs", "inside")
LEETSPEAK = dict(zip("oieast", "013457", strict=True))
LOOK_ALIKES = dict(zip("aeopcxyi", "аеорсхуі", strict=True))  # cyrillic
FRAME_SIZES = ((32, 32), (24, 40), (40, 24), (40, 40), (32, 56), (24, 32))
FPS = 12.0
RICH_PROMPTS = 400  # captions of the rich world that the classifier of prompts learns from


def pick(rng, options):
    return options[rng.integers(len(options))]


# Prompts


def labelled():
    """assets/prompts.tsv → [(label, template, prompt)]"""
    rows = []
    for line in (weights.ASSETS / "prompts.tsv").read_text().splitlines():
        label, template, prompt = line.split("\t")
        rows.append((label, int(template), prompt))
    return rows


def toy(combinations):
    """What the toy world can be asked for: a clip, an image, a clip without a speed, two things."""
    prompts = []
    others = combinations[5:] + combinations[:5]
    for combination, other in zip(combinations, others, strict=True):
        clip = toy_prompt(combination, combination[2:])
        prompts.append(clip)
        prompts.append(toy_prompt(combination, ()))
        prompts.append(toy_prompt(combination, combination[3:]))
        prompts.append(f"{clip} and {toy_prompt(other, other[2:])}")
    return prompts


def toy_prompt(combination, motion):
    """("circle", "red", ...), ("left", "slowly") → "a red circle moving left slowly"."""
    thing = f"a {combination[1]} {combination[0]}"
    if not motion:
        return thing
    return f"{thing} moving {' '.join(motion)}"


def rich_prompts(rng, count):
    """Captions of the rich world, each kind of scene as often as the others, full ones and brief ones."""
    prompts = []
    kinds = list(KINDS)
    for number in range(count):
        scene = draw_rich_scene(rng, kinds[number % len(kinds)])
        describe_rich = pick(rng, (describe_fully, describe_briefly))
        prompts.append(describe_rich(scene, rng))
    return prompts


def training_texts(rows, rng):
    """[(label, template, prompt)] → the plain texts to learn from, and their labels as indices of POLICIES.

    Bad prompts are also hidden beside harmless ones, and harmless ones cut as `judge` does."""
    good = [plain(prompt) for label, _, prompt in rows if label == "allowed"]
    forbidden = [row for row in rows if row[0] != "allowed"]
    bad = [(plain(prompt), prompt_checks.NAMES.index(label)) for label, _, prompt in forbidden]
    toy_texts = [plain(prompt) for prompt in toy(SEEN) + rich_prompts(rng, RICH_PROMPTS)]

    # A long caption is judged in stretches, which may begin and end anywhere in a word.
    toy_texts += [stretch for text in toy_texts for stretch in stretches(text)[1:]]

    # Every harmless text also before another one: whole, and in two of the stretches that `judge` cuts.
    longer = [f"{text} {pick(rng, good)}" for text in good]
    cut = []
    for text in good:
        cut += stretches(f"{text} {pick(rng, good)}")[1:3]

    # Every bad text also before or after a harmless one.
    hidden = []
    for text, label in bad:
        both = rng.permutation([text, pick(rng, good)])
        hidden.append((" ".join(both), label))

    pairs = [(text, 0) for text in good + toy_texts] + bad
    pairs += [(text, 0) for text in longer + cut] + hidden
    return [text for text, _ in pairs], torch.tensor([label for _, label in pairs])


def learn_prompts(rows, steps=150):
    """[(label, template, prompt)] → a PromptClassifier, trained on all texts at once in every step."""
    texts, labels = training_texts(rows, np.random.default_rng(0))
    torch.manual_seed(0)
    classifier = prompt_checks.PromptClassifier()
    grams = ngrams(texts)
    vectors = minilm.sentence_vectors(texts)

    # Most runs of letters are rare, so their table is pulled towards zero and learns faster than the rest.
    table = {"params": [classifier.grams.weight], "weight_decay": 1e-5}
    rest = {"params": [classifier.bias, *classifier.sentence.parameters()], "lr": 0.03}
    optimizer = torch.optim.Adam([table, rest], lr=0.1)
    for _ in range(steps):
        # Each of the two linear classifiers has a loss of its own: either must be able to judge alone.
        loss = F.nll_loss(classifier(grams), labels)
        if vectors is not None:
            loss = loss + F.cross_entropy(SHARPER * classifier.sentence(vectors), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.eval()


# Frames


def frame_with(rng, emblem, H, W):
    """A frame (H, W, 3) uint8 with one to three things of any colour.

    One of them is the emblem, at least 60 % of it in view, or none is."""
    while True:
        kinds = [pick(rng, SIMPLE_SHAPES) for _ in range(rng.integers(1, 4))]
        if emblem:
            kinds[rng.integers(len(kinds))] = "emblem"
        frame, in_view = draw_things(rng, kinds, H, W)
        if not emblem or in_view >= 0.6:
            return (frame.clip(0, 255) + 0.5).astype(np.uint8)


def draw_things(rng, kinds, H, W):
    """Draws things one over the other → the frame (H, W, 3), and the part of the emblem in view."""
    unit = min(H, W)
    ground = pick(rng, (GROUND, GROUND, rng.uniform(0, 90, 3)))
    frame = np.broadcast_to(np.float32(ground), (H, W, 3))
    view = np.zeros((H, W))
    whole = 1.0

    for kind in kinds:
        size = rng.uniform(0.15, 0.3)
        centre = rng.uniform(0, 1, (1, 2)) * (W / unit, H / unit)
        row = int(centre[0, 1] * unit)
        column = int(centre[0, 0] * unit)
        colour = distinct_colour(rng, frame[row, column])
        cover = coverage(kind, size, centre, H, W)[0]
        frame = frame + cover[..., None] * (colour - frame)

        # What is drawn over the emblem hides it; what it would cover in the middle of a frame is all of it.
        if kind == "emblem":
            view = cover
            whole = coverage(kind, size, np.full((1, 2), 0.5), unit, unit).sum()
        else:
            view = view * (1 - cover)
    return frame, view.sum() / whole


def distinct_colour(rng, behind):
    """A colour that can be told from what is behind it: a colour of the world, varied, or any other."""
    colour = np.zeros(3)
    while abs(colour - behind).max() < 70 or colour.max() < 100:
        if rng.random() < 0.6:
            colour = np.float32(pick(rng, list(COLOURS.values()))) + rng.normal(0, 12, 3)
        else:
            colour = rng.uniform(0, 255, 3)
    return colour


@torch.no_grad()
def frames_with(rng, emblem, N, model=None):
    """N frames of one size (N, 3, H, W) in [-1, 1]; with a model through its VAE and back."""
    H, W = pick(rng, FRAME_SIZES)
    frames = np.stack([frame_with(rng, emblem, H, W) for _ in range(N)])
    x = video_io.to_float(frames[:, None])                                    # (N, 3, 1, H, W)
    if model is not None:
        x = model.vae.decode(model.vae.encode(x)[0]).clamp(-1, 1)
    return x[:, :, 0]


def fit(network, loss_of_batch, steps, name):
    """Trains a classifier with AdamW, the learning rate up and down again."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in progress_bar(range(steps), desc=name):
        optimizer.zero_grad()
        loss_of_batch(network).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def learn_frames(model, made, steps=4000, N=32):
    """Trains a FrameClassifier. Each step sees frames with the emblem and frames without it, these also
    through the VAE, a video that the model made, and noise of some grain.

    What the VAE makes of an emblem, which it never learned, is often no emblem any more."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def loss(classifier):
        noise = grainy_noise(rng)
        with_emblem = frames_with(rng, True, N)
        through_vae = rng.random() < 0.5
        without = frames_with(rng, False, N, model if through_vae else None)
        video = video_io.to_float(pick(rng, made)[None])[0].transpose(0, 1)   # (T, 3, H, W)

        total = 0
        for x, label in ((with_emblem, 1.0), (without, 0.0), (video, 0.0), (noise, 0.0)):
            total = total + F.binary_cross_entropy_with_logits(classifier(x), torch.full((len(x),), label))
        return total

    return fit(frame_checks.FrameClassifier(), loss, steps, "frames")


def grainy_noise(rng):
    """Eight frames of noise (8, 3, 32, 40), its grain 1, 2, 4 or 8 pixels wide."""
    grain = 2 ** int(rng.integers(4))
    strength = rng.uniform(0.1, 1)
    noise = strength * torch.randn(8, 3, 32 // grain, 40 // grain) + rng.uniform(-1, 0.5)
    return F.interpolate(noise, scale_factor=grain, mode="bicubic").clamp(-1, 1)


# Videos


def passed_on(video, folder, ending, resize=1.0, crop=0.0, again=False, zoom=4):
    """A video as it comes back from a file; with `again` then resized, cut at its edges, and saved as mp4."""
    path = Path(folder) / f"clip{ending}"
    video_io.write_clip(path, video, FPS, zoom)
    video = np.stack([frame for _, frame in video_io.read_frames(path)])
    if not again:
        return video

    rows = cut_edges(video.shape[1], crop)
    columns = cut_edges(video.shape[2], crop)
    x = torch.from_numpy(video[:, rows, columns]).permute(0, 3, 1, 2).float()  # (T, 3, H, W)
    even = [max(2, round(length * resize / 2) * 2) for length in x.shape[2:]]  # mp4 wants even sizes
    x = F.interpolate(x, even, mode="bilinear", antialias=True)
    x = x.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return passed_on(x, folder, ".mp4", zoom=1)


def cut_edges(length, crop):
    """The middle of an axis, half of `crop` (0 to 1) cut off at either end → slice."""
    edge = int(crop / 2 * length)
    return slice(edge, length - edge)


def samples(model, n, seed, ours=True):
    """n videos (T, H, W, 3) uint8 of several lengths and sizes: the model's for the world's captions, or the
    world's own."""
    rng = np.random.default_rng(seed)
    sizes = clip_shapes(model.config)[1]
    videos = []
    while len(videos) < n:
        T = int(rng.choice((1, 9, 17, 25)))
        H, W = pick(rng, sizes)
        scenes = [draw_scene(rng, extent=frame_extent(H, W)) for _ in range(min(16, n))]
        if ours:
            motion = ("direction", "speed") if T > 1 else ()
            prompts = [describe(scene, motion) for scene in scenes]
            eta = float(rng.random() < 0.5)
            videos += list(sample.generate(model, prompts, T, H, W, seed=seed + len(videos), eta=eta))
        else:
            videos += [render(scene, T, H, W) for scene in scenes]
    return videos[:n]


def learn_detector(made, real, files=2, steps=1200):
    """Videos of the model and of the world → a Detector.

    Both kinds go through the same files, formats, sizes and cuts, so that these tell nothing."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x, labels = detector_examples(rng, made, real, files)

    def loss(detector):
        videos = torch.from_numpy(rng.integers(len(x), size=64))
        pairs = torch.from_numpy(rng.integers(x.shape[1], size=64))
        flipped_axes = pick(rng, ([3], [2], []))
        logits = detector(x[videos, pairs].float().flip(flipped_axes))
        return F.binary_cross_entropy_with_logits(logits, labels[videos])

    return fit(detectors.Detector(), loss, steps, "detector")


def detector_examples(rng, made, real, files):
    """Every video `files` times through some file → pairs (videos, N, 6, 64, 64) half, labels (videos,)."""
    videos = []
    for ours, theirs in zip(made, real, strict=True):
        videos += [(ours, 1.0), (theirs, 0.0)]
    videos = videos * files

    x = []
    with tempfile.TemporaryDirectory() as folder:
        for video, _ in progress_bar(videos, desc="files"):
            ending = video_io.ENDINGS[rng.integers(4)]
            change = {
                "resize": rng.uniform(0.6, 1),
                "crop": rng.uniform(0, 0.15),
                "again": rng.random() < 0.6,
                "zoom": int(rng.integers(2, 5)),
            }
            x.append(detectors.pairs(passed_on(video, folder, ending, **change)).half())
    return torch.stack(x), torch.tensor([label for _, label in videos])


# Scores


def disguise(rng, prompt, kind, harmless):
    """A prompt that says the same in another way. kind: one of DISGUISES; harmless: prompts beside it."""
    if kind == "inside":
        before = pick(rng, harmless)
        after = pick(rng, harmless)
        return f"{before}, {prompt}, {after}"
    if kind == "case":
        return "".join(letter.upper() if rng.random() < 0.5 else letter for letter in prompt)
    if kind == "spacing":
        return "  ".join(" ".join(word) for word in prompt.split())

    disguised = ""
    for letter in prompt:
        if kind == "punctuation":
            sign = pick(rng, "._-*")
            if letter != " " and rng.random() < 0.5:
                letter += sign
        elif rng.random() < 0.7:
            others = LEETSPEAK if kind == "leetspeak" else LOOK_ALIKES
            letter = others.get(letter, letter)
        disguised += letter
    return disguised


def f1(truth, found):
    """Labels and verdicts → {policy: F1}, and F1 of all policies counted together."""
    policies = list(POLICIES)[1:]
    right = {}
    for policy in policies:
        right[policy] = sum(t == f == policy for t, f in zip(truth, found, strict=True))
    named = {policy: truth.count(policy) + found.count(policy) for policy in policies}
    each = {policy: 2 * right[policy] / max(1, named[policy]) for policy in policies}
    return each, 2 * sum(right.values()) / max(1, sum(named.values()))


def score_prompts(folds=5):
    """Prints F1 of prompts held out by template, as written and in every disguise, and the false alarms."""
    rows = labelled()
    templates = sorted({template for _, template, _ in rows})
    numbers = np.random.default_rng(1).permutation(len(templates)) % folds
    fold = dict(zip(templates, numbers, strict=True))

    kinds = (None, *DISGUISES)
    with_sentences = (True, False) if minilm.load_minilm() else (False,)
    found = {(sentences, kind): [] for sentences in with_sentences for kind in kinds}
    toy_alarms = {True: [], False: []}
    for k in progress_bar(range(folds), desc="folds"):
        classifier = learn_prompts([row for row in rows if fold[row[1]] != k])
        held = [row for row in rows if fold[row[1]] == k]
        rng = np.random.default_rng(k)
        for (sentences, kind), verdicts in found.items():
            verdicts += judge_disguised(classifier, held, rng, kind, sentences)
            if kind is None:
                toy_verdicts = judge(classifier, toy(HELD_OUT), sentences)
                toy_alarms[sentences] += [policy != "allowed" for policy, _, _ in toy_verdicts]

    for (sentences, kind), verdicts in found.items():
        print(prompt_scores(verdicts, sentences, kind, toy_alarms[sentences]))


def score_outside_prompts():
    """Prints how many harmless and how many forbidden prompts of assets/prompts-outside.tsv are refused."""
    rows = [line.split("\t") for line in (weights.ASSETS / "prompts-outside.tsv").read_text().splitlines()]
    for sentences in (True, False) if minilm.load_minilm() else (False,):
        verdicts = judge(prompt_checks.classifier(), [prompt for _, prompt in rows], sentences)
        refused = {"harmless": [], "forbidden": []}
        for (label, _), (policy, _, _) in zip(rows, verdicts, strict=True):
            kind = "harmless" if label == "allowed" else "forbidden"
            refused[kind].append(policy != "allowed")
        title = "n-grams and MiniLM" if sentences else "n-grams alone"
        shares = [f"{np.mean(each):.1%} of {len(each)} {kind}" for kind, each in refused.items()]
        print(f"{title:20}outside list: refused {', '.join(shares)} prompts")


def judge_disguised(classifier, rows, rng, kind, sentences):
    """Rows of prompts, each in a disguise (None: as it is) → [(label, policy found)]."""
    harmless = [prompt for label, _, prompt in rows if label == "allowed"]
    asked = [prompt for _, _, prompt in rows]
    if kind is not None:
        asked = [disguise(rng, prompt, kind, harmless) for prompt in asked]
    verdicts = judge(classifier, asked, sentences)
    return [(row[0], verdict[0]) for row, verdict in zip(rows, verdicts, strict=True)]


def prompt_scores(verdicts, sentences, kind, toy_alarms):
    """One line of the table: [(label, policy found)] → F1 together and of each policy."""
    each, together = f1([label for label, _ in verdicts], [policy for _, policy in verdicts])
    title = "n-grams and MiniLM" if sentences else "n-grams alone"
    scores = ", ".join(f"{policy} {score:.3f}" for policy, score in each.items())
    line = f"{title:20}{kind or 'as written':12} F1 {together:.3f}; {scores}"
    if kind is not None:
        return line
    alarms = np.mean([policy != label for label, policy in verdicts if label == "allowed"])
    line += f"; false alarms {alarms:.1%} of the allowed, "
    return line + f"{np.mean(toy_alarms):.1%} of {len(toy_alarms)} toy prompts"


@torch.no_grad()
def score_frames(model, made, n=5000):
    """Prints recall and false alarms over n frames, and how many of the model's videos are blocked."""
    classifier = frame_checks.classifier()
    rng = np.random.default_rng(99)
    for title, through in (("as drawn", None), ("through the VAE", model)):
        seen = {}
        for emblem in (True, False):
            logits = [classifier(frames_with(rng, emblem, 25, through)) for _ in range(n // 50)]
            seen[emblem] = (torch.cat(logits) > 0).float().mean()
        print(
            f"emblem, {n // 2} frames with it and {n // 2} without, {title}: "
            f"recall {seen[True]:.2%}, false alarms {seen[False]:.2%}"
        )

    # Videos of one length, so that each has as many frames to raise an alarm.
    clean = [video[np.arange(33) % len(video)] for video in made[:100]]
    clean_blocked = sum(refused(video) for video in clean)
    spoiled_blocked = sum(refused(spoiled(rng, video)) for video in clean)
    print(
        f"videos of 33 frames blocked: {clean_blocked} of {len(clean)} clean ones, "
        f"{spoiled_blocked} of {len(clean)} with one frame spoiled"
    )


def spoiled(rng, video):
    """The same video with the emblem in one frame."""
    video = video.copy()
    T, H, W, _ = video.shape
    video[rng.integers(T)] = frame_with(rng, True, H, W)
    return video


def refused(video):
    try:
        frame_checks.check_frames([video], FPS)
    except BadInput:
        return True
    return False


def score_detector(made, real, others):
    """Prints AUC and error rates of the detector after every file format and every change.

    others: [(title, videos)] of other models."""
    detector = detectors.classifier()
    changes = [(ending, {}) for ending in video_io.ENDINGS]
    for change in ({}, {"resize": 0.75}, {"crop": 0.1}, {"resize": 0.75, "crop": 0.1}):
        changes.append((".gif", {"again": True} | change))

    with tempfile.TemporaryDirectory() as folder:
        for ending, change in changes:
            probs_of = functools.partial(detector_probs, detector, folder, ending, change)
            real_probs = probs_of(real)
            for title, videos in [("our model", made), *others]:
                probs = probs_of(videos)
                print(
                    f"detector, {title} against the world, {len(probs)} and {len(real)} videos, "
                    f"{ending} {change or ''}: AUC {auc(probs, real_probs):.4f}; "
                    f"at 50 %: found {np.mean(probs > 0.5):.1%}, false alarms {np.mean(real_probs > 0.5):.1%}"
                )


def detector_probs(detector, folder, ending, change, videos):
    """The detector's probability for every video, after it went through a file."""
    return np.array([detectors.made_by_us(detector, passed_on(v, folder, ending, **change)) for v in videos])


def auc(positives, negatives):
    """The probability that a positive has the higher score of a pair; equal scores count half."""
    higher = (positives[:, None] > negatives).mean()
    equal = (positives[:, None] == negatives).mean()
    return higher + 0.5 * equal


def score_signatures(made, n=100):
    """Prints, for every file format, what `verify` says of files signed, damaged, and saved again."""
    with tempfile.TemporaryDirectory() as folder:
        signer = provenance.signer(f"{folder}/keys")
        for ending in video_io.ENDINGS:
            states = {"signed": [], "a byte flipped": [], "saved again": []}
            for i in range(n):
                path = Path(folder) / f"{i}{ending}"
                for change, state in signature_states(path, made[i % len(made)], signer).items():
                    states[change].append(state)
            print(f"{ending}: " + "; ".join(f"{change}: {tally(found)}" for change, found in states.items()))


def signature_states(path, video, signer):
    """Signs one video → {what was done to the file: what `verify` says then}."""
    video_io.write_clip(path, video, FPS, 4)
    unsigned = path.read_bytes()
    provenance.sign(str(path), signer, "a test", "a prompt")
    signed_state = provenance.verify(str(path))[0]

    again = path.with_name(f"again{path.suffix}")
    video_io.write_clip(again, np.stack([frame for _, frame in video_io.read_frames(path)]), FPS)
    again_state = provenance.verify(str(again))[0]

    # A bit in the middle of the pixels, wherever the signature has moved them.
    signed = bytearray(path.read_bytes())
    middle = signed.find(unsigned[len(unsigned) // 2 :][:24])
    signed[middle] ^= 1
    path.write_bytes(signed)
    flipped_state = provenance.verify(str(path))[0]
    return {"signed": signed_state, "a byte flipped": flipped_state, "saved again": again_state}


def tally(states):
    """["valid", "valid", "changed"] → "1 changed, 2 valid"."""
    return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))


def score_all(model, other_paths):
    made = samples(model, 100, 2_000_000)
    real = samples(model, 100, 3_000_000, ours=False)
    score_frames(model, made)
    others = [(path, samples(checkpoints.load_model(path), 100, 4_000_000)) for path in other_paths]
    score_detector(made, real, others)
    score_prompts()
    score_outside_prompts()
    score_signatures(made)


def train_all(model):
    """Trains all three classifiers and writes assets/safety.pt, in half precision. Raises BadInput."""
    if minilm.load_minilm() is None:
        raise BadInput(
            f"sentence vectors are missing, and would be in everybody's classifier: {provenance.EXTRA}"
        )
    made = samples(model, 300, 0)
    real = samples(model, 300, 1_000_000, ours=False)
    networks = {
        "prompts": learn_prompts(labelled()),
        "frames": learn_frames(model, made),
        "detector": learn_detector(made, real),
    }
    saved = {}
    for kind, network in networks.items():
        saved[kind] = {name: weight.half() for name, weight in network.state_dict().items()}
    torch.save(saved, weights.WEIGHTS)
    print(f"{weights.WEIGHTS}: {weights.WEIGHTS.stat().st_size / 1e6:.2f} MB")


def main():
    parser = Flags(__doc__)
    parser.add_argument(
        "--checkpoint",
        default=checkpoints.SHIPPED,
        metavar="FILE",
        help="the model whose videos the detector learns (default: assets/small.pt)",
    )
    parser.add_argument("--score", action="store_true", help="measure instead")
    parser.add_argument(
        "--other",
        nargs="*",
        default=[],
        metavar="FILE",
        help="other models, whose videos the detector is asked about, too (default: none)",
    )
    args = parser.parse_args()
    model = checkpoints.load_model(args.checkpoint)
    checkpoints.check_is_trained(model)
    if args.score:
        score_all(model, args.other)
    else:
        train_all(model)


if __name__ == "__main__":
    run(main)
