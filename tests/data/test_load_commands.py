import io
import math
import os
import pickle
import struct
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from vicinal.data.dataset import LoadOptions
from vicinal.data.sound.load_commands import StoredRecordings, load_commands
from vicinal.data.sound.recordings import RecordingCounts, read_recording
from vicinal.data.sound.spectrograms import log_mel, log_spectrogram, mel_filters
from vicinal.errors import UserError

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("VICINAL_SHARED", ROOT.parent / "shared"))
ARCHIVE = SHARED / "data" / "spoken_digits" / "spoken_digits.tar.xz"


def sine(hertz=440.0, *, rate=8000, seconds=1.0, loud=0.5):
    return loud * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def loudest_hertz(wave, rate):
    return np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave)


def write(path, wave, rate=8000, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, **how)
    return path


@pytest.fixture
def commands(tmp_path):
    """A folder of two words, four recordings each, the last ones on the lists."""
    folder = tmp_path / "words"
    for word, hertz in (("no", 300), ("yes", 900)):
        for number in range(4):
            write(folder / word / f"{number}.wav", sine(hertz + 10 * number))
    (folder / "testing_list.txt").write_text("no/3.wav\nyes/3.wav\n")
    (folder / "validation_list.txt").write_text("no/2.wav\nyes/2.wav\n")
    return folder


def load(folder, options=None, **wanted):
    return load_commands(str(folder), options or {}, LoadOptions(Path("nowhere"), **wanted))


@pytest.fixture(scope="session")
def spoken_digits(tmp_path_factory):
    if not ARCHIVE.exists():
        pytest.skip("the spoken digits are not in the shared folder (VICINAL_SHARED)")
    folder = tmp_path_factory.mktemp("spoken")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "spoken_digits"


# Reading one recording


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_of_every_width_gives_the_samples_that_were_written(tmp_path, subtype):
    wave = sine(seconds=0.1001)  # an odd number of samples, so that 8 and 24 bits are padded
    path = write(tmp_path / "a.wav", wave, subtype=subtype)
    steps = {"PCM_U8": 2**7, "PCM_16": 2**15, "PCM_24": 2**23}.get(subtype, 2**23)
    read = read_recording(path, rate=8000)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, wave, atol=1.01 / steps, rtol=0)


def test_24_bit_samples_agree_with_a_calculation_by_hand(tmp_path):
    values = [0, 1, -1, 2**22, -(2**23)]
    data = b"".join((v & 0xFFFFFF).to_bytes(3, "little") for v in values) + b"\0"
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 24000, 3, 24)
    chunks = form + struct.pack("<4sI", b"data", 15) + data
    path = tmp_path / "a.wav"
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks)
    assert read_recording(path, rate=8000).tolist() == [v / 2**23 for v in values]


@pytest.mark.parametrize(
    ("name", "most"), [("a.flac", 1e-4), ("a.ogg", 0.05), ("a.mp3", 0.1), ("a.aiff", 1e-4)]
)
def test_other_formats_are_read_too(tmp_path, name, most):
    wave = sine()
    read = read_recording(write(tmp_path / name, wave), rate=8000, samples=8000)
    assert np.abs(read - wave).max() < most


@pytest.mark.parametrize("own", [8000, 11025, 22050, 44100, 48000])
def test_the_frequency_of_a_sine_survives_resampling(tmp_path, own):
    path = write(tmp_path / "a.wav", sine(1000, rate=own), own, subtype="FLOAT")
    wave = read_recording(path, rate=16000, samples=16000)
    np.testing.assert_allclose(wave[500:-500], sine(1000, rate=16000)[500:-500], atol=2e-3)


def test_an_odd_rate_keeps_the_frequency(tmp_path):
    path = write(tmp_path / "a.wav", sine(1000, rate=15991), 15991)
    assert loudest_hertz(read_recording(path, rate=16000, samples=16000), 16000) == 1000


def test_a_cut_recording_is_the_beginning_of_the_whole(tmp_path):
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 40000).astype(np.float32)
    path = write(tmp_path / "a.wav", wave, 12000, subtype="FLOAT")
    whole = scipy.signal.resample_poly(wave, 4, 3)
    read = read_recording(path, rate=16000, samples=16000)
    np.testing.assert_allclose(read, whole[:16000], atol=1e-6)


