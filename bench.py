"""Long checks that are no tests: what the choices cost and what they bring.

    python bench.py speed                                              seconds and ratios on this CPU
    python bench.py packing                                            clips of all shapes in one sequence, against padding them
    python bench.py schedules --checkpoint out/tiny/model.pt           every schedule with every target, trained alike

Times on a shared machine are noisy: trust ratios. Letters: B clips  N tokens
"""
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from data import video_io
from data import datasets
import evaluate
import train
from world import scenes
from config import Config, config_from_dict, count_tokens
from utils import checkpoint as checkpoints
from utils.cli import Flags, check_at_least, pick_device, run
from dit import DiT


def seconds(work, least=1.0):
    """The mean time of one call of work, over at least `least` seconds."""
    work()
    begun, calls = time.time(), 0
    while time.time() - begun < least:
        work()
        calls += 1
    return (time.time() - begun) / calls


def speed():
    """What the two CPU switches bring (config.device, patches.attention), and where a training step's time goes."""
    c, place = Config(), torch.device("cpu")
    a, b = torch.randn(c.dit_tokens, c.dit_width), torch.randn(4 * c.dit_width, c.dit_width)
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        print(f"matrix product, precision {precision!r}: {2 * a.numel() * len(b) / seconds(lambda: F.linear(a, b)) / 1e9:.0f} GFLOP/s")
    for B, N in ((32, 88), (16, 176), (8, 352), (4, 704)):
        q = torch.randn(B, c.dit_width // c.dit_head_dim, N, c.dit_head_dim, requires_grad=True)

        def attend(kernel):
            with sdpa_kernel(kernel):
                F.scaled_dot_product_attention(q, q, q).sum().backward()

        plain, fused = (1e3 * seconds(lambda: attend(kernel)) for kernel in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION))
        print(f"attention of {B} x {N} tokens, forward and backward: plain {plain:.1f} ms, fused {fused:.1f} ms")
    trainer = train.Trainer(c, datasets.WorldDataset(c).vocab(), place)
    source = datasets.WorldDataset(c)
    groups = [(video_io.to_float(video.to(place)), *rest) for video, *rest in source[0]]
    muon, adam = trainer.optimizers["dit"]
    loss = lambda: trainer.dit_loss(groups)[0]
    whole = {"draw the clips": lambda: source[0], "encode them": lambda: [trainer.encode(video) for video, *_ in groups], "encode, forward": loss,
             "encode, forward, backward": lambda: loss().backward(),  # leaves the gradients that the optimizers below use
             "Muon": muon.step, "AdamW": adam.step, "EMA": lambda: trainer.update_ema(0)}
    print(f"one DiT step of {c.dit_tokens} tokens: " + ", ".join(f"{name} {1e3 * seconds(work):.0f} ms" for name, work in whole.items()))


def packing(batches=4):
    """Forward and backward of a transformer on packed batches of configs/small.toml, and on the same clips padded to the largest of each batch."""
    preset = Path(__file__).parent / "configs/small.toml"
    c = config_from_dict(tomllib.loads(preset.read_text()), preset)
    source, dit = datasets.WorldDataset(c), DiT(c)

    def work(shapes):
        x = [torch.randn(B, c.latent_channels, t, h, w) for B, t, h, w in shapes]
        out = dit(x, [torch.rand(B, t) for B, t, _, _ in shapes], [torch.zeros(B, c.max_words, dtype=torch.long) for B, *_ in shapes])
        sum(y.square().mean() for y in out).backward()

    packed = padded = 0
    for k in range(batches):
        drawn = [shape for shape, _ in source.draw_packed_batch(np.random.default_rng(k))]
        groups = [(drawn.count((T, H, W)), 1 + T // 4, H // c.vae_space, W // c.vae_space) for T, H, W in sorted(set(drawn))]
        packed += seconds(lambda: work(groups))
        padded += seconds(lambda: work([(len(drawn), *max(group[1:] for group in groups))]))
    print(f"{batches} batches of {c.dit_tokens} tokens: packed {packed / batches:.2f} s, padded to the largest clip {padded / batches:.2f} s: packing is {padded / packed:.2f}x as fast")


def schedules(model, steps, batch, prompts):
    """Trains the DiT once per schedule and target on the checkpoint's VAE; prints README's table."""
    print(f"right {' / '.join(evaluate.ATTRIBUTES)}: {prompts} seen prompts, DDIM, {model.config.sample_steps} steps; trained for {steps} steps of {batch} clips\n")
    print("| | velocity | v | eps |\n|---|---|---|---|")
    for kind in ("flow", "cosine", "linear"):
        row = []
        for target in ("velocity", "v", "eps"):
            config = replace(model.config, schedule=kind, target=target, dit_steps=steps,
                             dit_tokens=batch * count_tokens(model.config, model.config.frames, model.config.height, model.config.width))
            trainer = train.Trainer(config, model.vocab, model.latent_scale.device)
            trainer.vae.load_state_dict(model.vae.state_dict())
            trainer.latent_scale, trainer.steps["vae"] = model.latent_scale, config.vae_steps
            folder = Path("out/bench") / f"{kind}-{target}"
            folder.mkdir(parents=True, exist_ok=True)
            train.train_dit(trainer, folder)
            found = evaluate.prompt_following(trainer.model(), scenes.SEEN, prompts, seed=10_000)
            row.append(" / ".join(f"{found[a]:.0%}" for a in evaluate.ATTRIBUTES))
        print(f"| {kind} | " + " | ".join(row) + " |", flush=True)


def main():
    parser = Flags(__doc__)
    parser.add_argument("what", choices=("speed", "packing", "schedules"))
    parser.add_argument("--checkpoint", default="out/tiny/model.pt", help="whose VAE and config `schedules` uses")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each run of `schedules`")
    parser.add_argument("--batch", type=int, default=16, help="clips a step of each run of `schedules`")
    parser.add_argument("--prompts", type=int, default=128, help="prompts each run of `schedules` is scored with")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where `schedules` computes")
    args = parser.parse_args()
    check_at_least(args, steps=1, batch=1, prompts=1)
    place = pick_device(args.device)
    if args.what == "speed":
        speed()
    elif args.what == "packing":
        packing()
    else:
        schedules(checkpoints.load_model(args.checkpoint, place), args.steps, args.batch, args.prompts)


if __name__ == "__main__":
    run(main)
