"""Pictures named by lines: what each name gives, what bad ones are answered with, and how they are stored for training."""

import io
import re
import struct
import time
import types
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxnmt import cli
from jaxnmt import config as cfg
from jaxnmt.data import pictures, scenes, source
from jaxnmt.data.prepared import prepare
from jaxnmt.data.sources import open_sources, sources_of
from jaxnmt.errors import UserError
from jaxnmt.evaluation import translations

TASK, VECTORS = cfg.Captioning(size=8, patch=4), cfg.Captioning(source="vectors", size=3)
ARRAY = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def bomb(side):
    """A PNG of some bytes that declares side x side pixels."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.fixture
def folder(tmp_path):
    """Four pictures as files and as an array."""
    (tmp_path / "scenes").mkdir()
    for i, array in enumerate(ARRAY):
        (tmp_path / "scenes" / f"{i}.png").write_bytes(png(array))
    np.savez(tmp_path / "all.npz", pictures=ARRAY, vectors=np.arange(12.0).reshape(4, 3))
    return tmp_path


def test_what_a_name_gives(folder):
    np.testing.assert_array_equal(pictures.read(f"{folder}/scenes/2.png", TASK), ARRAY[2])
    np.testing.assert_array_equal(pictures.read(f"{folder}/all.npz#2", TASK), ARRAY[2])
    np.testing.assert_array_equal(pictures.read(f"{folder}/all.npz#2", VECTORS), np.float32([6, 7, 8]))
    np.testing.assert_array_equal(pictures.read("scenes/tr-20:test#7", TASK), scenes.draw(scenes.scene("test", 7), 8))
    (folder / "wide#1.png").write_bytes(png(np.hstack([ARRAY[0] * 0, ARRAY[1], ARRAY[0] * 0])))
    np.testing.assert_array_equal(pictures.read(f"{folder}/wide#1.png", TASK), ARRAY[1])  # the square in the middle
    (folder / "grey.png").write_bytes(png(ARRAY[0, :, :, 0]))
    np.testing.assert_array_equal(pictures.read(f"{folder}/grey.png", TASK), np.repeat(ARRAY[0, :, :, :1], 3, 2))


def test_files_are_read_as_a_viewer_shows_them_on_white(folder):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees to the right
    Image.fromarray(ARRAY[0]).save(folder / "turned.png", exif=exif)
    np.testing.assert_array_equal(pictures.read(f"{folder}/turned.png", TASK), np.rot90(ARRAY[0], -1))
    alpha = np.dstack([ARRAY[0], np.where(np.arange(64).reshape(8, 8) % 2, 255, 0).astype(np.uint8)])
    (folder / "alpha.png").write_bytes(png(alpha))
    np.testing.assert_array_equal(pictures.read(f"{folder}/alpha.png", TASK), np.where(alpha[..., 3:] > 0, ARRAY[0], 255))
    (folder / "deep.png").write_bytes(png(ARRAY[0, ..., 0].astype(np.uint16) * 257))
    np.testing.assert_array_equal(pictures.read(f"{folder}/deep.png", TASK), np.repeat(ARRAY[0, ..., :1], 3, 2))


def test_captions_are_kept_for_the_pictures_they_were_made_of(folder):
    names = [f"{folder}/all.npz#1", f"{folder}/scenes/1.png", f"{folder}/all.npz#0"]
    before = pictures.contents(names, None)
    assert pictures.contents(names[:2], None) == before  # an archive is read once
    (folder / "scenes" / "1.png").write_bytes(png(ARRAY[0]))
    changed = pictures.contents(names, None)
    assert changed != before
    found, made = types.SimpleNamespace(name="1", checksum=""), iter("ab")
    kept = [translations.kept(folder, found, "", names, cfg.Decoding(), lambda: [next(made)], each) for each in (before, changed, before)]
    assert kept == [["a"], ["b"], ["a"]]


def test_pictures_of_validation_are_read_once(folder):
    found = [pictures.kept(f"{folder}/scenes/2.png", TASK) for _ in range(2)]
    assert found[0] is found[1]
    np.testing.assert_array_equal(found[0], ARRAY[2])


def test_pairs_of_python_are_read_as_those_of_files(folder, monkeypatch):
    class Mine(cfg.Data):
        def pairs(self, part):
            return [("all.npz#0", "a")]

    monkeypatch.chdir(folder)
    (captions,) = sources_of(cfg.Experiment(task=TASK, data=Mine()), "train")
    (texts,) = sources_of(cfg.Experiment(task=cfg.Language(), data=Mine()), "train")
    assert list(captions.pairs()) == [(f"{folder}/all.npz#0".encode(), b"a")]
    assert list(texts.pairs()) == [(b"all.npz#0", b"all.npz#0")]


def bad_files(folder):
    (folder / "text.png").write_text("a text")
    (folder / "cut.png").write_bytes(png(ARRAY[0])[:-40])
    (folder / "bomb.png").write_bytes(bomb(20_000))
    (folder / "big.png").write_bytes(bomb(10_001))
    (folder / "cut.npz").write_bytes((folder / "all.npz").read_bytes()[:-40])
    np.savez(folder / "grey.npz", pictures=ARRAY[..., 0], vectors=np.array(["a"]))
    np.savez(folder / "float.npz", pictures=ARRAY / 255.0, vectors=np.zeros((2, 4)))
    np.savez(folder / "other.npz", images=ARRAY)
    np.save(folder / "single", ARRAY)
    (folder / "single.npy").rename(folder / "single.npz")


@pytest.mark.parametrize(
    ("name", "task", "says"),
    [
        ("none.png", TASK, "No such file"),
        ("scenes", TASK, "Is a directory"),
        ("text.png", TASK, "cannot identify"),
        ("cut.png", TASK, "not a picture that can be read"),
        ("bomb.png", TASK, "400000000 pixels"),
        ("big.png", TASK, "10,001 x 10,001 pixels, and at most 100,000,000"),
        ("all.npz", TASK, "cannot identify"),
        ("all.npz#4", TASK, "index 4 is out of bounds"),
        ("all.npz#-1", TASK, "the number of a picture, from 0 on, belongs after #"),
        ("all.npz#one", TASK, "the number of a picture"),
        ("none.npz#0", TASK, "No such file"),
        ("cut.npz#0", TASK, "not a picture that can be read"),
        ("single.npz#0", TASK, "not a picture that can be read"),
        ("other.npz#0", TASK, "has no array 'pictures'; it has images"),
        ("grey.npz#0", TASK, r"uint8 of shape \(8, 8\); a picture is uint8 of shape \(rows, columns, 3\)"),
        ("float.npz#0", TASK, "float64 of shape"),
        ("float.npz#0", VECTORS, r"has the shape \(4,\), and task.size is 3"),
        ("grey.npz#0", VECTORS, "has the shape"),
        ("0.png", VECTORS, "names no vector"),
    ],
)
def test_bad_pictures_get_one_sentence(folder, name, task, says):
    bad_files(folder)
    with pytest.raises(UserError, match=says) as caught:
        pictures.read(f"{folder}/{name}", task)
    assert str(caught.value).startswith(f"{folder}/{name.partition('#')[0]}") and "\n" not in str(caught.value)


def test_bad_scenes():
    for name in ("scenes/en:test#x", "scenes/en:test"):
        with pytest.raises(UserError, match="number of a picture|No such file"):
            pictures.read(name, TASK)
    with pytest.raises(UserError, match="names no vector"):
        pictures.read("scenes/en:test#1", VECTORS)
    with pytest.raises(UserError, match="no language xx; there are en"):
        open_sources(("scenes/xx:test",), "data.train", pictures=True)


def written(folder, lines):
    (folder / "pictures.tsv").write_text("".join(f"{name}\t{caption}\n" for name, caption in lines))
    return str(folder / "pictures.tsv")


def test_names_in_a_file_are_relative_to_its_folder(folder, monkeypatch):
    names = ["scenes/1.png", "all.npz#3", f"{folder}/all.npz#0", "scenes/en:test#3", "coco_captions:val#3"]
    monkeypatch.chdir(folder.parent)
    (found,) = open_sources((written(folder, [(name, "a") for name in names]),), "data.train", pictures=True)
    absolute = [f"{folder}/scenes/1.png", f"{folder}/all.npz#3", f"{folder}/all.npz#0", "scenes/en:test#3", "coco_captions:val#3"]
    assert [name.decode() for name, _ in found.pairs()] == absolute
    assert list(found.pairs(2)) == list(found.pairs())[2:] and found.where(1) == f"{folder}/pictures.tsv:2"


def experiment(folder, lines, **changes):
    data = cfg.Data(train=(written(folder, lines),), max_length=8, held_out=0, cache=str(folder / "cache"), workers=1)
    tokenizer = cfg.Tokenizer(kind="words", vocab_size=0, joiner="")
    return cfg.replace(cfg.Experiment(task=TASK, data=data, tokenizer=tokenizer, batching=cfg.Batching(layout="buckets")), **changes)


def test_each_picture_is_stored_once(folder):
    lines = [("all.npz#2", "a b"), ("scenes/1.png", "b"), ("all.npz#2", "c"), ("all.npz#0", "a")]
    (corpus,) = prepare(experiment(folder, lines), folder / "run", lambda line: None).train
    assert corpus.vectors.shape == (3, 8, 8, 3) and corpus.source.ids.tolist() == [0, 1, 0, 2]
    np.testing.assert_array_equal(corpus.vectors[corpus.source.ids], ARRAY[[2, 1, 2, 0]])


def test_changed_pictures_are_other_data_and_unchanged_ones_are_not_read_again(tmp_path, monkeypatch):
    found = {}
    monkeypatch.setattr(source, "time", types.SimpleNamespace(time=lambda: time.time() + 60))  # the files are a minute old
    for folder, color in (("a", 0), ("b", 255), ("a copy", 0)):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "all.npz", pictures=np.full_like(ARRAY, color))
        of = experiment(tmp_path / folder, [(f"all.npz#{i}", "a") for i in range(3)], **{"data.cache": str(tmp_path / "cache")})
        found[folder] = prepare(of, tmp_path / folder, lambda line: None)
        assert (found[folder].train[0].vectors == color).all()
    digests = [each.fingerprints["fingerprint"] for each in found.values()]
    assert digests[0] == digests[2] != digests[1] and len(list((tmp_path / "cache" / "tokenizers").glob("*.lock"))) == 2
    monkeypatch.setattr(pictures.hashlib, "file_digest", None)
    monkeypatch.setattr(pictures, "numbers_of", None)
    assert prepare(of, tmp_path / "a copy", lambda line: None).fingerprints == found["a copy"].fingerprints


def test_a_lost_array_of_pictures_is_made_again(folder):
    of = experiment(folder, [("all.npz#0", "a")])
    prepare(of, folder / "run", lambda line: None)
    (lost,) = (folder / "cache").glob("*/vectors.npy")
    lost.unlink()
    np.testing.assert_array_equal(prepare(of, folder / "run", lambda line: None).train[0].vectors, ARRAY[:1])


def test_held_out_pictures_are_in_no_training_pair(folder):
    lines = [(f"scenes/en:train#{i}", f"{word} {i}") for i in range(60) for word in ("a", "b")]
    prepared = prepare(experiment(folder, lines, **{"data.held_out": 10}), folder / "run", lambda line: None)
    held_out = {name for name, _ in prepared.validation}
    kept = {f"scenes/en:train#{number}" for number in prepared.train[0].source.ids}
    assert len(prepared.validation) == 2 * len(held_out) > 2 and not held_out & kept and len(held_out | kept) == 60


def test_an_array_that_promises_more_pixels_than_are_read_is_refused_unread(tmp_path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10_001, 10_001, 3)}
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive, archive.open("pictures.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(UserError, match=r"huge\.npz: its pictures have 10,001 x 10,001 pixels"):
        pictures.read(f"{tmp_path}/huge.npz#1", TASK)


def test_a_bad_picture_is_found_before_training_with_file_and_line(folder, capsys):
    bad_files(folder)
    lines = [("scenes/0.png", "a"), ("scenes/0.png", "b"), ("text.png", "c"), ("all.npz#1", "d")]
    place = re.escape(f"{folder}/pictures.tsv:3: {folder}/text.png is not a picture")
    with pytest.raises(UserError, match=place):
        prepare(experiment(folder, lines), folder / "run", lambda line: None)
    (folder / "v.tsv").write_text("scenes/0.png\ta\nbomb.png\ta\n")
    good = experiment(folder, [lines[0]], **{"data.validation": (f"{folder}/v.tsv",)})
    with pytest.raises(UserError, match=r"v\.tsv:2: .*bomb\.png"):
        prepare(good, folder / "run", lambda line: None)
    prepare(experiment(folder, [lines[0]]), folder / "run", lambda line: None)  # now the training text is in the cache
    with pytest.raises(UserError, match=r"v\.tsv:2: .*bomb\.png"):
        prepare(good, folder / "run", lambda line: None)
    assert cli.main(["data", "check", "captions", "--data.train", written(folder, lines)]) == 0
    printed = capsys.readouterr().out
    assert "4 pairs, 4 kept" in printed and re.search(rf"unreadable picture +1\n +{place}", printed)