def test_short_recordings_are_padded_with_zeros(tmp_path):
    path = write(tmp_path / "a.wav", np.array([0.5, -0.5]), subtype="FLOAT")
    assert read_recording(path, rate=8000, samples=4).tolist() == [0.5, -0.5, 0, 0]


def test_the_channels_of_stereo_are_averaged(tmp_path):
    stereo = np.array([[0.5, 0.25], [-1.0, 0.5]])
    path = write(tmp_path / "a.wav", stereo, subtype="FLOAT")
    assert read_recording(path, rate=8000).tolist() == [0.375, -0.25]


def test_samples_slightly_beyond_full_scale_are_clipped(tmp_path):
    path = write(tmp_path / "a.wav", np.array([1.2, -1.2, 0.5]), subtype="FLOAT")
    assert read_recording(path, rate=8000).tolist() == [1, -1, 0.5]


# Bad recordings


def wav_bytes(wave, rate=8000, **how):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, **({"format": "WAV"} | how))
    return file.getvalue()


def changed(data, at, new):
    return data[:at] + new + data[at + len(new) :]


WAV = wav_bytes(sine(seconds=0.05))
FLAC = wav_bytes(sine(seconds=2), format="FLAC")
OGG = wav_bytes(sine(seconds=1), format="OGG")
# Where lengths stand: the size of the data chunk at 40 in a WAV, and in a FLAC the low half of the
# number of samples at 22.
BAD = {
    "an empty file": (b"", "cannot decode"),
    "no samples": (wav_bytes(np.zeros(0)), "no samples"),
    "a cut WAV": (WAV[:-100], "incomplete"),
    "a WAV cut in its header": (WAV[:30], "incomplete"),
    "a WAV of ten bytes": (WAV[:10], "incomplete"),
    "a cut FLAC": (FLAC[: len(FLAC) // 2], "damaged|incomplete"),
    "a cut FLAC whose beginning is there": (FLAC[: len(FLAC) * 3 // 4], "damaged|incomplete"),
    "a cut OGG": (OGG[: len(OGG) // 2], "last page"),
    "text": (b"hello, this is no sound\n" * 20, "cannot decode"),
    "a WAV that claims less than it has": (
        changed(WAV, 40, struct.pack("<I", 10)),
        "expected .* bytes, by the lengths in its header",
    ),
    "a WAV without one byte": (
        WAV[:-1],
        "expected 844 bytes, by the lengths in its header, got 843",
    ),
    "a WAV that claims 1 GB": (
        changed(WAV, 40, b"\x00\x00\x00\x40"),
        "by the lengths in its header",
    ),
    "a FLAC that claims hours": (changed(FLAC, 22, b"\x7f\xff\xff\xff"), "damaged|incomplete"),
    "NaN": (
        wav_bytes(np.array([0.0, np.nan]), subtype="FLOAT"),
        "expected finite samples, .* at sample 1",
    ),
    "infinity": (
        wav_bytes(np.array([np.inf, 0]), subtype="DOUBLE"),
        "expected finite samples, .* at sample 0",
    ),
    "integers as floats": (wav_bytes(np.array([9000.0]), subtype="FLOAT"), "full scale"),
    "a rate of 7 Hz": (wav_bytes(np.zeros(9), 7), "sampling rate from 1000 .* got 7"),
    "a rate of 2 GHz": (wav_bytes(np.zeros(9), 2**31 - 1), "sampling rate"),
    "40 channels": (wav_bytes(np.zeros((9, 40))), "channels from 1 to 16, got 40"),
    "no channels": (changed(WAV, 22, bytes(2)), "Channel count is zero"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_recording_raises_an_error_with_its_name_or_is_skipped(commands, kind):
    data, sentence = BAD[kind]
    (commands / "yes" / "1.wav").write_bytes(data)
    with pytest.raises(UserError, match=sentence) as caught:
        load(commands)
    assert str(Path("yes", "1.wav")) in str(caught.value)
    assert "--set data.skip_bad=true" in str(caught.value)
    loaded = load(commands, skip_bad=True)
    assert loaded.train.targets.tolist() == [0, 0, 1]
    assert len(loaded.train.inputs) == 3
    (skipped,) = loaded.train.skipped
    assert "1.wav" in skipped
    stored = load(commands, skip_bad=True, in_memory=0).train
    read = stored.inputs.read([3, 2, 0])
    assert (len(stored), read.kept.tolist(), len(read.skipped)) == (4, [1, 2], 1)
    assert torch.equal(read.inputs, loaded.train.inputs[[2, 0]])
    with pytest.raises(UserError, match=sentence):
        load(commands, in_memory=0).train.inputs.read([3])


AUDIO = Path(__file__).parents[1] / "cases" / "audio"


@pytest.mark.parametrize("name", ["ff", "sox", "r8", "00"])
@pytest.mark.parametrize("samples", [None, 20_000, 6_000])
def test_a_wav_with_wrong_lengths_is_read_whole_with_a_warning(name, samples):
    counts = RecordingCounts()
    wave = read_recording(AUDIO / f"{name}.wav", rate=16000, samples=samples, counts=counts)
    assert len(wave) == (samples or 16_000)
    assert np.array_equal(wave[:16_000], samples_of(name)[:samples])
    assert (counts.warned, counts.padded) == (1, samples == 20_000)
    assert counts.shortest in {1.0, math.inf}
    reason = "its header has no length, so its end may be missing"
    if name == "r8":
        reason = "the length of the file in its header is wrong"
    assert f"{name}.wav ({reason})" in counts.warning


def samples_of(name):
    """Return the samples behind a header of 44 bytes."""
    data = (AUDIO / f"{name}.wav").read_bytes()
    return (np.frombuffer(data[44:], "<i2") / 2**15).astype(np.float32)


def test_an_ogg_file_without_an_end_mark_is_read_whole_with_a_warning():
    counts = RecordingCounts()
    assert len(read_recording(AUDIO / "noeos.ogg", rate=16000, counts=counts)) == 16000
    assert counts.warned == 1
    assert "not marked as the last" in counts.warning


def test_an_mp3_file_is_read_with_a_tag_before_the_audio_too(tmp_path):
    path = write(tmp_path / "a.mp3", sine())
    known = read_recording(path, rate=8000)
    tag = b"ID3\4\0\0" + bytes([0, 6, 32, 5]) + bytes((6 << 14) + (32 << 7) + 5)
    path.write_bytes(tag + path.read_bytes())
    assert np.array_equal(read_recording(path, rate=8000), known)


@pytest.mark.parametrize("name", ["loud_then_quiet_noxing.mp3", "quiet_then_loud_noxing.mp3"])
@pytest.mark.parametrize("samples", [None, 60_000, 49_536, 20_000])
def test_an_mp3_without_a_xing_header_is_read_whole(name, samples):
    threads = threading.active_count()
    whole = read_recording(AUDIO / name, rate=16000)
    wave = read_recording(AUDIO / name, rate=16000, samples=samples)
    assert len(whole) == 49_536
    assert len(wave) == (samples or 49_536)
    assert np.array_equal(wave[:49_536], whole[:samples])
    first, last = (np.abs(part).max() > 0.5 for part in (whole[:12_000], whole[-12_000:]))
    assert (first, last) == (name.startswith("loud"), name.startswith("quiet"))
    counts = RecordingCounts()
    read_recording(AUDIO / name, rate=16000, samples=16000, counts=counts)
    (note, warning) = counts.notes(16000, 1.0, every=True)
    assert note.text.startswith("1 of 1 recordings were cut to 1 s; ?seconds=N")
    assert "its header has no length, so its end may be missing" in warning.text
    assert threading.active_count() == threads


def test_a_flac_file_without_its_length_raises_an_error(tmp_path):
    (tmp_path / "stream.flac").write_bytes(changed(FLAC, 21, bytes([FLAC[21] & 0xF0, 0, 0, 0, 0])))
    with pytest.raises(UserError, match=r"libsndfile cannot decode .* Try to convert it to WAV"):
        read_recording(tmp_path / "stream.flac", rate=8000)


@pytest.mark.parametrize("name", ["a.au", "a.gsm", "a.raw"])
def test_the_name_of_a_file_does_not_make_it_a_recording(tmp_path, name):
    (tmp_path / name).write_bytes(b"hello, this is no sound\n" * 40)
    with pytest.raises(UserError, match="libsndfile cannot decode"):
        read_recording(tmp_path / name, rate=8000)


def test_recordings_that_take_more_than_max_bytes_raise_an_error(tmp_path):
    path = write(tmp_path / "a.wav", sine(seconds=1))
    with pytest.raises(UserError, match=r"a.wav: expected at most max_bytes = 1000"):
        read_recording(path, rate=8000, max_bytes=1000)
    with pytest.raises(UserError, match=r"mp3: expected at most max_bytes = 1000"):
        read_recording(AUDIO / "loud_then_quiet_noxing.mp3", rate=16000, max_bytes=1000)


@pytest.mark.parametrize("in_memory", [0, 10**9])
def test_notes_count_resampled_cut_padded_and_skipped_recordings(tmp_path, in_memory):
    for label in ("no", "yes"):
        for k, seconds in enumerate((0.25, 0.5, 1.5, 0.5)):
            write(tmp_path / label / f"{k}.wav", sine(seconds=seconds), 8000)
        (tmp_path / label / "Thumbs.db").write_bytes(b"no sound")
    (tmp_path / "no" / "0.wav").write_bytes((AUDIO / "ff.wav").read_bytes())
    data = load(tmp_path, {"seconds": "0.5"}, in_memory=in_memory, test_fraction=0.25)
    of = "of 8 recordings" if in_memory else "of the first 8 recordings"
    assert [note.text.replace(str(tmp_path), "") for note in data.notes] == [
        "2 classes, one for each folder: no, yes",
        "skipped 2 hidden or system files and folders: Thumbs.db (2)",
        f"7 {of} were resampled to 16000 Hz, from 8000 Hz (7)",
        f"3 {of} were cut to 0.5 s, the longest from 1.5 s; ?seconds=N sets another length",
        f"1 {of} were padded with zeros to 0.5 s, the shortest from 0.25 s",
        f"1 {of} were read despite wrong headers, such as /no/0.wav (its header has no length, so "
        "its end may be missing)",
    ]


def outcome(path):
    """Read, check what any recording promises, and say what came of it."""
    try:
        wave = read_recording(path, rate=8000, samples=1000)
    except UserError as error:
        return str(error)
    kind = (wave.shape, wave.dtype, bool((np.abs(wave) <= 1).all()))
    return "read" if kind == ((1000,), np.float32, True) else kind


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.aiff"])
def test_damaged_files_give_a_recording_or_an_error(tmp_path, name):
    random = np.random.default_rng(0)
    path = write(tmp_path / name, sine(seconds=0.05))
    data = path.read_bytes()
    outcomes = []
    for _ in range(250):
        damaged = bytearray(data)
        reach = len(data) if random.random() < 0.3 else min(64, len(data))
        for _ in range(random.integers(1, 4)):
            damaged[random.integers(reach)] = random.integers(256)
        if random.random() < 0.2:
            del damaged[random.integers(len(damaged)) :]
        path.write_bytes(damaged)
        outcomes.append(outcome(path))
    refused = [sentence for sentence in outcomes if sentence != "read"]
    assert all(str(path) in sentence for sentence in refused)
    assert len(refused) > 25


# The layout


def test_the_lists_determine_the_splits(commands):
    loaded = load(commands, {"features": "wave", "rate": "8000"})
    assert loaded.classes == ("no", "yes")
    hertz = {
        name: [loudest_hertz(wave, 8000) for wave in part.inputs.numpy()]
        for name, part in loaded.splits.items()
    }
    assert hertz == {"train": [300, 310, 900, 910], "validation": [320, 920], "test": [330, 930]}
    assert [part.targets.tolist() for part in loaded.splits.values()] == [
        [0, 0, 1, 1],
        [0, 1],
        [0, 1],
    ]
    by = "4 train, 2 validation, 2 test recordings, by testing_list.txt and validation_list.txt"
    assert by in [note.text for note in loaded.notes]


def test_without_lists_the_seed_determines_the_test_split(commands):
    (commands / "testing_list.txt").unlink()
    (commands / "validation_list.txt").unlink()
    one, again, *others = (
        load(commands, {"features": "wave"}, seed=seed, test_fraction=0.5) for seed in (0, 0, 1, 2)
    )
    assert one.validation is None
    assert not any("_list.txt" in note.text for note in one.notes)
    assert one.test.targets.tolist() == one.train.targets.tolist() == [0, 0, 1, 1]
    assert torch.equal(one.test.inputs, again.test.inputs)
    assert not all(torch.equal(one.test.inputs, other.test.inputs) for other in others)
    both = torch.cat([one.train.inputs, one.test.inputs])
    assert len(both.unique(dim=0)) == 8


def test_without_a_testing_list_the_validation_split_stays_apart(commands):
    (commands / "testing_list.txt").unlink()
    loaded = load(commands, test_fraction=0.34)
    assert [len(part) for part in loaded.splits.values()] == [3, 2, 3]


def test_noise_and_hidden_folders_are_not_classes(commands):
    write(commands / "_background_noise_" / "hum.wav", sine(50))
    write(commands / ".trash" / "a.wav", sine())
    (commands / "yes" / ".DS_Store").write_bytes(b"x")
    (commands / "README.md").write_text("words")
    loaded = load(commands)
    assert (loaded.classes, len(loaded.train)) == (("no", "yes"), 4)


def test_a_relative_path_is_looked_up_under_the_root(commands):
    wanted = LoadOptions(commands.parent)
    assert len(load_commands("words", {}, wanted).train) == 4


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("yes/9.wav", "line 3: .*got 'yes/9.wav', which is not a recording in this folder"),
        ("../words/yes/1.wav", "line 3: .* not a recording in this folder"),
        ("yes/../../words/yes/1.wav", "line 3: .* not a recording in this folder"),
        ("/etc/passwd", "line 3: .* not a recording in this folder"),
        ("_background_noise_/hum.wav", "line 3: .* not a recording in this folder"),
        ("no/3.wav", r"which is in testing_list\.txt too"),
    ],
)
def test_a_bad_line_of_a_list_raises_an_error_with_its_number_or_is_skipped(
    commands, line, sentence
):
    write(commands / "_background_noise_" / "hum.wav", sine(50))
    file = commands / "validation_list.txt"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(UserError, match=rf"validation_list\.txt, .*{sentence}"):
        load(commands)
    loaded = load(commands, skip_bad=True)
    assert [len(part) for part in loaded.splits.values()] == [4, 2, 2]
    assert len(loaded.validation.skipped) == 1


def test_blank_repeated_and_dotted_lines_of_a_list_are_accepted(commands):
    (commands / "testing_list.txt").write_text(
        "\ufeffno/3.wav\r\n\n./yes/3.wav\r\nno/3.wav\n", "utf-8"
    )
    assert load(commands).test.targets.tolist() == [0, 1]


def test_a_list_that_is_not_text_raises_an_error(commands):
    (commands / "testing_list.txt").write_bytes(b"no/3.wav\n\xff\xfe")
    with pytest.raises(UserError, match=r"testing_list\.txt, byte 9"):
        load(commands)


def test_a_name_of_a_word_that_is_no_text_is_escaped(commands):
    os.rename(commands / "yes", os.fsencode(commands) + b"/caf\xe9")
    for name in ("testing_list.txt", "validation_list.txt"):
        (commands / name).unlink()
    loaded = load(commands, test_fraction=0.5)
    assert loaded.classes == ("caf\\xe9", "no")
    "".join(loaded.classes).encode()


def test_an_empty_folder_of_a_word_raises_an_error_or_is_skipped(commands):
    (commands / "maybe").mkdir()
    with pytest.raises(UserError, match=r"maybe: expected recordings, got none"):
        load(commands)
    loaded = load(commands, skip_bad=True)
    assert loaded.classes == ("no", "yes")
    assert "maybe" in loaded.train.skipped[0]


def test_symbolic_links_are_followed(commands, tmp_path):
    elsewhere = write(tmp_path / "elsewhere" / "a.wav", sine())
    (commands / "yes" / "5.wav").symlink_to(elsewhere)
    (commands / "maybe").symlink_to(elsewhere.parent)
    loaded = load(commands)
    assert loaded.classes == ("maybe", "no", "yes")
    assert loaded.train.targets.tolist() == [0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (os.mkfifo, "odd: expected a recording, got something that is not a file"),
        (os.mkdir, "odd: expected recordings directly in the folder of each word, got a folder"),
        (lambda path: path.symlink_to("odd"), "odd cannot be read"),
        (lambda path: path.symlink_to("nowhere"), "odd cannot be read"),
    ],
    ids=["pipe", "folder", "link to itself", "dangling link"],
)
def test_anything_but_a_file_among_the_recordings_raises_an_error(commands, make, sentence):
    make(commands / "yes" / "odd")
    with pytest.raises(UserError, match=sentence):
        load(commands)
    assert len(load(commands, skip_bad=True).train) == 4


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_word_without_recordings_to_train_on_raises_an_error(commands, skip_bad):
    names = "".join(f"yes/{n}.wav\n" for n in (0, 1, 3))
    (commands / "testing_list.txt").write_text(names)
    with pytest.raises(UserError, match="the word 'yes' has no recordings in the training split"):
        load(commands, skip_bad=skip_bad)


def test_a_word_with_only_bad_recordings_raises_an_error(commands):
    for number in (0, 1):
        (commands / "no" / f"{number}.wav").write_bytes(b"")
    with pytest.raises(UserError, match="the word 'no' has no recordings in the training split"):
        load(commands, skip_bad=True)


def test_an_empty_list_raises_an_error(commands):
    (commands / "testing_list.txt").write_text("")
    with pytest.raises(UserError, match="expected recordings in the test split, got none"):
        load(commands)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"feature": "wave"}, "Did you mean 'features'"),
        ({"features": "log_mel"}, "Did you mean 'log-mel'"),
        ({"rate": "16k"}, "rate: expected a number from 1000 to .*'16k'"),
        ({"rate": "8000.5"}, r"rate: expected an integer, got 8000\.5"),
        ({"seconds": "0"}, "seconds: expected"),
        ({"seconds": "nan"}, "seconds: expected"),
        ({"seconds": "1e12"}, "seconds: expected"),
    ],
)
def test_bad_options_raise_an_error(commands, options, sentence):
    with pytest.raises(UserError, match=sentence):
        load(commands, options)


@pytest.mark.parametrize("where", ["", "no_such_folder"])
def test_a_missing_folder_raises_an_error(where):
    with pytest.raises(UserError, match="folder of spoken words"):
        load(where)


def test_a_folder_without_words_raises_an_error(tmp_path):
    with pytest.raises(UserError, match="got none"):
        load(tmp_path)


@pytest.mark.parametrize("features", ["wave", "log-mel", "log-spectrogram"])
def test_recordings_in_files_give_the_same_bits_also_after_pickling(commands, features):
    options = {"features": features, "rate": "8000", "seconds": "0.5"}
    memory, stored = load(commands, options), load(commands, options, in_memory=1)
    for name, part in memory.splits.items():
        reader = pickle.loads(pickle.dumps(stored.splits[name].inputs))
        assert isinstance(reader, StoredRecordings)
        assert (reader.shape, reader.dtype) == (tuple(part.inputs.shape), part.inputs.dtype)
        rows = list(range(len(part)))[::-1]
        read = reader.read(rows)
        assert read.kept.tolist() == list(range(len(part)))
        assert torch.equal(read.inputs, part.inputs[rows])
        assert torch.equal(stored.splits[name].targets, part.targets)
    assert reader.read([]).inputs.shape == (0, *reader.shape[1:])


def test_reading_does_not_change_the_number_of_threads(commands):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load(commands, {"rate": "8000"})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_splits_of_at_most_in_memory_bytes_are_read_into_memory(commands):
    options = {"features": "wave", "rate": "8000"}
    size = 4 * 8000 * 4
    assert isinstance(load(commands, options, in_memory=size).train.inputs, torch.Tensor)
    assert isinstance(load(commands, options, in_memory=size - 1).train.inputs, StoredRecordings)


def test_the_splits_of_the_spoken_digits_are_those_of_their_lists(spoken_digits):
    loaded = load(spoken_digits, {"features": "wave", "rate": "8000"})
    lists = {
        part: set((spoken_digits / f"{part}_list.txt").read_text().split())
        for part in ("testing", "validation")
    }
    every = {p.relative_to(spoken_digits).as_posix() for p in spoken_digits.glob("*/*.wav")}
    lists["train"] = every - lists["testing"] - lists["validation"]
    names = ("train", "validation", "testing")
    assert [len(lists[name]) for name in names] == [2400, 300, 300]
    for part, name in zip(loaded.splits.values(), names, strict=True):
        words = [path.split("/")[0] for path in sorted(lists[name])]
        assert [loaded.classes[target] for target in part.targets] == words
        # The first sample of each, straight from the bytes behind the header of 44.
        heads = [(spoken_digits / path).read_bytes()[44:46] for path in sorted(lists[name])]
        first = [struct.unpack("<h", head)[0] / 2**15 for head in heads]
        assert part.inputs[:, 0].tolist() == first


# Spectrograms


def test_log_spectrogram_agrees_with_a_loop_over_windows():
    wave = torch.rand(1, 1600, dtype=torch.float64) - 0.5
    ours = log_spectrogram(wave, 16000)[0, 0]
    padded = np.pad(wave[0].numpy(), 160)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 320)
    assert ours.shape == (160, 11)
    for frame in range(11):
        spectrum = np.fft.rfft(padded[160 * frame : 160 * frame + 320] * window)
        expected = np.log(np.abs(spectrum[1:]) ** 2 + 1e-6)
        np.testing.assert_allclose(ours[:, frame], expected, atol=1e-8)


