"""Preparation of data sets: user data, notes, and no incomplete directories."""

import gzip
import json

import pytest

from moe_jax.data.prepare import prepare_dataset
from moe_jax.data.prepare.dataset_lookup import find_dataset_spec
from moe_jax.data.prepare.known_datasets import known_datasets
from moe_jax.data.tasks.catalog import PLAIN_TEXTS
from moe_jax.errors import UserError


def sst(count, bad=0):
    """Returns a SST-2 file, `bad` of its rows without a tab."""
    rows = [f"text {i}{'' if i < bad else chr(9) + str(i % 2)}" for i in range(count)]
    return "\n".join(["sentence\tlabel", *rows]) + "\n"


def every_file(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_counts_and_labels_are_said(tmp_path, write, run, console):
    files = {"train.tsv": sst(300, bad=2), "dev.tsv": sst(0)}
    write(tmp_path / "SST-2", files)
    console.export_text()
    result = run("glue_sst2", tmp_path, tmp_path / "data")
    assert result["splits"]["train"]["labels"] == {"negative": 149, "positive": 149}
    assert result["splits"]["train"]["malformed"] == 2
    assert list(result["splits"]) == ["train"]
    assert result["notes"] == [
        "validation: the file is empty, left out",
        "train: 298 rows, published are 67,349 (-67,051)",
        "train: 2 malformed rows of 300 skipped: train.tsv:2: 1 fields with tabs between them, "
        "not 2; train.tsv:3: 1 fields with tabs between them, not 2",
        "test: no file, so the split is left out",
    ]
    shown = console.export_text()
    assert "negative 149, positive 149" in shown
    assert "67,349" in shown
    assert f"moe-jax data show glue_sst2 --gin.Data.tfds_data_dir={tmp_path / 'data'}" in shown
    assert json.loads(json.dumps(result)) == result


def test_a_file_with_too_many_malformed_rows_is_refused(tmp_path, write, run):
    write(tmp_path / "SST-2", {"train.tsv": sst(100, bad=2)})
    with pytest.raises(UserError, match=r"train.tsv: 2 of 100 rows are malformed.*train.tsv:2: 1"):
        run("glue_sst2", tmp_path, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("before", [False, True])
def test_an_interrupted_prepare_leaves_what_was_there(tmp_path, write, run, monkeypatch, before):
    source, data = write(tmp_path / "SST-2", {"train.tsv": sst(200)}), tmp_path / "data"
    if before:
        run("glue_sst2", source, data)
    found = every_file(data)
    data_set = find_dataset_spec("glue_sst2")

    def stop_in_the_middle(file, split):
        for index, pair in enumerate(data_set.read(file, split)):
            if index == 50:
                raise KeyboardInterrupt
            yield pair

    monkeypatch.setattr(
        "moe_jax.data.prepare.known_datasets.glue_reader.glue_reader",
        lambda name: stop_in_the_middle,
    )
    with pytest.raises(KeyboardInterrupt):
        run("glue_sst2", source, data, force=True)
    assert every_file(data) == found


def test_an_interrupted_replacement_is_undone(tmp_path, write, run, monkeypatch):
    source, data = write(tmp_path / "SST-2", {"train.tsv": sst(200)}), tmp_path / "data"
    run("glue_sst2", source, data)
    found = every_file(data)
    rename = prepare_dataset.os.rename

    def fail_to_place(old, new):
        if new == data / "glue/sst2/2.0.0" and old.name != "replaced":
            raise OSError("disk on fire")
        rename(old, new)

    monkeypatch.setattr(prepare_dataset.os, "rename", fail_to_place)
    with pytest.raises(UserError, match=r"cannot write .*/glue/sst2/2.0.0: disk on fire"):
        run("glue_sst2", source, data, force=True)
    assert every_file(data) == found


def test_nothing_is_overwritten_unless_forced(tmp_path, write, run):
    source, data = write(tmp_path / "SST-2", {"train.tsv": sst(10)}), tmp_path / "data"
    run("glue_sst2", source, data)
    write(source, {"train.tsv": sst(20)})
    with pytest.raises(UserError, match=r"glue/sst2/2.0.0 exists already; --force"):
        run("glue_sst2", source, data)
    assert run("glue_sst2", source, data, force=True)["splits"]["train"]["rows"] == 20
    assert [path.name for path in data.iterdir()] == ["glue"]


def test_what_another_wrote_meanwhile_is_left_as_it_is(tmp_path, write, run, monkeypatch):
    source, data = write(tmp_path / "SST-2", {"train.tsv": sst(10)}), tmp_path / "data"

    def meanwhile(*_):
        write(data / "glue/sst2/2.0.0", {"theirs": "x"})

    monkeypatch.setattr(prepare_dataset, "_write", meanwhile)
    with pytest.raises(UserError, match=r"2.0.0 was written by another process meanwhile"):
        run("glue_sst2", source, data)
    assert every_file(data / "glue/sst2/2.0.0") == ["theirs"]


def test_partial_files_are_second_choice_and_said(tmp_path, write, run):
    files = {"train.part.tsv": sst(10), "dev.tsv": sst(10), "dev.part.tsv": sst(20)}
    write(tmp_path / "SST-2", files, odd=True)
    result = run("glue/sst2", tmp_path, tmp_path / "data")
    assert result["splits"]["validation"]["rows"] == 10
    assert result["notes"][0].startswith("train: train.part.tsv.gz is a part of the split")
    write(tmp_path / "SST-2", {"train.tsv": sst(20)}, odd=True)
    write(tmp_path / "SST-2", {"train.tsv": sst(30)})
    result = run("glue/sst2", tmp_path, tmp_path / "data", force=True)
    # The full file, and of that the one that is not packed.
    assert result["splits"]["train"]["rows"] == 30
    assert "part" not in " ".join(result["notes"])


DIALOGUE = {
    "narrative": "Ann meets Bo.",
    "dialogue": ["Hi, Bo!", 'He said "hi'],
    "speakers": ["Ann", "Bo"],
    "head": "not used",
}


def test_soda_and_dialogues_like_it(tmp_path, write, run, read_back, as_read, console):
    row = {name: DIALOGUE[name] for name in ("narrative", "dialogue", "speakers")}
    files = {"train.jsonl": json.dumps(DIALOGUE) + "\n", "valid.jsonl": json.dumps(row)}
    write(tmp_path / "soda", files, odd=True)
    run("soda", tmp_path, tmp_path / "data")
    wanted = {"train": as_read([row]), "validation": as_read([row])}
    assert read_back("soda/dialogues:1.0.0", tmp_path / "data") == wanted
    del row["narrative"]
    write(tmp_path / "own", {"my_train[b].jsonl": json.dumps(row)})
    console.export_text()
    run("dialogues:mine", tmp_path / "own", tmp_path / "data")
    assert "my_train[b].jsonl" in console.export_text()
    found = read_back("mine/dialogues:1.0.0", tmp_path / "data")
    assert found == {"train": as_read([{**row, "narrative": ""}])}
    uneven = {**DIALOGUE, "speakers": ["Ann"]}
    write(tmp_path / "bad", {"train.jsonl": json.dumps(uneven)})
    with pytest.raises(UserError, match="2 turns with 1 speakers"):
        run("soda", tmp_path / "bad", tmp_path / "data", force=True)


WIKI = """
 = First = 

 Text with = signs = . 

 = = Part = = 

 = 5 = is a line of a table 
 = not a title after text = 

 = Second <unk> = 

 More . 
"""


def test_wikitext_keeps_articles_whole(tmp_path, write, run, read_back):
    source = write(tmp_path / "wikitext-2", {"wiki.valid.tokens": WIKI})
    result = run("wikitext2", source, tmp_path / "data")
    found = read_back("wikitext/wikitext-2:1.0.0", tmp_path / "data")["validation"]
    texts = sorted((json.loads(row)["text"] for row in found), key=WIKI.index)
    assert "".join(texts) == WIKI
    assert texts[1] == " = Second <unk> = \n\n More . \n"
    assert "validation: 2 rows, published are 60 (-58)" in result["notes"]
    with pytest.raises(UserError, match=r"wiki.train.raw, wiki.valid.raw"):
        run("wikitext2_raw", source, tmp_path / "data")


def test_own_text_and_jsonl(tmp_path, write, run, read_back, as_read, monkeypatch):
    texts = {f"books/{i:02}.txt": f"Book {i}\n\nends." for i in range(20)}
    write(tmp_path / "text", texts)
    (tmp_path / "text/.hidden.txt").write_text("no")
    result = run("text:books", tmp_path / "text", tmp_path / "data")
    found = read_back("books:1.0.0", tmp_path / "data")
    assert found["validation"] == as_read([{"text": "Book 10\n\nends.\n"}])
    assert len(found["train"]) == 19
    assert "every 20th document" in result["notes"][0]

    monkeypatch.setattr("moe_jax.data.prepare.text_readers.MAX_DOCUMENT_CHARS", 12)
    write(tmp_path / "long", {"a.txt": "one\ntwo\nthree\nfour\n", "val/b.txt": gzip.compress(b"x")})
    (tmp_path / "long/val/b.txt").rename(tmp_path / "long/val/b.txt.gz")
    run("text:long", tmp_path / "long", tmp_path / "data")
    assert read_back("long:1.0.0", tmp_path / "data") == {
        "train": as_read([{"text": "one\ntwo\n"}, {"text": "three\nfour\n"}]),
        "validation": as_read([{"text": "x\n"}]),
    }

    lines = "".join(json.dumps({"body": f"t {i}", "n": i}) + "\n" for i in range(3))
    write(tmp_path / "lines", {"train.00.json": lines, "dev.jsonl": lines}, odd=True)
    run("jsonl:lines:body", tmp_path / "lines", tmp_path / "data")
    rows = as_read({"text": f"t {i}"} for i in range(3))
    assert read_back("lines:1.0.0", tmp_path / "data") == {"train": rows, "validation": rows}
    with pytest.raises(UserError, match=r"no field 'text' \(there are body, n\)"):
        run("jsonl:other", tmp_path / "lines", tmp_path / "data")


def test_c4_from_its_published_files(tmp_path, write, run, read_back, as_read):
    row = {"text": "A page.", "url": "http://a", "timestamp": "2019-04-25T12:57:54Z"}
    files = {
        "c4-train.00000-of-01024.json": json.dumps(row) + "\n",
        "c4-validation.00000-of-00008.json": json.dumps({"text": "Another."}) + "\n",
    }
    write(tmp_path / "en", files, odd=True)
    result = run("c4", tmp_path, tmp_path / "data")
    assert result["name"] == PLAIN_TEXTS["c4"].source
    empty = {"content-type": "", "content-length": "", "url": "", "timestamp": ""}
    assert read_back(result["name"], tmp_path / "data") == {
        "train": as_read([{**empty, **row}]),
        "validation": as_read([{**empty, "text": "Another."}]),
    }


def test_packed_copies_are_not_read_twice_and_few_documents_are_all_training_data(
    tmp_path, write, run
):
    line = json.dumps({"text": "once"}) + "\n"
    write(tmp_path, {"a.jsonl": line})
    write(tmp_path, {"a.jsonl": line}, odd=True)
    result = run("jsonl:few", tmp_path, tmp_path / "data")
    assert {name: split["rows"] for name, split in result["splits"].items()} == {"train": 1}
    assert "validation: too few documents to hold any out" in result["notes"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "glue_sst3",
            r"unknown data set 'glue_sst3'; known: glue_cola, .*Did you mean 'glue_sst",
        ),
        ("text:My-Books", "'text:My-Books' is not a name: text:NAME"),
        ("text", "known: .*text:NAME"),
        ("jsonl:glue", "'glue' is the name of a known data set"),
    ],
)
def test_names(tmp_path, run, name, message):
    with pytest.raises(UserError, match=message) as error:
        run(name, tmp_path, tmp_path / "data")
    assert "\n" not in str(error.value)


