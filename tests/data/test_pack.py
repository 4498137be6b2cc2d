"""Packing a folder into shards: what is kept, what is scaled down, and what an interruption leaves."""
from config import BadInput

import av
import pytest

from data import pack
from data.sources import Shards
from data.video_io import probe


def test_an_interrupted_packing_goes_on_and_leaves_no_half_shard(folder, tmp_path, monkeypatch):
    add = pack.add_file
    added = []

    def add_until_killed(tar, name, content):
        if len(added) == 5:
            raise KeyboardInterrupt
        added.append(name)
        add(tar, name, content)

    monkeypatch.setattr(pack, "add_file", add_until_killed)
    with pytest.raises(KeyboardInterrupt):
        pack.pack(folder, tmp_path / "out", clips_per_shard=2)
    assert [path.name for path in (tmp_path / "out").glob("*.tar")] == ["000000.tar"]

    monkeypatch.setattr(pack, "add_file", add)
    shards, packed, _ = pack.pack(folder, tmp_path / "out", clips_per_shard=2)
    assert [path.name for path in shards] == ["000000.tar", "000001.tar", "000002.tar"]
    assert packed == 5
    with pytest.raises(BadInput, match="holds shards made of something else"):
        pack.pack(folder, tmp_path / "out", clips_per_shard=3)
    assert len(Shards(f"{tmp_path}/out/{{000000..000002}}.tar").clips) == 5


def test_clips_are_scaled_down_and_keep_their_length_and_rate(folder, tmp_path, command):
    code, out, err = command(pack, folder, tmp_path / "out", "--short-side", 10)
    assert code == 0, err
    assert f"left out {folder / 'broken.mp4'}: " in out
    packed = Shards(f"{tmp_path}/out/000000.tar")
    assert [name for _, name in packed.clips] == ["a.mp4", "b.mp4", "short.mp4", "silent.mp4"]
    for clip in packed.clips[:2]:
        with av.open(packed.open(clip)) as file:
            stream = file.streams.video[0]
            assert min(stream.width, stream.height) == 10
            assert stream.average_rate == {"a.mp4": 30, "b.mp4": 10}[clip[1]]
        ratio, seconds = probe(packed.open(clip))
        expected_ratio, expected_seconds = probe(folder / clip[1])
        assert seconds == pytest.approx(expected_seconds, abs=0.02)
        assert ratio == pytest.approx(expected_ratio, rel=0.1)


def test_a_clip_that_is_small_enough_is_packed_as_it_is(folder, tmp_path):
    pack.pack(folder, tmp_path / "out", short_side=18)
    packed = Shards(f"{tmp_path}/out/000000.tar")
    assert packed.open(packed.clips[0]).read() == (folder / "a.mp4").read_bytes()


def test_frames_keep_their_times(folder, tmp_path):
    pack.pack(folder, tmp_path / "out", short_side=10)
    packed = Shards(f"{tmp_path}/out/000000.tar")

    def times(file):
        with av.open(file) as opened:
            return [frame.time for frame in opened.decode(video=0)]

    for clip in packed.clips[:2]:
        assert times(packed.open(clip)) == pytest.approx(times(folder / clip[1]), abs=1e-3)


def test_a_folder_without_clips_is_refused(tmp_path, command):
    code, _, err = command(pack, tmp_path, tmp_path / "out")
    assert (code, err) == (2, f"pack.py: {tmp_path}: not one clip.mp4 in it\n")
    assert not (tmp_path / "out").exists()
