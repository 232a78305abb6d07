"""Mutations of every format: each has to give an error of ours, or data of the right form."""

import gzip
import io
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vicinal.data import load
from vicinal.data.formats.recordio import RecordFile
from vicinal.errors import UserError

MUTATIONS = int(os.environ.get("VICINAL_MUTATIONS", "1500"))
"""Of all forms together; more can be asked for, such as 20,000."""

SLOWEST = 2.0
MEMORY = 600 << 20
"""Bytes that reading a damaged file of a few kilobytes may add to the process."""

MXNET = Path(__file__).parent / "mxnet"
CHANCE = np.random.default_rng(0)
IMAGES = CHANCE.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def encoded(form, pixels=IMAGES[0], **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def npz(save):
    out = io.BytesIO()
    labels = np.arange(6) % 2
    save(
        out,
        train_images=IMAGES,
        train_labels=labels,
        test_images=IMAGES[:2],
        test_labels=labels[:2],
        classes=np.array(["a", "b"]),
    )
    return out.getvalue()


def idx(values):
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def cifar_batch():
    batch = {b"data": CHANCE.integers(0, 256, (2, 3072), dtype=np.uint8), b"labels": [0, 1]}
    return pickle.dumps(batch, protocol=2)


def cifar_archive():
    out = io.BytesIO()
    contents = {f"data_batch_{k}": cifar_batch() for k in range(1, 6)}
    contents |= {"test_batch": cifar_batch()}
    contents |= {"batches.meta": pickle.dumps({b"label_names": [b"a", b"b"]}, protocol=2)}
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def encoded_sound(form):
    import soundfile

    out = io.BytesIO()
    sound = (0.3 * np.sin(np.arange(1600) / 5)).astype(np.float32)
    soundfile.write(out, sound, 8000, format=form)
    return out.getvalue()


def without_lengths(data):
    """Return a WAV file as a pipe writes it."""
    return data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:]


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


def transparent():
    return encoded("PNG", np.concatenate([IMAGES[0], IMAGES[1][..., :1]], 2))


def medical():
    out = io.BytesIO()
    arrays = {}
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = IMAGES[:count]
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None]
    np.savez_compressed(out, **arrays)
    return out.getvalue()


CSV = "size,color,label\n" + "".join(f"{k}.5,{'rg'[k % 2]},{'xy'[k % 2]}\n" for k in range(12))
ARFF = "@relation r\n@attribute size numeric\n@attribute label {x,y}\n@data\n" + "".join(
    f"{k},{'xy'[k % 2]}\n" for k in range(12)
)


def parquet():
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    table = pa.table({"size": [float(k) for k in range(12)], "label": ["x", "y"] * 6})
    pq.write_table(table, out)
    return out.getvalue()


def class_folder(root, name, content):
    """Put one damaged file among good ones; the good ones come first."""
    for label in "ab":
        for split in ("train", "test"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for k in range(2):
                (folder / f"{k}.png").write_bytes(GOOD_PNG)
    (root / "train" / "a" / f"2.{name}").write_bytes(content)
    return f"folder:{root}"


def spoken(root, ending, content):
    for label in "ab":
        (root / label).mkdir()
        for k in range(3):
            (root / label / f"{k}.wav").write_bytes(WAV)
    (root / "a" / f"9.{ending}").write_bytes(content)
    return f"commands:{root}?rate=8000&seconds=0.2&features=wave"


def mnist(root, name, content):
    for stem in ("train", "t10k"):
        (root / f"{stem}-images-idx3-ubyte").write_bytes(idx(IMAGES[..., 0]))
        (root / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.arange(6, dtype=np.uint8)))
    (root / "train-images-idx3-ubyte").unlink()
    (root / f"train-images-idx3-ubyte{name}").write_bytes(content)
    return f"mnist:{root}"


