"""Data sets prepared from irregular files equal those of TFDS's own builders."""

import hashlib
import json

import pytest
import tensorflow_datasets as tfds

HARD = "Said: \"no ' way\u2028she \x85 nö"


def tsv(*rows):
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def jsonl(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def pairs(columns, labels, label="label"):
    """Returns train, dev and test of a task with two texts."""
    known = [(i, f"A {i} {HARD}", f"B {i}", value) for i, value in enumerate(labels)]
    return {
        "train.tsv": tsv(("index", *columns, label), *known),
        "dev.tsv": tsv(("index", *columns, label), *known[:2]),
        "test.tsv": tsv(("index", *columns), *(row[:3] for row in known)),
    }


TWO = ("sentence1", "sentence2")
NLI = ["neutral", "entailment", "contradiction"]
COLA = tsv(("g1", 1, "", HARD), ("g2", 0, "*", 'A "cat sat'))
MNLI = tsv(
    ("index", "genre", *TWO, "label1", "gold_label"),
    *((i, "fiction", f"P {HARD}", f"H {i}", "neutral", label) for i, label in enumerate(NLI)),
)
SST = tsv(("sentence", "label"), ("good ", 1), ('bad "', 0), (HARD, 1))
GLUE = {
    "cola": (
        "CoLA",
        {"train.tsv": COLA, "dev.tsv": COLA, "test.tsv": tsv(("index", "sentence"), (0, HARD))},
    ),
    "sst2": (
        "SST-2",
        {"train.tsv": SST, "dev.tsv": SST, "test.tsv": tsv(("index", "sentence"), (0, "so so "))},
    ),
    "stsb": ("STS-B", pairs(TWO, ["5.000", "0.25", "3.799"], "score")),
    "qqp": ("QQP", pairs(("question1", "question2"), [0, 1, 1], "is_duplicate")),
    "qnli": ("QNLI", pairs(("question", "sentence"), ["not_entailment", "entailment"])),
    "rte": ("RTE", pairs(TWO, ["not_entailment", "entailment"])),
    "wnli": ("WNLI", pairs(TWO, [0, 1, 0])),
    "mnli": ("MNLI", {"train.tsv": MNLI, "dev_matched.tsv": MNLI, "dev_mismatched.tsv": MNLI}),
    "mnli_matched": ("MNLI", {"dev_matched.tsv": MNLI}),
    "ax": ("diagnostic", {"diagnostic.tsv": tsv(("index", *TWO), (0, HARD, "B"), (1, "C", "D"))}),
}
GLUE_SPLITS = {
    "train.tsv": ("train", "train"),
    "dev.tsv": ("validation", "dev"),
    "test.tsv": ("test", "test"),
    "diagnostic.tsv": ("test", "test"),
    "dev_matched.tsv": ("validation_matched", "dev"),
    "dev_mismatched.tsv": ("validation_mismatched", "dev"),
}

NLI_ROWS = [
    {"premise": HARD, "hypothesis": "h", "label": label, "idx": i} for i, label in enumerate(NLI)
]
RTE_ROWS = [
    {"premise": HARD, "hypothesis": "h", "label": label, "idx": i}
    for i, label in enumerate(["entailment", "not_entailment"])
]
WSC = {
    "text": "Ann and the dogs met. The dogs barked at Ann because she ran.",
    "target": {"span1_text": "the dogs.", "span1_index": 2, "span2_text": "She", "span2_index": 10},
}
MULTIRC = {
    "idx": 4,
    "passage": {
        "text": HARD,
        "questions": [
            {
                "question": "Why?",
                "idx": 7,
                "answers": [
                    {"text": "so", "idx": 1, "label": 1},
                    {"text": "no", "idx": 2, "label": 0},
                ],
            }
        ],
    },
}
RECORD = {
    "idx": 3,
    "passage": {
        "text": "Ann met Bo. Ann left.",
        "entities": [{"start": s, "end": e} for s, e in ((0, 2), (8, 9), (12, 14))],
    },
    "qas": [
        {"query": "@placeholder left", "idx": 9, "answers": [{"text": "Ann"}, {"text": "Ann"}]}
    ],
}
WIC = {
    "word": "run",
    "sentence1": "A run.",
    "sentence2": "Run on.",
    **{"start1": 2, "end1": 5, "start2": 0, "end2": 3},
}
SUPER_GLUE = {
    "boolq": (
        "BoolQ",
        [{"question": "q", "passage": HARD, "idx": i, "label": i == 1} for i in range(3)],
    ),
    "cb": ("CB", NLI_ROWS),
    "copa": (
        "COPA",
        [
            {"premise": "p", "choice1": "a", "choice2": HARD, "question": q, "label": i, "idx": i}
            for i, q in enumerate(["cause", "effect"])
        ],
    ),
    "multirc": ("MultiRC", [MULTIRC]),
    "record": ("ReCoRD", [RECORD]),
    "rte": ("RTE", RTE_ROWS),
    "wic": ("WiC", [{**WIC, "idx": 0, "label": True}, {**WIC, "idx": 1, "label": False}]),
    "wsc": ("WSC", [{**WSC, "idx": 0, "label": True}]),
    "wsc.fixed": ("WSC", [{**WSC, "idx": 0, "label": False}]),
    "axg": ("AX-g", RTE_ROWS),
}


def expected(builder, as_read, **arguments):
    """Returns the official examples of a file, labels as numbers."""
    label = dict(builder.info.features.items()).get("label")
    examples = []
    for _, example in builder._generate_examples(**arguments):
        if isinstance(label, tfds.features.ClassLabel):
            example["label"] = int(label.encode_example(example["label"]))
        examples.append(example)
    return as_read(examples)


def official_names(title, tmp_path):
    name, _, config = title.partition("/")
    return tfds.builder_cls(name)(config=config or None, data_dir=str(tmp_path / "none"))


def check_features(result, builder, tmp_path):
    """The directory says the features, and the names of the labels, as TFDS would."""
    builder.info.features.save_config(tmp_path)
    for path in [tmp_path / "features.json", *tmp_path.glob("*.labels.txt")]:
        written = tmp_path / "data" / result["name"].replace(":", "/") / path.name
        assert written.read_text() == path.read_text()


@pytest.mark.parametrize("config", GLUE)
def test_glue(config, tmp_path, write, run, read_back, as_read):
    folder, files = GLUE[config]
    write(tmp_path / "in" / "glue_data" / folder, files, odd=True)
    result = run(f"glue_{config}", tmp_path / "in", tmp_path / "data")
    assert result["name"] == f"glue/{config}:2.0.0"
    builder = official_names(f"glue/{config}", tmp_path)
    found = read_back(result["name"], tmp_path / "data")
    clean = write(tmp_path / "clean", files)
    wanted = {}
    for name in files:
        split, kind = GLUE_SPLITS[name]
        split = "validation" if config == "mnli_matched" else split
        wanted[split] = expected(builder, as_read, data_file=clean / name, split=kind)
    if config == "stsb":
        found, wanted = (
            {split: [round_label(row) for row in rows] for split, rows in x.items()}
            for x in (found, wanted)
        )
    assert found == wanted
    check_features(result, builder, tmp_path)


def round_label(row):
    return {name: round(v, 4) if name == "label" else v for name, v in json.loads(row).items()}


def test_mrpc_by_its_list_of_ids(tmp_path, write, run, read_back, as_read):
    header = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    rows = [(i % 2, 10 + i, 20 + i, f'"A" {HARD}', f"B {i}") for i in range(4)]
    files = {
        "msr_paraphrase_train.txt": "\ufeff" + tsv(header, *rows),
        "msr_paraphrase_test.txt": tsv(header, *rows[:2]),
        "dev_ids.tsv": tsv((11, 21), (13, 99)),
    }
    write(tmp_path / "MRPC", files, odd=True)
    result = run("glue/mrpc", tmp_path / "MRPC", tmp_path / "data")
    clean = write(tmp_path / "clean", files)
    builder = official_names("glue/mrpc", tmp_path)
    paths = {
        "dev_ids": clean / "dev_ids.tsv",
        "train": clean / "msr_paraphrase_train.txt",
        "test": clean / "msr_paraphrase_test.txt",
    }
    assert read_back(result["name"], tmp_path / "data") == {
        split: expected(builder, as_read, data_file="", split=kind, mrpc_files=paths)
        for split, kind in (("train", "train"), ("validation", "dev"), ("test", "test"))
    }
    assert {name: s["rows"] for name, s in result["splits"].items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }


@pytest.mark.parametrize("config", SUPER_GLUE)
def test_super_glue(config, tmp_path, write, run, read_back, as_read):
    folder, rows = SUPER_GLUE[config]
    splits = {"train.jsonl": "train", "val.jsonl": "validation", "test.jsonl": "test"}
    if config == "axg":
        splits = {"AX-g.jsonl": "test"}
    hidden = [{k: v for k, v in row.items() if k != "label"} for row in rows]
    files = {
        name: jsonl(*(hidden if split == "test" and config != "axg" else rows))
        for name, split in splits.items()
    }
    write(tmp_path / "SuperGLUE" / folder, files, odd=True)
    result = run(f"super_glue/{config}", tmp_path, tmp_path / "data")
    assert result["name"] == f"super_glue/{config}:1.0.2"
    builder = official_names(f"super_glue/{config}", tmp_path)
    clean = write(tmp_path / "clean", files)
    assert read_back(result["name"], tmp_path / "data") == {
        split: expected(builder, as_read, data_file=clean / name, split=split)
        for name, split in splits.items()
    }
    check_features(result, builder, tmp_path)


def test_pronouns(tmp_path, write, run, read_back, as_read):
    block = "Ann told Bo that she won.\nshe\nAnn,Bo\nAnn\n\n"
    files = {
        "train.c.txt": block + "The dog bit a man; it ran. \nit\nThe dog, a man\na man\n\n",
        "test.c.txt": block,
    }
    write(tmp_path / "in", files, odd=True)
    result = run("definite_pronoun_resolution", tmp_path / "in", tmp_path / "data")
    builder = official_names("definite_pronoun_resolution", tmp_path)
    clean = write(tmp_path / "clean", files)
    assert read_back("definite_pronoun_resolution:1.1.0", tmp_path / "data") == {
        split: expected(builder, as_read, filepath=clean / f"{split}.c.txt")
        for split in ("train", "test")
    }
    check_features(result, builder, tmp_path)


def test_squad_as_json_and_as_lines(tmp_path, write, run, read_back, as_read):
    answers = [{"text": "Bern", "answer_start": 10}, {"text": "in Bern", "answer_start": 7}]
    question = {"id": "a1", "question": 'Where "is he?', "answers": answers}
    other = {"id": "a2", "question": "Who?", "answers": [{"text": "He is", "answer_start": 0}]}
    paragraph = {"context": "He is  in Bern.", "qas": [question, other]}
    whole = {"version": "1.1", "data": [{"title": "T", "paragraphs": [paragraph]}]}
    line = {"id": "a3", "title": "T", "context": "He is in.", "question": "Who?"}
    line["answers"] = {"text": ["He"], "answer_start": [0]}
    files = {"train-v1.1.json": json.dumps(whole, indent=1), "dev.jsonl": jsonl(line)}
    write(tmp_path / "in" / "SQuAD", files, odd=True)
    result = run("squad", tmp_path / "in", tmp_path / "data")
    builder = official_names("squad/v1.1", tmp_path)
    clean = write(tmp_path / "clean", files) / "train-v1.1.json"
    assert read_back("squad/v1.1:3.0.0", tmp_path / "data") == {
        "train": expected(builder, as_read, filepath=clean),
        "validation": as_read([line]),
    }
    check_features(result, builder, tmp_path)


STORY = """A man said "no

 Caption of a picture

@highlight

Man said no

@highlight

It rained!
"""


def test_cnn_dailymail_stories(tmp_path, write, run, read_back, as_read):
    urls = {split: f"http://a.b/{split}" for split in ("train", "val", "test")}
    names = {split: hashlib.sha1(url.encode()).hexdigest() for split, url in urls.items()}
    folders = {"train": "cnn", "val": "dailymail", "test": "cnn"}
    files = {f"all_{split}.txt": url + "\n" for split, url in urls.items()}
    for split, folder in folders.items():
        files[f"{folder}/stories/{names[split]}.story"] = STORY + split
    source = write(tmp_path / "in", files)
    result = run("cnn_dailymail", source, tmp_path / "data")
    builder = official_names("cnn_dailymail", tmp_path)
    wanted = {}
    for split, folder in folders.items():
        publisher = "dm" if folder == "dailymail" else "cnn"
        path = str(source / folder / "stories" / f"{names[split]}.story")
        full = "validation" if split == "val" else split
        wanted[full] = expected(builder, as_read, files={publisher: [path]})
    assert read_back("cnn_dailymail:3.4.0", tmp_path / "data") == wanted
    check_features(result, builder, tmp_path)


def test_translations_of_every_form(tmp_path, write, run, read_back, as_read):
    from tensorflow_datasets.translate import wmt

    sgm = '<doc>\n<seg id="1">{0} &amp; 1</seg>\n<seg id="2">{0} 2</seg>\n</doc>\n'
    files = {
        "commoncrawl.de-en.de": f"eins {HARD}\n\nzwei\n",
        "commoncrawl.de-en.en": f"one {HARD}\nfiller\ntwo\n",
        "europarl-v9.de-en.tsv": tsv(("drei ", 'th"ree'), ("", ""), ("vier", "four")),
        "en-de.bicleaner07.txt": tsv(("six", "sechs")),
        "newstest2018-deen-src.de.sgm": sgm.format("Satz"),
        "newstest2018-deen-ref.en.sgm": sgm.format("Sentence"),
        "newstest2019.de": "fünf\n",
        "newstest2019.en": "five\n",
        "newstest2012-deen-src.de.sgm": sgm.format("alt"),
    }
    clean = write(tmp_path / "in", files)
    result = run("wmt19_translate/de-en", clean, tmp_path / "data")

    def official_pairs(parser, *names):
        found = parser(*(str(clean / name) for name in names))
        return [example for _, example in found if all(example.values())]

    parallel = wmt._parse_parallel_sentences
    assert read_back("wmt19_translate/de-en:1.0.0", tmp_path / "data") == {
        "train": as_read(
            official_pairs(parallel, "commoncrawl.de-en.de", "commoncrawl.de-en.en")
            + official_pairs(wmt._parse_tsv, "europarl-v9.de-en.tsv")
            + [{"de": "sechs", "en": "six"}]
        ),
        "validation": as_read(
            official_pairs(parallel, "newstest2018-deen-src.de.sgm", "newstest2018-deen-ref.en.sgm")
        ),
        "test": as_read(official_pairs(parallel, "newstest2019.de", "newstest2019.en")),
    }
    assert "not used: newstest2012-deen-src.de.sgm" in result["notes"]
    check_features(result, official_names("wmt19_translate/de-en", tmp_path), tmp_path)
