import bench
from utils import checkpoint as checkpoint_io


def test_every_pair_of_schedule_and_target_trains_samples_and_is_scored(command, checkpoint):
    code, out, err = command(bench, "schedules", "--checkpoint", checkpoint, "--steps", 1, "--batch", 2, "--prompts", 2, "--device", "cpu")
    rows = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith("| ") and "%" in line]
    assert code == 0 and [row[0].strip() for row in rows] == ["flow", "cosine", "linear"], err
    assert all(cell.count("%") == 4 for row in rows for cell in row[1:])


def test_it_trains_only_the_transformer(command, checkpoint, tmp_path):
    before = checkpoint_io.load_model(checkpoint).vae.state_dict()
    command(bench, "schedules", "--checkpoint", checkpoint, "--steps", 1, "--batch", 2, "--prompts", 2, "--device", "cpu")
    after = checkpoint_io.load_model(tmp_path / "out/bench/linear-eps/model.pt")
    assert (after.config.schedule, after.config.target) == ("linear", "eps")
    assert all(value.equal(before[name]) for name, value in after.vae.state_dict().items())