def test_every_name_is_found_by_itself_and_by_its_title():
    for name, data_set in known_datasets().items():
        assert find_dataset_spec(name).title == data_set.title
        assert find_dataset_spec(data_set.title).name == name
        assert find_dataset_spec(f"{data_set.title}:{data_set.version}").name == name
    # T5 trains on wsc.fixed.
    assert find_dataset_spec("super_glue_wsc").title == "super_glue/wsc.fixed"
    assert find_dataset_spec("squad/v1.1").title == "squad/v1.1"


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        ({}, "glue_rte", r"found none of train.tsv, dev.tsv, test.tsv"),
        ({"RTE/train.tsv": "a\tb\n1\t2\n"}, "glue_rte", "has no column 'sentence1'"),
        ({"RTE/dev.tsv": ""}, "glue_rte", "no file of glue_rte in .* has a row"),
        ({"squad/dev.json": "{"}, "squad", "dev.json is not JSON"),
        ({"squad/dev.json": '{"data": [{}]}'}, "squad", "not in SQuAD's form: no field 'parag"),
        ({"train.de": "a\nb\n", "train.en": "a\n"}, "wmt19_translate/de-en", "train.en has 1 li"),
        ({"train.de": "a\n"}, "wmt19_translate/de-en", "train.de has no English file"),
        ({"all_test.txt": "http://a\n"}, "cnn_dailymail", "there is no .*story"),
        ({"MRPC/train.tsv": "Quality\t#1 String\n"}, "glue_mrpc", "has no column '#2 String'"),
        ({"a.txt": b"gr\xfc\xdfe"}, "text:mine", r"a.txt:1: not UTF-8 text \(byte 2.*iconv"),
        ({"CB/val.jsonl.gz": b"not packed"}, "super_glue_cb", "cannot read .*val.jsonl.gz"),
    ],
)
def test_mistakes_are_one_line(tmp_path, write, run, files, name, message):
    write(tmp_path / "in", {"readme.md": "", **files})
    with pytest.raises(UserError, match=message) as error:
        run(name, tmp_path / "in", tmp_path / "data")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_places_that_cannot_be_used(tmp_path, write, run):
    write(tmp_path, {"SST-2/train.tsv": sst(3), "file": ""})
    with pytest.raises(UserError, match="is not there"):
        run("glue_sst2", tmp_path / "nowhere", tmp_path / "data")
    with pytest.raises(UserError, match="is a file: name the folder"):
        run("glue_sst2", tmp_path / "file", tmp_path / "data")
    with pytest.raises(UserError, match="prepare locally"):
        run("glue_sst2", tmp_path, "gs://bucket/data")
    with pytest.raises(UserError, match=r"cannot write .*/file/glue/sst2/2.0.0"):
        run("glue_sst2", tmp_path, tmp_path / "file")
