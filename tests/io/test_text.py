"""Users' text files: compressed ones are read whatever their name, and what is not UTF-8 text is refused with a way to convert it."""

import bz2
import gzip
import io
import lzma
import os
import re
import sys
import tarfile
import threading
import tracemalloc
import zipfile

import pytest

from jaxnmt.data.sources import open_sources
from jaxnmt.errors import UserError
from jaxnmt.io import streams
from jaxnmt.io.text import decompressed, read_lines
from jaxnmt.lab.probes import contrast

LINES = [f"Zeile {i} ä€ {i * i}" for i in range(3000)]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


def zstandard(data):
    return pytest.importorskip("backports.zstd").compress(data, options={201: 1})  # 201: with a checksum


PACK = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstandard}
READ = {  # each way that users' text comes in
    "aligned": lambda path: [source.decode() for source, _ in open_sources((f"{path},{path}",), "data.train")[0].pairs()],
    "--input": lambda path: sum(streams.line_batches(str(path), 100), []),
    "compare": lambda path: read_lines(str(path), "compare"),
}


def refusal(read, path):
    with pytest.raises(UserError) as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=PACK)
def kind(request):
    return request.param


@pytest.mark.parametrize("read", READ.values(), ids=READ)
@pytest.mark.parametrize("named", [True, False])
def test_compressed_text_is_read_by_its_content(tmp_path, kind, read, named):
    path = tmp_path / (f"a.{kind}" if named else "a.de")
    path.write_bytes(PACK[kind](TEXT))
    assert read(path) == LINES
    half = TEXT.index(b"\n", len(TEXT) // 2) + 1
    path.write_bytes(PACK[kind](TEXT[:half]) + PACK[kind](TEXT[half:]))  # `cat a.gz b.gz` is a file too
    assert read(path) == LINES


def test_a_compressed_tsv_is_a_tsv(tmp_path, kind):
    path = tmp_path / f"en-tr.tsv.{kind}"
    path.write_bytes(PACK[kind](b"one\tbir\ntwo\tiki\n"))
    (source,) = open_sources((str(path),), "data.train")
    assert list(source.pairs(1)) == [(b"two", b"iki")] and source.languages == ("en", "tr")
    path.write_bytes(PACK[kind](b"one\teins\tein\t1\n"))
    assert contrast.read(str(path)) == [("one", "eins", "ein", 1)]


@pytest.mark.parametrize("read", READ.values(), ids=READ)
@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.5, 0.9999])
def test_a_truncated_file_is_refused_in_one_sentence(tmp_path, kind, read, share):
    path, whole = tmp_path / f"a.{kind}", PACK[kind](TEXT)
    path.write_bytes(whole[: int(share * len(whole))])
    assert re.search(r"is not (a whole )?(gzip|xz|bzip2|Zstandard)", refusal(read, path))


