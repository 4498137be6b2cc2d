"""Clips in a folder and in shards: the same clips, captions and batches."""
from config import BadInput, Config

import tarfile
from dataclasses import replace

import pytest
import torch

from data import pack
from data.datasets import make_dataset
from data.sources import Folder, Shards, add_file, claim, expand_braces, open_source, shown

SHAPES = {"lengths": "5 9", "sizes": "16x24 24x16", "image_prob": 0.2}
CONFIG = Config(frames=9, height=16, width=24, fps=10.0, dit_tokens=120, **SHAPES)


@pytest.fixture
def shards(folder, tmp_path_factory, command):
    """The folder's clips, two in a shard, as the knob `data` names them."""
    out = tmp_path_factory.mktemp("packed")
    code, _, err = command(pack, folder, out, "--clips-per-shard", 2)
    assert code == 0, err
    return f"{out}/{{000000..000002}}.tar"


def test_a_folders_clips_are_its_mp4_files_in_order(folder):
    source = open_source(str(folder))
    assert [clip.name for clip in source.clips] == ["a.mp4", "b.mp4", "broken.mp4", "short.mp4", "silent.mp4"]
    assert source.caption(folder / "a.mp4") == "clip a\n"
    assert source.caption(folder / "silent.mp4") is None


def test_shards_hold_the_bytes_and_captions_of_the_folder(folder, shards):
    packed = Shards(shards)
    source = Folder(folder)
    assert [name for _, name in packed.clips] == [path.name for path in source.clips]
    for clip, path in zip(packed.clips, source.clips, strict=True):
        assert packed.open(clip).read() == path.read_bytes()
        assert packed.caption(clip) == source.caption(path)


def test_clips_have_a_folders_order_however_they_are_spread(tmp_path):
    for shard, name in enumerate(("b", "a")):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            add_file(tar, f"sub/{name}.mp4", b"")
            add_file(tar, f"sub/{name}.txt", name.encode())
    shards = Shards(f"{tmp_path}/{{0..1}}.tar")
    assert [shards.caption(clip) for clip in shards.clips] == ["a", "b"]


@pytest.mark.parametrize("stage", ["vae", "dit"])
def test_the_same_seed_draws_the_same_batches_from_a_folder_and_from_shards(folder, shards, stage):
    a = make_dataset(replace(CONFIG, data=str(folder)), stage)
    b = make_dataset(replace(CONFIG, data=shards), stage)
    assert a.vocab() == b.vocab()
    for k in range(5):
        for group, other in zip(a[k], b[k], strict=True):
            assert torch.equal(group[0], other[0])
            assert group[1] == other[1]


def test_shards_are_webdatasets(folder, shards):
    webdataset = pytest.importorskip("webdataset")
    samples = {sample["__key__"]: sample for sample in webdataset.WebDataset(shards, shardshuffle=False)}
    assert sorted(samples) == ["a", "b", "broken", "short", "silent"]
    assert samples["a"]["txt"] == b"clip a\n"
    assert samples["a"]["mp4"] == (folder / "a.mp4").read_bytes()


def test_braces_count_with_leading_zeros():
    assert expand_braces("s/{008..010}.tar") == ["s/008.tar", "s/009.tar", "s/010.tar"]
    assert expand_braces("s/{9..10}.tar") == ["s/9.tar", "s/10.tar"]
    assert expand_braces("s/{3..3}.tar") == ["s/3.tar"]
    assert expand_braces("s/one.tar") == ["s/one.tar"]
    with pytest.raises(BadInput, match="10 comes after 08"):
        expand_braces("s/{10..08}.tar")


@pytest.mark.parametrize("content", [None, b"not a tar file"])
def test_a_shard_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "000000.tar"
    if content:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=f"shard {path}: cannot be read"):
        open_source(str(path))


def test_a_message_names_a_clip_by_its_shard(shards):
    clip = Shards(shards).clips[0]
    assert shown(clip) == f"{clip[0]}/a.mp4"


def test_shards_hold_nothing_but_clips_and_captions(shards):
    names = []
    for shard in expand_braces(shards):
        with tarfile.open(shard) as tar:
            names += tar.getnames()
    stems = ("a", "b", "broken", "short")
    expected = [f"{stem}.{ending}" for stem in stems for ending in ("mp4", "txt")]
    assert sorted(names) == sorted([*expected, "silent.mp4"])


def test_a_folder_whose_note_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "about.json").write_text("{")
    with pytest.raises(BadInput, match="holds shards made of something else"):
        claim(tmp_path, {}, "about.json")
