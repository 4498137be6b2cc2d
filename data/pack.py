"""Packs a folder of clips and captions into shards, the tar files that data/sources.py reads.

    python -m data.pack FOLDER shards/                     the files as they are
    python -m data.pack FOLDER shards/ --short-side 64     scaled down first: decoded many times as fast

Each shard is written under another name and renamed when it is whole, so an interrupted run leaves no half
shard; the same command then goes on with the first one that is missing. A file that cannot be read is named
and left out; without --short-side no clip is decoded, and a broken one is found in training.
"""
from config import BadInput

import io
import tarfile
from pathlib import Path

import av
import numpy as np

from data.sources import Folder, Tar, add_file, claim
from data.video_io import fit_frame
from utils.cli import Flags, check_at_least, progress_bar, run

# H.264's quality, 0 (nothing is lost) to 51: at 12 the eye sees no difference.
QUALITY = "12"


def scale_down(path, short_side):
    """A clip's bytes, scaled down if its shorter side has more than short_side pixels. Every frame keeps its
    time. Raises ValueError or FFmpegError for what is no video."""
    with av.open(str(path)) as file:
        if not file.streams.video or not file.streams.video[0].width:
            raise ValueError("no video in it")
        stream = file.streams.video[0]
        scale = short_side / min(stream.width, stream.height)
        if scale >= 1:
            return path.read_bytes()

        # H.264 wants even sides.
        width = 2 * round(stream.width * scale / 2)
        height = 2 * round(stream.height * scale / 2)
        written = io.BytesIO()
        with av.open(written, "w", format="mp4") as out:
            coded = out.add_stream("libx264", rate=stream.average_rate, options={"crf": QUALITY})
            coded.width = width
            coded.height = height
            coded.pix_fmt = "yuv420p"
            coded.codec_context.time_base = stream.time_base
            for frame in file.decode(stream):
                picture = fit_frame(frame.to_ndarray(format="rgb24"), height, width)
                scaled = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                scaled.pts = frame.pts
                scaled.time_base = stream.time_base
                out.mux(coded.encode(scaled))
            out.mux(coded.encode())
    return written.getvalue()


def pack(folder, out, clips_per_shard=100, short_side=None):
    """Writes the shards → their paths, how many clips are in them, and {clip: why it was left out now}.

    Raises BadInput for a folder without clips, and where `out` holds other shards."""
    source = Folder(folder)
    if not source.clips:
        raise BadInput(f"{folder}: not one clip.mp4 in it")
    names = [clip.name for clip in source.clips]
    claim(out, {"clips": names, "clips_per_shard": clips_per_shard, "short_side": short_side}, "packed.json")

    shards = []
    packed = 0
    left_out = {}
    starts = range(0, len(source.clips), clips_per_shard)
    for number, first in enumerate(progress_bar(starts, desc="shards", unit="shard")):
        clips = source.clips[first : first + clips_per_shard]
        shard = out / f"{number:06d}.tar"
        if not shard.exists():
            write_shard(shard, source, clips, short_side, left_out)
        packed += sum(name.endswith(".mp4") for name in Tar(shard).places)
        shards.append(shard)
    return shards, packed, left_out


def write_shard(shard, source, clips, short_side, left_out):
    """Writes clips and captions into one shard. What cannot be read goes into left_out."""
    unfinished = shard.with_suffix(".part")
    with tarfile.open(unfinished, "w") as tar:
        for clip in clips:
            try:
                content = scale_down(clip, short_side) if short_side else clip.read_bytes()
                texts = {ending: source.caption(clip, ending) for ending in (".txt", ".recaption.txt")}
            except (av.FFmpegError, OSError, ValueError) as error:
                left_out[clip] = error
                continue
            add_file(tar, clip.name, content)
            for ending, caption in texts.items():
                if caption is not None:
                    add_file(tar, clip.with_suffix(ending).name, caption.encode())
    unfinished.replace(shard)


def make_parser():
    parser = Flags(__doc__)
    parser.add_argument("folder", help="clips and captions: x.mp4 beside x.txt")
    parser.add_argument("out", type=Path, help="the shards' folder")
    parser.add_argument("--clips-per-shard", type=int, default=100, metavar="N", help="clips in a shard")
    text = "pixels; larger clips are scaled down to it"
    parser.add_argument("--short-side", type=int, metavar="N", help=text)
    return parser


def main():
    args = make_parser().parse_args()
    check_at_least(args, clips_per_shard=1, short_side=2)
    shards, packed, left_out = pack(args.folder, args.out, args.clips_per_shard, args.short_side)
    for clip, error in left_out.items():
        print(f"left out {clip}: {error}")
    last = len(shards) - 1
    print(f"{packed} clips are in {args.out}; train with:")
    print(f'  python train.py --data "{args.out.as_posix()}/{{000000..{last:06d}}}.tar"')


if __name__ == "__main__":
    run(main)