def emnist(root, name, content):
    for split in ("train", "test"):
        stem = f"emnist-letters-{split}"
        (root / f"{stem}-images-idx3-ubyte").write_bytes(idx(IMAGES[..., 0]))
        (root / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.arange(6, dtype=np.uint8)))
    (root / "emnist-letters-mapping.txt").write_bytes(MAPPING)
    (root / name).write_bytes(content)
    return f"emnist:{root}"


def one_file(spec):
    def put(root, name, content):
        (root / name).write_bytes(content)
        return spec.format(root / name)

    return put


def cifar(root, name, content):
    inside = root / "cifar-10-batches-py"
    inside.mkdir()
    for k in range(1, 6):
        (inside / f"data_batch_{k}").write_bytes(cifar_batch())
    (inside / "test_batch").write_bytes(cifar_batch())
    meta = {b"label_names": [b"a", b"b"]}
    (inside / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    (inside / name).write_bytes(content)
    return f"cifar10:{root}"


def indexed(root, name, content):
    (root / "set.rec").write_bytes((MXNET / "digits_40_png.rec").read_bytes())
    (root / "set.idx").write_bytes(content)
    return f"rec:{root / 'set.rec'},{root / 'set.rec'}"


def records(name, count):
    path = MXNET / f"digits_{name}.rec"
    return path.read_bytes()[: [at for at, _ in RecordFile(path).scan()][count]]


GOOD_PNG = encoded("PNG")
WAV = encoded_sound("WAV")
MP3 = Path(__file__).parents[1] / "cases" / "audio" / "quiet_then_loud_noxing.mp3"
MAPPING = b"".join(b"%d %d\n" % (k, 65 + k) for k in range(6))
REC = "rec:{0},{0}"
FORMS = {
    "rec-png": (one_file(REC), "a.rec", records("40_png", 5)),
    "rec-jpeg": (one_file(REC), "a.rec", records("40_jpg", 5)),
    "rec-vectors": (one_file(REC), "a.rec", records("label_vectors", 4)),
    "rec-index": (indexed, "", (MXNET / "digits_40_png.idx").read_bytes()),
    "jpeg": (class_folder, "jpg", encoded("JPEG")),
    "jpeg-turned": (class_folder, "jpg", turned()),
    "png": (class_folder, "png", encoded("PNG")),
    "png-transparent": (class_folder, "png", transparent()),
    "gif": (class_folder, "gif", encoded("GIF")),
    "bmp": (class_folder, "bmp", encoded("BMP")),
    "tiff": (class_folder, "tif", encoded("TIFF", compression="tiff_lzw")),
    "webp": (class_folder, "webp", encoded("WEBP", lossless=True)),
    "cifar-pickle": (cifar, "data_batch_1", cifar_batch()),
    "cifar-archive": (one_file("cifar10:{}"), "a.tar.gz", cifar_archive()),
    "idx": (mnist, "", idx(IMAGES[..., 0])),
    "idx-gz": (mnist, ".gz", gzip.compress(idx(IMAGES[..., 0]))),
    "npz": (one_file("npz:{}"), "a.npz", npz(np.savez)),
    "npz-compressed": (one_file("npz:{}"), "a.npz", npz(np.savez_compressed)),
    "npz-medical": (one_file("npz:{}"), "a.npz", medical()),
    "emnist-labels": (
        emnist,
        "emnist-letters-train-labels-idx1-ubyte",
        idx(np.arange(6, dtype=np.uint8)),
    ),
    "emnist-mapping": (emnist, "emnist-letters-mapping.txt", MAPPING),
    "wav": (spoken, "wav", WAV),
    "wav-pipe": (spoken, "wav", without_lengths(WAV)),
    "flac": (spoken, "flac", encoded_sound("FLAC")),
    "ogg": (spoken, "ogg", encoded_sound("OGG")),
    "mp3": (spoken, "mp3", encoded_sound("MP3")),
    "mp3-without-length": (spoken, "mp3", MP3.read_bytes()),
    "csv": (one_file("table:{}?label=label"), "a.csv", CSV.encode()),
    "arff": (one_file("table:{}?label=label"), "a.arff", ARFF.encode()),
    "parquet": (one_file("table:{}?label=label"), "a.parquet", parquet()),
}


def mutated(content, chance):
    """Change bytes, cut, repeat, or put numbers where lengths may be."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at = chance.randrange(len(data)) if data else 0
        kind = chance.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and data:
            data[at] = chance.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + chance.randrange(1, 40)]
        elif kind == 4:
            data[at:at] = data[at : at + chance.randrange(1, 200)]
        else:
            number = chance.choice([0, 1, 2**16 - 1, 2**24, 2**29 - 1, 2**31 - 1, 2**32 - 1])
            order = chance.choice("<>")
            data[at : at + 4] = struct.pack(f"{order}I", number)
    return bytes(data)


CHECKED = {
    "png",
    "png-transparent",
    "npz-medical",
    "cifar-archive",
    "idx-gz",
    "npz",
    "npz-compressed",
}
"""Formats with checksums: what is read of them at all has to be what was written."""


def is_right(data):
    """Say whether a data set has the form that it promises."""
    for split in data.splits.values():
        read = split.read(range(len(split)))
        inputs = read.inputs
        if len(inputs) != len(read.kept) or not len(split):
            return False
        if inputs.dtype != torch.uint8 and not bool(inputs.isfinite().all()):
            return False
        if data.classes and not bool(
            ((split.targets >= 0) & (split.targets < len(data.classes))).all()
        ):
            return False
    return True


def contents(data):
    """Return each example with its label."""
    found = set()
    for name, split in data.splits.items():
        read = split.read(range(len(split)))
        for x, y in zip(read.inputs, split.targets[torch.from_numpy(read.kept)], strict=True):
            found.add((name, data.classes[int(y)] if data.classes else str(y), x.numpy().tobytes()))
    return found


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(form, count, folder):
    """Mutate one format; answer with how many were refused, how many read, and the slowest."""
    known = set()
    put, name, content = FORMS[form]
    chance = random.Random(form)
    refused = read = 0
    slowest = 0.0
    for k in range(count):
        root = folder / str(k)
        root.mkdir()
        changed = content if k == 0 else mutated(content, chance)
        spec = put(root, name, changed)
        for skip_bad in (False, True) if k % 4 == 0 else (False,):
            began = time.perf_counter()
            try:
                data = load(
                    spec, skip_bad=skip_bad, in_memory=10**9 if k % 2 else 0, test_fraction=0.3
                )
                assert is_right(data), (form, k)
                if k == 0:
                    known = contents(data)
                assert form not in CHECKED or contents(data) <= known, (form, k)
                read += 1
            except UserError as error:
                if not k or "\n" in str(error).strip():
                    raise AssertionError(f"{form}, mutation {k}: {error}") from error
                refused += 1
            slowest = max(slowest, time.perf_counter() - began)
        for path in sorted(root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        root.rmdir()
    return refused, read, slowest


def main(count, folder, *forms):
    import scipy.signal  # noqa: F401, at the first other sampling rate otherwise

    torch.set_num_threads(1)  # many small operations
    for form in forms:
        put, name, content = FORMS[form]
        root = Path(folder) / form
        (root / "first").mkdir(parents=True)
        # All imports, once, before memory is looked at.
        load(put(root / "first", name, content), test_fraction=0.3)
        before = peak()
        refused, read, slowest = run(form, int(count), root)
        print(form, refused, read, slowest, peak() - before)


def test_a_damaged_file_raises_a_user_error_or_gives_correct_data(tmp_path):
    count = -(-MUTATIONS // len(FORMS))
    # A process of its own, whose memory can be looked at.
    command = [sys.executable, "-W", "ignore", __file__, str(count), tmp_path, *FORMS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [form for form, *_ in lines] == list(FORMS)
    for form, *numbers in lines:
        refused, read, slowest, grown = map(float, numbers)
        assert refused + read >= count, form
        assert refused > count / 50, form  # what is between the headers of sound may be anything
        assert slowest < SLOWEST, form
        assert grown < MEMORY, form


if __name__ == "__main__":
    main(*sys.argv[1:])
