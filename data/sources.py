"""Where clips and captions lie: in a folder, or in tar files of WebDataset's layout.

A folder of a million small files is slow to list, to copy and to keep on a shared disk; a few thousand tar
files of a few hundred clips each ("shards") are not. In either one, x.mp4 lies beside its caption x.txt, and
a source answers the same three questions: which clips there are, what a caption says, and what to open.

    shards/000000.tar, shards/000001.tar, ...
        cat.mp4   cat.txt   dog.mp4   dog.txt   ...

    python -m data.pack FOLDER shards/      makes shards of a folder

WebDataset: https://github.com/webdataset/webdataset, which streams a tar file from its beginning to its end.
We note once where each file begins, and then read any clip directly. So a batch is the same from shards as
from the folder, and a run is resumed exactly; what it needs is a disk that can seek.
"""
from config import BadInput

import io
import json
import re
import tarfile
from pathlib import Path, PurePosixPath


class Folder:
    """x.mp4 beside x.txt. Raises BadInput where there is no such folder."""

    def __init__(self, data):
        self.folder = Path(data)
        if not self.folder.is_dir():
            expected = "expected 'world', a folder of clip.mp4 + clip.txt, or shards/{000000..000009}.tar"
            raise BadInput(f"data = {data!r}: {expected}")
        self.clips = sorted(self.folder.glob("*.mp4"))

    def caption(self, clip, ending=".txt"):
        """The text beside it, None if there is none. Raises OSError or UnicodeDecodeError."""
        path = clip.with_suffix(ending)
        return path.read_text(encoding="utf-8") if path.exists() else None

    def open(self, clip):
        """What av.open takes."""
        return clip


class Shards:
    """The same from tar files, which `data` names as shards/{000000..000099}.tar or as one file.

    Raises BadInput for a shard that is missing or is no tar file."""

    def __init__(self, data):
        self.tars = {path: Tar(path) for path in expand_braces(data)}
        clips = []
        for path, tar in self.tars.items():
            clips += [(path, name) for name in tar.places if name.endswith(".mp4")]
        # In the order that a folder of the same files has, however they are spread over the shards.
        self.clips = sorted(clips, key=lambda clip: Path(clip[1]).name)

    def caption(self, clip, ending=".txt"):
        """The text beside it, None if there is none. Raises UnicodeDecodeError."""
        path, name = clip
        text_name = str(PurePosixPath(name).with_suffix(ending))
        tar = self.tars[path]
        return tar.read(text_name).decode() if text_name in tar.places else None

    def open(self, clip):
        """What av.open takes."""
        path, name = clip
        return io.BytesIO(self.tars[path].read(name))


class Tar:
    """A tar file whose files can be read in any order. Raises BadInput where it cannot be read."""

    def __init__(self, path):
        self.path = path
        self.places = {}  # name → offset and size in bytes
        try:
            with tarfile.open(path, "r:") as tar:  # not compressed, or the offsets would mean nothing
                for member in tar:
                    self.places[member.name] = (member.offset_data, member.size)
        except (OSError, tarfile.TarError) as error:
            raise BadInput(f"shard {path}: cannot be read ({error})") from error

    def read(self, name):
        """The bytes of a file in it. It is opened anew each time, so that processes need not share it."""
        offset, size = self.places[name]
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)


def open_source(data):
    """The source that the knob `data` names."""
    return Shards(data) if data.endswith(".tar") else Folder(data)


def shown(clip):
    """What a message calls a clip: its path, or the shard's with the clip's name behind it."""
    return "/".join(clip) if isinstance(clip, tuple) else str(clip)


def expand_braces(pattern):
    """'shards/{000008..000010}.tar' → ['shards/000008.tar', 'shards/000009.tar', 'shards/000010.tar']

    Raises BadInput where the first number is larger than the last."""
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", pattern)
    if not found:
        return [pattern]
    before, first, last, behind = found.groups()
    if int(first) > int(last):
        raise BadInput(f"data = {pattern!r}: {first} comes after {last}")
    return [f"{before}{number:0{len(first)}}{behind}" for number in range(int(first), int(last) + 1)]


def claim(out, about, name):
    """Makes a folder for shards and notes in it, as JSON, what they are made of, so that an interrupted call
    can go on and another one cannot mix its own shards in. Raises BadInput for a folder with other shards."""
    path = out / name
    if path.exists():
        try:
            differing = json.loads(path.read_text()) != json.loads(json.dumps(about))
        except json.JSONDecodeError:
            differing = True
        if differing:
            raise BadInput(f"{out}: holds shards made of something else ({path}); choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(about, indent=1))
    unfinished.replace(path)


def add_file(tar, name, content):
    """Adds bytes to an open tar file, under a name."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
