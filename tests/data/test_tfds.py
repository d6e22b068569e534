"""TFDS datasets without TensorFlow and without network: the real WMT code on tarballs of our own, our builders, every mistake."""

import contextlib
import gzip
import hashlib
import importlib.util
import io
import itertools
import json
import os
import random
import subprocess
import sys
import tarfile
import time
import types
import zipfile

import numpy as np
import pytest
from PIL import Image

tfds = pytest.importorskip("tensorflow_datasets")

from tensorflow_datasets.core import shuffle  # noqa: E402
from tensorflow_datasets.core.download import checksums, downloader, resource  # noqa: E402

from jaxnmt.config import Captioning  # noqa: E402
from jaxnmt.data import builders, datasets, phrases, pictures, source  # noqa: E402
from jaxnmt.data.sources import open_sources  # noqa: E402
from jaxnmt.errors import UserError  # noqa: E402

NC = [(f"Satz {i} ö", f"Sentence {i}") for i in range(30)]
CRAWL = [("Zeile\x85mit U+2028 \u2028 darin", "Line with U+2028 \u2028 inside"), ("Ja.", "Yes.")]
DEV = [(f"Vorher {i}", f"Before {i}") for i in range(5)]
TEST = [(f"Nachher {i}", f"After {i}") for i in range(4)]


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.delenv(builders.MULTI30K_FOLDER, raising=False)
    monkeypatch.setattr(downloader._Downloader, "download", _no_network)
    tfds.disable_progress_bar()
    return tmp_path


def _no_network(self, url, *args, **kwargs):
    raise OSError(f"no network in tests: {url}")


def seed_cache(data_dir, url, content, checksum=None):
    """Puts a file where TFDS keeps its downloads, as if it had come from `url`."""
    folder = data_dir / "downloads"
    folder.mkdir(exist_ok=True)
    path = folder / resource.get_dl_fname(url, checksum)
    path.write_bytes(content)
    name = url.rpartition("/")[2]
    info = checksums.UrlInfo(size=len(content), checksum=checksum or hashlib.sha256(content).hexdigest(), filename=name)
    resource.write_info_file(url=url, path=tfds.core.Path(path), dataset_name="test", original_fname=name, url_info=info)


def tarball(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def side(pairs, which):
    return "\n".join(pair[which] for pair in pairs) + "\n"


def sgm(pairs, which):
    return "<doc>\n" + "".join(f'<seg id="{i}">{pair[which]}</seg>\n' for i, pair in enumerate(pairs)) + "</doc>\n"


@pytest.fixture
def wmt14(data_dir, monkeypatch):
    """WMT14 de-en's four archives, made small."""
    archives = {
        "training-parallel-europarl-v7.tgz": {f"training/europarl-v7.de-en.{c}": side(NC[:10], i) for i, c in enumerate(("de", "en"))},
        "training-parallel-commoncrawl.tgz": {f"commoncrawl.de-en.{c}": side(CRAWL, i) for i, c in enumerate(("de", "en"))},
        "training-parallel-nc-v9.tgz": {f"training/news-commentary-v9.de-en.{c}": side(NC[10:], i) for i, c in enumerate(("de", "en"))},
        "dev.tgz": {f"dev/newstest2013.{c}": side(DEV, i) for i, c in enumerate(("de", "en"))}
        | {"dev/newstest2014-deen-src.de.sgm": sgm(TEST, 0), "dev/newstest2014-deen-ref.en.sgm": sgm(TEST, 1)},
    }
    import tensorflow_datasets.translate.wmt14  # noqa: F401

    for url, info in tfds.builder_cls("wmt14_translate").url_infos.items():
        if info.filename in archives:
            seed_cache(data_dir, url, tarball(archives[info.filename]), info.checksum)
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 100)  # so that shuffling goes through files, as on the real data
    return data_dir