@pytest.mark.parametrize("read", READ.values(), ids=READ)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, kind, read):
    path, whole = tmp_path / f"a.{kind}", PACK[kind](TEXT)
    for at in (0, len(whole) // 2):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert re.search(r"is not (a whole )?(gzip|xz|bzip2|Zstandard)", refusal(read, path))


def test_zstandard_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "a.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    for module in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    for read in READ.values():
        assert "pip install backports.zstd" in refusal(read, path)


def zipped(data):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.txt", data)
    return made.getvalue()


def tarred(data):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize("read", READ.values(), ids=READ)
@pytest.mark.parametrize(
    ("data", "how"),
    [
        (TEXT.decode().encode("utf-16"), "iconv -f UTF-16 -t UTF-8 "),
        (b"\xfe\xff" + TEXT.decode().encode("utf-16-be"), "iconv -f UTF-16 -t UTF-8 "),
        (TEXT.decode().encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8 "),
        (TEXT.decode().encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8 "),
        (TEXT.decode().encode("utf-32"), "iconv -f UTF-32 -t UTF-8 "),
        (TEXT.decode().encode("utf-32-be"), "iconv -f UTF-32BE -t UTF-8 "),
        (gzip.compress(TEXT.decode().encode("utf-16")), "iconv -f UTF-16 -t UTF-8 "),
        (zipped(TEXT), "unzip"),
        (tarred(TEXT), "tar -xf"),
        (bz2.compress(tarred(TEXT)), "tar -xf"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(range(64)), "7z x"),
        (b"%PDF-1.7\n" + TEXT, "pdftotext"),
        (gzip.compress(gzip.compress(TEXT)), "compressed twice"),
    ],
)
def test_what_is_no_text_is_refused_with_the_way_to_make_text_of_it(tmp_path, read, data, how):
    path = tmp_path / "a.de"
    path.write_bytes(data)
    assert how in refusal(read, path)


SENTENCES = {
    "Russian": "Мужчина едет на лошади.\nДве собаки бегут по снегу, и девочка смотрит на них.\n",
    "Thai": "ผู้ชายคนหนึ่งกำลังขี่ม้า 2 ตัว\nสุนัขสองตัววิ่งบนหิมะ\n",
    "Chinese": "一个男人骑着马。\n两只狗在雪地里奔跑，一个女孩看着它们。 3\n",
}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("language", SENTENCES)
def test_utf16_without_a_mark_is_known_where_few_bytes_are_nul(tmp_path, language, encoding):
    path = tmp_path / "a.txt"
    for text in (SENTENCES[language] * 3, SENTENCES[language] * 300):
        path.write_bytes(text.encode(encoding))
        for read in READ.values():
            assert f"iconv -f {encoding.upper().replace('-LE', 'LE').replace('-BE', 'BE')} -t UTF-8" in refusal(read, path)
        path.write_bytes(text.encode())
        assert len(READ["--input"](path)) == text.count("\n")


def test_a_few_odd_bytes_are_no_reason_to_refuse_text(tmp_path):
    path = tmp_path / "a.de"
    path.write_bytes(b"a\0b \0 c\0\n\xff\xef\xbb\xbf BZh91 %PDF- PK\x03\x04\n")
    assert len(READ["--input"](path)) == len(open_sources((f"{path},{path}",), "data.train")[0]) == 2


def test_reading_needs_no_more_memory_for_more_text(tmp_path, kind):
    def peak(lines):
        path = tmp_path / f"{lines}.{kind}"
        path.write_bytes(PACK[kind](b"the same line again and again\n" * lines))
        (source,) = open_sources((f"{path},{path}",), "data.train")
        tracemalloc.start()
        try:
            assert sum(1 for _ in source.pairs()) == lines
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(200_000) < peak(50_000) + (1 << 20)  # nine megabytes more on both sides together


def test_a_file_without_peek_as_buckets_have_them_is_read(kind):
    assert decompressed(io.BytesIO(PACK[kind](TEXT)), "gs://b/a", "data.train").read() == TEXT
    assert decompressed(io.BytesIO(TEXT), "gs://b/a", "data.train").read() == TEXT


@pytest.fixture
def piped(monkeypatch):
    """Bytes -> the lines that `translate` reads when these come through a pipe."""

    def read(data):
        ends = os.pipe()

        def bring():
            with open(ends[1], "wb") as pipe:
                pipe.write(data)

        threading.Thread(target=bring).start()
        with open(ends[0], "rb") as file:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
            return sum(streams.line_batches("", 100), [])

    return read


def test_a_compressed_pipe_is_read_too(piped, kind):
    assert piped(PACK[kind](TEXT)) == LINES
    assert piped(TEXT) == LINES and piped(b"") == [] and piped(b"x") == ["x"]


def test_a_pipe_that_brings_no_text_is_refused(piped):
    with pytest.raises(UserError, match="stdin is UTF-16.*iconv"):
        piped("a\nb\n".encode("utf-16"))