def test_log_mel_agrees_with_scipy_and_a_loop_over_bands():
    rate, bands = 16000, 40
    wave = torch.rand(1, 3200, dtype=torch.float64) - 0.5
    window = np.pad(scipy.signal.get_window("hann", 400), 56)
    transform = scipy.signal.ShortTimeFFT(window, hop=160, fs=rate, mfft=512, phase_shift=None)
    power = np.abs(transform.stft(wave[0].numpy(), p0=0, p1=21)) ** 2

    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)  # the other way to write it

    step = mel(8000) / (bands + 1)
    edges = [700 * (math.exp(step * k / 1127) - 1) for k in range(bands + 2)]
    expected = np.zeros((bands, 21))
    for band in range(bands):
        low, peak, high = edges[band : band + 3]
        for bin_ in range(257):
            hertz = bin_ * rate / 512
            if low < hertz <= peak:
                expected[band] += power[bin_] * (hertz - low) / (peak - low)
            elif peak < hertz < high:
                expected[band] += power[bin_] * (high - hertz) / (high - peak)
    ours = log_mel(wave, rate, bands=bands)[0, 0]
    np.testing.assert_allclose(ours, np.log(expected + 1e-6), atol=1e-4)


def test_a_second_at_16_khz_has_the_size_of_the_paper():
    assert log_spectrogram(torch.zeros(2, 16000), 16000).shape == (2, 1, 160, 101)
    assert log_mel(torch.zeros(2, 16000), 16000).shape == (2, 1, 64, 101)