def test_the_real_wmt_code_prepares_and_reads(wmt14):
    train, validation, test = open_sources(
        ("wmt14_translate/de-en", "wmt14_translate/de-en:validation@2", "wmt14_translate/de-en:test[1:]"), "data.train"
    )
    decoded = [tuple(text.decode() for text in pair) for pair in train.pairs()]
    assert sorted(decoded) == sorted(NC + CRAWL) and len(train) == len(NC) + len(CRAWL)
    assert sorted(validation.pairs()) == sorted((a.encode(), b.encode()) for a, b in DEV) and validation.weight == 2
    assert len(test) == len(TEST) - 1 and set(test.pairs()) < {(a.encode(), b.encode()) for a, b in TEST}
    assert train.languages == ("de", "en")
    assert list(train.pairs(30)) == list(train.pairs())[30:]

    (reverse,) = open_sources(("wmt14_translate/en-de",), "data.train")
    assert list(reverse.pairs()) == [(b, a) for a, b in train.pairs()]
    assert reverse.languages == ("en", "de")

    ten, rest, both = open_sources(
        tuple(f"wmt14_translate/de-en:{split}" for split in ("train[:25%]", "train[25%:]", "train[:8]+validation")), "data.train"
    )
    assert list(ten.pairs()) + list(rest.pairs()) == list(train.pairs())
    assert list(both.pairs()) == list(train.pairs())[:8] + list(validation.pairs())
    assert len({source.fingerprint() for source in (train, validation, test, reverse, ten, rest, both)}) == 7
    assert open_sources(("wmt14_translate/de-en",), "data.train")[0].fingerprint() == train.fingerprint()


def test_the_shim_is_off_where_tensorflow_is(monkeypatch):
    from tensorflow_datasets.core.download import extractor

    monkeypatch.setattr(extractor, "tf", "untouched")
    monkeypatch.setattr(shuffle, "tf", "untouched")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    datasets._replace_tensorflow()
    assert extractor.tf == shuffle.tf == "untouched"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    datasets._replace_tensorflow()
    assert extractor.tf.compat.as_text(b"a") == "a"


def test_text_files_do_not_import_tfds_or_jax(tmp_path):
    (tmp_path / "p.tsv").write_bytes(b"a\tb\n")
    code = (
        "import sys; from jaxnmt.data.sources import open_sources; import jaxnmt.data.cleaning;"
        "open_sources(('p.tsv',), 'x'); print([m for m in ('tensorflow_datasets', 'jax', 'grain') if m in sys.modules])"
    )
    path = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"]
    assert subprocess.run(path, cwd=tmp_path, check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.fixture
def multi30k(monkeypatch):
    """Multi30k in small: the files' contents by published name, with checksums to match."""
    counts = {"train": 7, "val": 3, "test_2016_flickr": 2}
    files = {f"{s}.{c}": "".join(f"{s} {c} {i}\u2028\n" for i in range(n)).encode() for s, n in counts.items() for c in ("en", "de")}
    monkeypatch.setattr(builders, "_MULTI30K_SHA256", {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    return files


def expected(split, name, count):
    return [(f"{name} en {i}\u2028".encode(), f"{name} de {i}\u2028".encode()) for i in range(count)]


def test_multi30k_downloaded(data_dir, multi30k):
    for name, data in multi30k.items():
        seed_cache(data_dir, f"https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/{name}.gz", gzip.compress(data))
    train, test = open_sources(("multi30k/en-de:train@3", "multi30k/en-de:test"), "data.train")
    assert list(train.pairs()) == expected("train", "train", 7) and train.weight == 3  # in the file's order
    assert list(test.pairs()) == expected("test", "test_2016_flickr", 2)
    assert test.where(1) == "multi30k/en-de:test example 2"


def test_multi30k_from_a_folder(data_dir, multi30k, monkeypatch):
    folder = data_dir / "files"
    folder.mkdir()
    for name, data in multi30k.items():
        if name.endswith("de"):
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name.replace("test_2016_flickr", "test2016")).write_bytes(data)
    monkeypatch.setenv(builders.MULTI30K_FOLDER, str(folder))
    (validation,) = open_sources(("multi30k/de-en:validation",), "data.validation")
    assert list(validation.pairs()) == [pair[::-1] for pair in expected("validation", "val", 3)]


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda folder: (folder / "val.de").write_bytes(b"else\n"), "SHA-256"),
        (lambda folder: (folder / "val.de").write_bytes(gzip.compress(b"cut short")[:-4]), "not a whole gzip file"),
        (lambda folder: (folder / "val.de").unlink(), "val.de"),
    ],
)
def test_multi30k_files_are_verified_and_nothing_is_left(data_dir, multi30k, monkeypatch, change, part):
    folder = data_dir / "files"
    folder.mkdir()
    for name, data in multi30k.items():
        (folder / name).write_bytes(data)
    change(folder)
    monkeypatch.setenv(builders.MULTI30K_FOLDER, str(folder))
    assert part in failure("multi30k/en-de")
    assert not list(data_dir.glob("multi30k/**/*.array_record*"))
    for name, data in multi30k.items():  # mended, the same word works
        (folder / name).write_bytes(data)
    assert len(open_sources(("multi30k/en-de",), "data.train")[0]) == 7


