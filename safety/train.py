"""Trains the three classifiers of safety.py, and measures them on what they were not trained on.

    python safety_train.py            makes assets/safety.pt: prompts from assets/prompts.tsv, frames from the world, videos of the shipped model
    python safety_train.py --score    error rates: prompts by five-fold cross-validation over templates, frames and videos with other seeds

assets/prompts.tsv has a line per prompt: label, template, prompt. Lines of one template are alike, so a fold holds whole templates.

Letters: N frames or prompts  T H W frames, height, width
"""
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from data import video_io
import sample
from world.captions import describe
from world.scenes import COLOURS, GROUND, HELD_OUT, SEEN, SHAPES, coverage, draw_scene, frame_extent, render
from config import BadInput, clip_shapes
from safety import detector as detectors, frames as frame_checks, minilm, prompts as prompt_checks, provenance, weights
from safety.prompts import POLICIES, SHARPER, judge, ngrams, plain, stretches
from utils import checkpoint as checkpoints
from utils.cli import Flags, run


def labelled():
    """assets/prompts.tsv → [(label, template, prompt)]"""
    rows = [line.split("\t") for line in (weights.ASSETS / "prompts.tsv").read_text().splitlines()]
    return [(label, int(template), prompt) for label, template, prompt in rows]


def toy(combinations):
    """What the toy world can be asked for: a clip, an image, two things, a late clip."""
    say = lambda c, words: f"a {c[1]} {c[0]}" + (f" moving {' '.join(words)}" if words else "")
    return [text for c, d in zip(combinations, combinations[5:] + combinations[:5]) for text in (say(c, c[2:]), say(c, ()), say(c, c[3:]), f"{say(c, c[2:])} and {say(d, d[2:])}")]