def test_silence_is_finite_and_uniform():
    for image in (log_spectrogram(torch.zeros(1, 800), 8000), log_mel(torch.zeros(1, 800), 8000)):
        torch.testing.assert_close(image, torch.full_like(image, math.log(1e-6)))


def test_too_many_bands_and_a_single_wave_raise_an_error():
    with pytest.raises(ValueError, match="got 200 bands"):
        mel_filters(8000, bands=200, bins=256)
    with pytest.raises(ValueError, match=r"wave\[None\]"):
        log_mel(torch.zeros(800), 8000)


@pytest.mark.parametrize("rate", ["1000", "2000", "4000", "5000"])
def test_a_rate_too_low_for_the_bands_is_refused_in_a_sentence(commands, rate):
    with pytest.raises(UserError, match=f"rate={rate}: expected a rate from about 5,200"):
        load(commands, {"rate": rate})
    assert len(load(commands, {"rate": rate, "features": "log-spectrogram"}).train) > 0


def test_a_rate_just_above_what_the_bands_need_is_read(commands):
    assert load(commands, {"rate": "5200"}).train.inputs.shape[2] == 64


def test_recordings_outside_of_the_class_folders_are_counted(commands):
    write(commands / "loose.wav", sine())
    doubts = [note.text for note in load(commands).notes if note.doubtful]
    assert any("1 recording in" in text and "loose.wav" in text for text in doubts)