def test_phrases_are_the_generators_sentences_in_order(data_dir):
    train, tail = open_sources(("phrases/en-fr-120:train", "phrases/en-fr-120:train[100:]"), "data.train")
    own = [(a.encode(), b.encode()) for a, b in phrases.generate("en", "fr", "train", 120)]
    assert list(train.pairs()) == own and list(tail.pairs()) == own[100:]
    assert train.languages == ("en", "fr")
    (test,) = open_sources(("phrases/en-fr-120:test",), "data.test")
    first = itertools.islice(phrases.generate("en", "fr", "test", 1000), 5)
    assert len(test) == 1000 and list(test.pairs())[:5] == [(a.encode(), b.encode()) for a, b in first]


def test_two_commands_that_need_the_same_data_prepare_it_once(data_dir, monkeypatch):
    """Another process is through with it when we get the lock."""

    @contextlib.contextmanager
    def a_late_lock(path, say, when_held):
        with monkeypatch.context() as patch:
            patch.setattr(datasets.files, "lock", lambda path, say, when_held: contextlib.nullcontext())
            taken.append(len(open_sources(("phrases/en-de-30:train",), "data.train")[0]))
        yield

    taken = []
    monkeypatch.setattr(datasets.files, "lock", a_late_lock)
    (source,) = open_sources(("phrases/en-de-30:train",), "data.train")
    assert len(source) == len(list(source.pairs())) == taken[0]


def test_reads_across_chunks(data_dir):
    (train,) = open_sources(("phrases/tr-de-2500:train",), "data.train")
    everything = list(train.pairs())
    assert len(everything) == 2500
    start = random.Random(0).randrange(1001, 1999)
    assert list(train.pairs(start)) == everything[start:]