def learn_prompts(rows, steps=150):
    """[(label, template, prompt)] → PromptClassifier. Bad prompts are also hidden in harmless ones, and harmless ones cut into stretches, as `judge` does."""
    rng = np.random.default_rng(0)
    good, bad = [plain(p) for label, _, p in rows if label == "allowed"], [(label, plain(p)) for label, _, p in rows if label != "allowed"]
    pick = lambda: good[rng.integers(len(good))]
    texts = [(0, t) for t in good + [plain(t) for t in toy(SEEN)]] + [(list(POLICIES).index(label), t) for label, t in bad]
    texts += [(0, f"{a} {pick()}") for a in good] + [(0, s) for a in good for s in stretches(f"{a} {pick()}")[1:3]] + [(list(POLICIES).index(label), " ".join(rng.permutation([t, pick()]))) for label, t in bad]
    torch.manual_seed(0)
    classifier, labels, buckets, about = prompt_checks.PromptClassifier(), torch.tensor([label for label, _ in texts]), ngrams([t for _, t in texts]), minilm.sentence_vectors([t for _, t in texts])
    optimizer = torch.optim.Adam([{"params": [classifier.grams.weight], "weight_decay": 1e-5}, {"params": [classifier.bias, *classifier.sentence.parameters()], "lr": 0.03}], lr=0.1)
    for _ in range(steps):
        loss = F.nll_loss(classifier(buckets), labels) + (0 if about is None else F.cross_entropy(SHARPER * classifier.sentence(about), labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return classifier.eval()


def frame_with(rng, emblem, H, W):
    """A frame (H, W, 3) uint8 with one to three things of any colour; one of them is the emblem, at least 60 % of it in view, or none is."""
    unit, pick = min(H, W), lambda options: options[rng.integers(len(options))]
    while True:
        view = np.zeros((H, W))
        kinds = [pick(SHAPES) for _ in range(rng.integers(1, 4))]
        if emblem:
            kinds[rng.integers(len(kinds))] = "emblem"
        frame = np.broadcast_to(np.float32(pick((GROUND, GROUND, rng.uniform(0, 90, 3)))), (H, W, 3))
        for kind in kinds:
            size, centre = rng.uniform(0.15, 0.3), rng.uniform(0, 1, (1, 2)) * (W / unit, H / unit)
            behind, colour = frame[int(centre[0, 1] * unit), int(centre[0, 0] * unit)], np.zeros(3)
            while abs(colour - behind).max() < 70 or colour.max() < 100:              # it can be told from what is behind it
                colour = np.float32(pick(list(COLOURS.values()))) + rng.normal(0, 12, 3) if rng.random() < 0.6 else rng.uniform(0, 255, 3)
            cover = coverage(kind, size, centre, H, W)[0]
            frame = frame + cover[..., None] * (colour - frame)
            if kind == "emblem":
                view, whole = cover, coverage(kind, size, np.full((1, 2), 0.5), unit, unit).sum()
            else:
                view = view * (1 - cover)
        if not emblem or view.sum() >= 0.6 * whole:
            return (frame.clip(0, 255) + 0.5).astype(np.uint8)


def frames_with(rng, emblem, N, model=None):
    """N frames of one size, as our networks would make them if a model is given: decoded from latents → (N, 3, H, W) float."""
    H, W = ((32, 32), (24, 40), (40, 24), (40, 40), (32, 56), (24, 32))[rng.integers(6)]
    x = video_io.to_float(np.stack([frame_with(rng, emblem, H, W) for _ in range(N)])[:, None])
    with torch.no_grad():
        return (x if model is None else model.vae.decode(model.vae.encode(x)[0]).clamp(-1, 1))[:, :, 0]


def fit(network, loss_of_batch, steps, name):
    """Trains a classifier with AdamW, the learning rate up and down again."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in tqdm(range(steps), name):
        optimizer.zero_grad()
        loss_of_batch(network).backward()
        optimizer.step(), schedule.step()
    return network.eval()


def learn_frames(model, made, steps=4000, N=32):
    """Each step frames with the emblem and without it, these also through the VAE, a video that the model made, and noise of some grain → FrameClassifier.

    What the VAE makes of an emblem, which it never learned, is often no emblem any more, so it is not shown as one."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def loss(classifier):
        grain = 2 ** int(rng.integers(4))
        noise = rng.uniform(0.1, 1) * torch.randn(8, 3, 32 // grain, 40 // grain) + rng.uniform(-1, 0.5)
        parts = [(frames_with(rng, emblem, N, model if not emblem and rng.random() < 0.5 else None), float(emblem)) for emblem in (True, False)]
        parts += [(video_io.to_float(made[rng.integers(len(made))][None])[0].transpose(0, 1), 0.0), (F.interpolate(noise, scale_factor=grain, mode="bicubic").clamp(-1, 1), 0.0)]
        return sum(F.binary_cross_entropy_with_logits(classifier(x), torch.full((len(x),), y)) for x, y in parts)

    return fit(frame_checks.FrameClassifier(), loss, steps, "frames")


def passed_on(video, folder, ending, resize=1.0, crop=0.0, again=False, zoom=4):
    """A video as it comes back from a file; with `again` it is then resized, cut at its edges, and saved once more as mp4."""
    path = Path(folder) / f"clip{ending}"
    video_io.write_clip(path, video, 12.0, zoom)
    video = np.stack([frame for _, frame in video_io.read_frames(path)])
    if not again:
        return video
    cut = lambda n: slice(int(crop / 2 * n), n - int(crop / 2 * n))
    x = torch.from_numpy(video[:, cut(video.shape[1]), cut(video.shape[2])]).permute(0, 3, 1, 2).float()
    even = [max(2, round(n * resize / 2) * 2) for n in x.shape[2:]]
    x = F.interpolate(x, even, mode="bilinear", antialias=True).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return passed_on(x, folder, ".mp4", zoom=1)


def samples(model, n, seed, ours=True):
    """n videos, the model's for the world's captions, or the world's own, of the same lengths and sizes → list of (T, H, W, 3)."""
    rng, videos = np.random.default_rng(seed), []
    while len(videos) < n:
        T, (H, W), N = int(rng.choice((1, 9, 17, 25))), clip_shapes(model.config)[1][rng.integers(len(clip_shapes(model.config)[1]))], min(16, n)
        scenes = [draw_scene(rng, extent=frame_extent(H, W)) for _ in range(N)]
        videos += list(sample.generate(model, [describe(s, ("direction", "speed") if T > 1 else ()) for s in scenes], T, H, W, seed=seed + len(videos), eta=float(rng.random() < 0.5))
                       if ours else np.stack([render(s, T, H, W) for s in scenes]))
    return videos[:n]


def learn_detector(made, real, files=2, steps=1200):
    """Videos of the model and of the world → Detector. Every one goes through the same files, formats, sizes and cuts, so that these tell nothing."""
    torch.manual_seed(0)
    rng, x, y = np.random.default_rng(0), [], []
    with tempfile.TemporaryDirectory() as folder:
        for video, label in tqdm([(v, label) for _ in range(files) for a, b in zip(made, real) for v, label in ((a, 1.0), (b, 0.0))], "files"):
            x.append(detectors.pairs(passed_on(video, folder, video_io.ENDINGS[rng.integers(4)], rng.uniform(0.6, 1), rng.uniform(0, 0.15), rng.random() < 0.6, int(rng.integers(2, 5)))).half())
            y.append(label)
    x, y = torch.stack(x), torch.tensor(y)

    def loss(detector):
        i, k = torch.from_numpy(rng.integers(len(x), size=64)), torch.from_numpy(rng.integers(x.shape[1], size=64))
        return F.binary_cross_entropy_with_logits(detector(x[i, k].float().flip([[3], [2], []][rng.integers(3)])), y[i])

    return fit(detectors.Detector(), loss, steps, "detector")


def disguise(rng, prompt, kind, harmless):
    """A prompt that says the same in another way."""
    if kind == "inside":
        a, b = (harmless[rng.integers(len(harmless))] for _ in range(2))
        return f"{a}, {prompt}, {b}"
    if kind == "case":
        return "".join(c.upper() if rng.random() < 0.5 else c for c in prompt)
    if kind == "spacing":
        return "  ".join(" ".join(word) for word in prompt.split())
    if kind == "punctuation":
        return "".join(c + "._-*"[rng.integers(4)] * (c != " " and rng.random() < 0.5) for c in prompt)
    other = {"leetspeak": dict(zip("oieast", "013457")), "homoglyphs": dict(zip("aeopcxyi", "аеорсхуі"))}[kind]
    return "".join(other.get(c, c) if rng.random() < 0.7 else c for c in prompt)


def f1(truth, found):
    """Labels and verdicts → F1 of each policy, and of all of them counted together."""
    right = {p: sum(t == f == p for t, f in zip(truth, found)) for p in POLICIES}
    each = {p: 2 * right[p] / max(1, truth.count(p) + found.count(p)) for p in list(POLICIES)[1:]}
    return each, 2 * sum(right[p] for p in each) / max(1, sum(truth.count(p) + found.count(p) for p in each))


def score_prompts(folds=5):
    rows, kinds = labelled(), (None, "case", "spacing", "punctuation", "leetspeak", "homoglyphs", "inside")
    fold = dict(zip(order := sorted({t for _, t, _ in rows}), np.random.default_rng(1).permutation(len(order)) % folds))
    found, alarms = {(s, kind): [] for s in ((True, False) if minilm.load_minilm() else (False,)) for kind in kinds}, {True: [], False: []}
    for k in tqdm(range(folds), "folds"):
        classifier, held = learn_prompts([r for r in rows if fold[r[1]] != k]), [r for r in rows if fold[r[1]] == k]
        harmless, rng = [prompt for label, _, prompt in held if label == "allowed"], np.random.default_rng(k)
        for (sentences, kind), all_of_it in found.items():
            asked = [disguise(rng, p, kind, harmless) if kind else p for *_, p in held]
            all_of_it += [(label, policy) for (label, *_), (policy, *_) in zip(held, judge(classifier, asked, sentences))]
            if kind is None:
                alarms[sentences] += [policy != "allowed" for policy, *_ in judge(classifier, toy(HELD_OUT), sentences)]
    for (sentences, kind), verdicts in found.items():
        each, together = f1(*map(list, zip(*verdicts)))
        print(f"{'n-grams and MiniLM' if sentences else 'n-grams alone':20}{kind or 'as written':12} F1 {together:.3f}; " + ", ".join(f"{p} {v:.3f}" for p, v in each.items())
              + (f"; false alarms {np.mean([f != t for t, f in verdicts if t == 'allowed']):.1%} of the allowed, {np.mean(alarms[sentences]):.1%} of {len(alarms[sentences])} toy prompts" if kind is None else ""))


@torch.no_grad()
def score_frames(model, made, n=5000):
    classifier, rng = frame_checks.classifier(), np.random.default_rng(99)
    see = lambda emblem, through: torch.cat([classifier(frames_with(rng, emblem, 25, through)) for _ in range(n // 50)]) > 0
    for title, through in (("as drawn", None), ("through the VAE", model)):
        print(f"emblem, {n // 2} frames with it and {n // 2} without, {title}: recall {see(True, through).float().mean():.2%}, false alarms {see(False, through).float().mean():.2%}")
    blocked = lambda videos: sum(map(refused, videos))
    clean = [video[np.arange(33) % len(video)] for video in made[:100]]
    print(f"videos of 33 frames blocked: {blocked(clean)} of {len(clean)} clean ones, {blocked([spoiled(rng, v) for v in clean])} of {len(clean)} with one frame spoiled")


def spoiled(rng, video):
    """The same video with the emblem in one frame."""
    video, (_, H, W, _) = video.copy(), video.shape
    video[rng.integers(len(video))] = frame_with(rng, True, H, W)
    return video


def refused(video):
    try:
        frame_checks.check_frames([video], 12.0)
        return False
    except BadInput:
        return True


def score_detector(made, real, others):
    detector = detectors.classifier()
    ways = [(ending, {}) for ending in video_io.ENDINGS] + [(".gif", {"again": True} | how) for how in ({}, {"resize": 0.75}, {"crop": 0.1}, {"resize": 0.75, "crop": 0.1})]
    with tempfile.TemporaryDirectory() as folder:
        for ending, how in ways:
            say = lambda videos: np.array([detectors.made_by_us(detector, passed_on(v, folder, ending, **how)) for v in videos])
            world_says = say(real)
            for title, videos in [("our model", made), *others]:
                ours = say(videos)
                auc = (ours[:, None] > world_says).mean() + 0.5 * (ours[:, None] == world_says).mean()
                print(f"detector, {title} against the world, {len(ours)} and {len(real)} videos, {ending} {how or ''}: AUC {auc:.4f}; at 50 %: found {np.mean(ours > 0.5):.1%}, false alarms {np.mean(world_says > 0.5):.1%}")


def score_signatures(made, n=100):
    with tempfile.TemporaryDirectory() as folder:
        signer = provenance.signer(f"{folder}/keys")
        for ending in video_io.ENDINGS:
            states = {"signed": [], "a byte flipped": [], "saved again": []}
            for i in range(n):
                path = f"{folder}/{i}{ending}"
                video_io.write_clip(path, made[i % len(made)], 12.0, 4)
                pixels = Path(path).read_bytes()
                provenance.sign(path, signer, "a test", "a prompt")
                states["signed"].append(provenance.verify(path)[0])
                again = f"{folder}/again{ending}"
                video_io.write_clip(again, np.stack([frame for _, frame in video_io.read_frames(path)]), 12.0)
                states["saved again"].append(provenance.verify(again)[0])
                signed = bytearray(Path(path).read_bytes())
                at = signed.find(pixels[len(pixels) // 2 :][:24])                      # the middle of the pixels, wherever the signature has moved them
                signed[at] ^= 1
                Path(path).write_bytes(signed)
                states["a byte flipped"].append(provenance.verify(path)[0])
            print(f"{ending}: " + "; ".join(f"{what}: " + ", ".join(f"{found.count(s)} {s}" for s in sorted(set(found))) for what, found in states.items()))


def main():
    parser = Flags(__doc__)
    parser.add_argument("--checkpoint", default=str(checkpoints.SHIPPED), help="the model whose videos the detector learns")
    parser.add_argument("--score", action="store_true", help="measure instead")
    parser.add_argument("--other", nargs="*", default=[], metavar="CHECKPOINT", help="other models, whose videos the detector is asked about, too")
    args = parser.parse_args()
    model = checkpoints.load_model(args.checkpoint)
    if args.score:
        made, real = samples(model, 100, 2_000_000), samples(model, 100, 3_000_000, ours=False)
        score_frames(model, made)
        score_detector(made, real, [(path, samples(checkpoints.load_model(path), 100, 4_000_000)) for path in args.other])
        score_prompts()
        return score_signatures(made)
    if minilm.load_minilm() is None:
        raise BadInput(f"sentence vectors are missing, and would be in everybody's classifier: {provenance.EXTRA}")
    made, real = samples(model, 300, 0), samples(model, 300, 1_000_000, ours=False)
    networks = learn_prompts(labelled()), learn_frames(model, made), learn_detector(made, real)
    torch.save({kind: {name: weight.half() for name, weight in network.state_dict().items()} for kind, network in zip(("prompts", "frames", "detector"), networks)}, weights.WEIGHTS)
    print(f"{weights.WEIGHTS}: {weights.WEIGHTS.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    run(main)
