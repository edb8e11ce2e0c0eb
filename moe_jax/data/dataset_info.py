"""How many rows the splits have as published.

GLUE, SuperGLUE, definite_pronoun_resolution, SQuAD, CNN/DailyMail, WMT19 (train, validation) and
C4: the TensorFlow Datasets catalogue (MultiRC counted by answer, ReCoRD by query, as TFDS does).
SODA: its data card.
WikiText: articles, table 1 of its paper (Merity et al. 2016, arXiv:1609.07843).
"""

_WIKITEXT_2 = {"train": 600, "validation": 60, "test": 60}
_WIKITEXT_103 = {"train": 28_475, "validation": 60, "test": 60}

ROWS: dict[str, dict[str, int]] = {
    "glue/cola": {"train": 8_551, "validation": 1_043, "test": 1_063},
    "glue/sst2": {"train": 67_349, "validation": 872, "test": 1_821},
    "glue/mrpc": {"train": 3_668, "validation": 408, "test": 1_725},
    "glue/stsb": {"train": 5_749, "validation": 1_500, "test": 1_379},
    "glue/qqp": {"train": 363_846, "validation": 40_430, "test": 390_965},
    "glue/mnli": {
        "train": 392_702,
        "validation_matched": 9_815,
        "validation_mismatched": 9_832,
        "test_matched": 9_796,
        "test_mismatched": 9_847,
    },
    "glue/mnli_matched": {"validation": 9_815, "test": 9_796},
    "glue/mnli_mismatched": {"validation": 9_832, "test": 9_847},
    "glue/qnli": {"train": 104_743, "validation": 5_463, "test": 5_463},
    "glue/rte": {"train": 2_490, "validation": 277, "test": 3_000},
    "glue/wnli": {"train": 635, "validation": 71, "test": 146},
    "glue/ax": {"test": 1_104},
    "super_glue/boolq": {"train": 9_427, "validation": 3_270, "test": 3_245},
    "super_glue/cb": {"train": 250, "validation": 56, "test": 250},
    "super_glue/copa": {"train": 400, "validation": 100, "test": 500},
    "super_glue/multirc": {"train": 27_243, "validation": 4_848, "test": 9_693},
    "super_glue/record": {"train": 100_730, "validation": 10_000, "test": 10_000},
    "super_glue/rte": {"train": 2_490, "validation": 277, "test": 3_000},
    "super_glue/wic": {"train": 5_428, "validation": 638, "test": 1_400},
    "super_glue/wsc": {"train": 554, "validation": 104, "test": 146},
    "super_glue/wsc.fixed": {"train": 554, "validation": 104, "test": 146},
    "super_glue/axb": {"test": 1_104},
    "super_glue/axg": {"test": 356},
    "definite_pronoun_resolution": {"train": 1_322, "test": 564},
    "squad/v1.1": {"train": 87_599, "validation": 10_570},
    "cnn_dailymail": {"train": 287_113, "validation": 13_368, "test": 11_490},
    "wmt19_translate/de-en": {"train": 38_690_334, "validation": 2_998},
    "c4/en": {"train": 364_868_892, "validation": 364_608},
    "soda/dialogues": {"train": 1_191_582, "validation": 146_346, "test": 148_968},
    "wikitext/wikitext-2": _WIKITEXT_2,
    "wikitext/wikitext-2-raw": _WIKITEXT_2,
    "wikitext/wikitext-103": _WIKITEXT_103,
    "wikitext/wikitext-103-raw": _WIKITEXT_103,
}