class VariableLanguages(tfds.core.GeneratorBasedBuilder):  # type: ignore[name-defined]
    """Like ted_multi_translate: each record has some of the languages."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        translations = tfds.features.TranslationVariableLanguages(languages=["de", "en", "fr"])
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"translations": translations}), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(6):
            texts = {"en": f"one\n{i}", "fr": f"un {i}"} | ({"de": f"eins {i}"} if i % 3 == 0 else {})
            yield i, {"translations": texts}


def test_records_that_lack_a_language_are_left_out(data_dir):
    german, french = open_sources(("variable_languages/en-de", "variable_languages/fr-en:train"), "data.train")
    assert list(german.pairs()) == [(b"one 0", b"eins 0"), (b"one 3", b"eins 3")]  # the line end inside a text is gone
    assert german.where(1) == "variable_languages/en-de:train example 4"
    assert len(french) == 6 and french.languages == ("fr", "en")
    assert "no language tr" in failure("variable_languages/en-tr")
    assert "name two of its languages" in failure("variable_languages:train")


def age(folder):
    """Make files look as if they had been written a minute ago."""
    for path in folder.rglob("*.array_record*"):
        os.utime(path, (time.time() - 60, time.time() - 60))


@pytest.mark.parametrize("word", ["variable_languages/en-de", "phrases/en-de-30:train"])
def test_prepared_files_that_have_not_changed_are_not_read_to_know_them(word, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "time", types.SimpleNamespace(time=lambda: time.time() + 60))  # what is written here is a minute old
    open_sources((word,), "data.train")
    age(data_dir)
    (first,) = open_sources((word,), "data.train", tmp_path / "cache")
    pairs, digest = list(first.pairs()), first.fingerprint()
    (reverse,) = open_sources((word.replace("en-de", "de-en"),), "data.train", tmp_path / "cache")
    assert reverse.fingerprint() != digest
    with monkeypatch.context() as patch:
        patch.setattr(datasets.Dataset, "_read_digest", None)
        patch.setattr(datasets.Dataset, "_whole_rows", None)
        (again,) = open_sources((word,), "data.train", tmp_path / "cache")
        assert again.fingerprint() == digest and list(again.pairs()) == pairs
        with monkeypatch.context() as inner, pytest.raises(TypeError, match="not callable"):  # other sides: too
            inner.setattr(datasets, "_sides", lambda *_: first._sides._replace(names=("other",)))
            open_sources((word,), "data.train", tmp_path / "cache")[0].fingerprint()
        age(data_dir)  # other times: they must be read again
        with pytest.raises(TypeError, match="not callable"):
            open_sources((word,), "data.train", tmp_path / "cache")[0].fingerprint()


def failure(word):
    with pytest.raises(UserError) as caught:
        open_sources((word,), "data.train")
    message = str(caught.value)
    assert message.startswith("data.train: ") or builders.MULTI30K_FOLDER in message or "multi30k" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "word, parts",
    [
        ("wmt14_tranlate/de-en", ["no TFDS dataset wmt14_tranlate", "did you mean wmt14_translate"]),
        ("multi30/en-de:train", ["did you mean multi30k"]),
        ("train", ["there is no file and no TFDS dataset train"]),
        ("wmt14_translate/de-fi", ["no config 'de-fi'", "de-en"]),
        ("wmt14_translate", ["no config", "cs-en"]),
        ("phrases/en-en", ["no config 'en-en'"]),
        ("phrases/en-fr-0", ["no config 'en-fr-0'"]),
        ("phrases/en-fr-9:trian", ["trian", "train, validation, test"]),
        ("phrases/en-fr-9:train[:x]", ["train[:x]", "train, validation, test"]),
        ("phrases/en-fr-9:train[:0]", ["has no pairs"]),
        ("phrases/en-fr-9:train@0", ["'0'", "above 0"]),
        ("wmt14_translate/de-en", ["could not be downloaded", "no network in tests"]),
        ("wmt14_translate/cs-en", ["could not be downloaded"]),
    ],
)
def test_mistakes(data_dir, word, parts):
    message = failure(word)
    for part in parts:
        assert part in message


@pytest.fixture
def imdb(data_dir):
    """The archive of imdb_reviews, made small."""
    reviews = {
        "train/pos/0_9": "Good.\nVery good.",
        "train/neg/1_1": "Bad \u2028 film",
        "test/neg/0_2": "Dull",
        "train/unsup/0_0": "A film",
    }
    ((url, info),) = tfds.builder_cls("imdb_reviews").url_infos.items()
    seed_cache(data_dir, url, tarball({f"aclImdb/{name}.txt": text for name, text in reviews.items()}), info.checksum)
    return data_dir


def test_texts_with_labels_have_the_names_of_their_classes(imdb):
    words = "imdb_reviews", "imdb_reviews:test", "imdb_reviews:train[:1]+test", "imdb_reviews:unsupervised"
    train, test, sliced, unlabelled = open_sources(words, "data.train")
    assert sorted(train.pairs()) == [("Bad \u2028 film".encode(), b"neg"), (b"Good. Very good.", b"pos")]
    assert list(test.pairs()) == [(b"Dull", b"neg")] and train.languages == ("", "") and len(train) == 2
    assert list(sliced.pairs()) == [*list(train.pairs())[:1], *test.pairs()]
    assert list(unlabelled.pairs()) == [(b"A film", b"")]  # which training drops
    assert len({source.fingerprint() for source in (train, test, sliced, unlabelled)}) == 4


class Sentences(tfds.core.GeneratorBasedBuilder):  # type: ignore[name-defined]
    """Like glue/sst2: no supervised keys, and more than two features."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        label = tfds.features.ClassLabel(names=["no", "yes"])
        features = {"idx": tfds.features.Scalar(np.int32), "label": label, "sentence": tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield from ((i, {"idx": i, "label": i % 2, "sentence": f"text {i}"}) for i in range(3))


def test_a_text_and_a_class_are_found_without_being_named(data_dir):
    assert list(open_sources(("sentences:train",), "data.train")[0].pairs()) == [
        (b"text 0", b"no"),
        (b"text 1", b"yes"),
        (b"text 2", b"no"),
    ]


def test_a_dataset_that_is_no_translation(data_dir):
    assert "not a translation dataset" in failure("mnist:train")


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


PICTURES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
CAPTIONS = [["A cat.", "One\ncat\u2028."], ["Two dogs.", "Dogs.", "A dog and a dog."], ["A bus."], ["A tree."], ["A car."], ["A hat."]]


@pytest.fixture
def coco(data_dir):
    """The archives of coco_captions, made small: three pictures to train on and one for each other split."""
    categories = [{"id": i, "name": f"thing {i}"} for i in range(80)]
    archives: dict = {f"test{year}.zip": {"readme": ""} for year in (2014, 2015)} | {"annotations_trainval2014.zip": {}}
    for part, numbers in {"train": (0, 1, 2), "val": (3, 4, 5)}.items():
        images = [{"id": i, "file_name": f"{i}.jpg", "height": 8, "width": 8} for i in numbers]
        content = json.dumps({"images": images, "annotations": [], "categories": categories})
        archives["annotations_trainval2014.zip"][f"annotations/instances_{part}2014.json"] = content
        archives[f"{part}2014.zip"] = {f"{part}2014/{i}.jpg": png(PICTURES[i]) for i in numbers}
    for name in ("image_info_test2014", "image_info_test2015"):
        archives[f"{name}.zip"] = {f"annotations/{name}.json": json.dumps({"images": [], "categories": categories})}
    splits = zip(("train", "train", "train", "val", "test", "restval"), CAPTIONS, strict=True)
    sentences = [
        {"split": split, "filename": f"{i}.jpg", "sentences": [{"sentid": j, "raw": text} for j, text in enumerate(texts)]}
        for i, (split, texts) in enumerate(splits)
    ]
    archives["caption_datasets.zip"] = {"dataset_coco.json": json.dumps({"images": sentences})}
    for url, info in tfds.builder_cls("coco_captions").url_infos.items():
        if info.filename in archives:
            seed_cache(data_dir, url, zipped(archives[info.filename]), info.checksum)
    return data_dir


def test_pictures_of_coco_are_named_and_read(coco):
    words = "coco_captions", "coco_captions:val", "coco_captions:train[1:]"
    train, validation, sliced = open_sources(words, "data.train", pictures=True)
    pairs = [(name.decode(), caption.decode()) for name, caption in train.pairs()]
    assert len(train) == 6 and list(dict(pairs)) == [f"coco_captions:train#{row}" for row in range(3)]
    found = {tuple(sorted(c for name, c in pairs if name == each)): pictures.read(each, Captioning(size=8)) for each in dict(pairs)}
    for i in range(3):
        np.testing.assert_array_equal(found[tuple(sorted(caption.replace("\n", " ") for caption in CAPTIONS[i]))], PICTURES[i])
    for start in range(7):
        assert list(train.pairs(start)) == list(train.pairs())[start:]
    assert list(validation.pairs()) == [(b"coco_captions:val#0", b"A tree.")] and validation.where(0) == "coco_captions:val example 1"
    assert [caption for _, caption in sliced.pairs()] == [caption for name, caption in train.pairs() if not name.endswith(b"#0")]
    with pytest.MonkeyPatch.context() as patch:  # one picture is read without the others
        patch.setattr(datasets.Dataset, "_whole_rows", None)
        pictures._dataset.cache_clear()
        second = pictures.read("coco_captions:train#1", Captioning(size=8))
    np.testing.assert_array_equal(pictures.read("coco_captions:train[1:]#0", Captioning(size=8)), second)
    with pytest.raises(UserError, match="coco_captions:val#1 is not a picture that can be read"):
        pictures.read("coco_captions:val#1", Captioning(size=8))
    with pytest.raises(UserError, match="mnist:train is not a dataset of pictures with captions"):
        open_sources(("mnist:train",), "data.train", pictures=True)
    assert "not a translation dataset" in failure("coco_captions:val")
