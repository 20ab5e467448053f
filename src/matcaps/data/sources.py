"""The published files: names, sizes, checksums, mirrors.

The sha256 of the compressed files are those that TensorFlow Datasets checks. The md5 of the contents are those that
public loaders check; they were found again from the files themselves for MNIST, Fashion-MNIST and smallNORB's small
files with exact labels. A file that someone compressed again therefore still counts as the published one.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """A zip file on a mirror that holds several of a set's files, uncompressed.

    Attributes:
        url: where the zip file is.
        name: the zip file's name while it lies in the data folder.
        size_limit: more bytes than this are refused.
    """

    url: str
    name: str
    size_limit: int


@dataclass(frozen=True)
class DataFile:
    """One published file.

    Attributes:
        name: the published name, ending in ``.gz``.
        size: bytes of the compressed file.
        sha256: of the compressed file, hexadecimal.
        content_size: bytes of the contents.
        content_md5: of the contents, hexadecimal.
        urls: mirrors of the compressed file, the first to be tried first.
        archive: a last resort: a zip file that holds the contents.
    """

    name: str
    size: int
    sha256: str
    content_size: int
    content_md5: str
    urls: tuple[str, ...]
    archive: Archive | None = None

    @property
    def content_name(self) -> str:
        """The name of the uncompressed file."""
        return self.name.removesuffix(".gz")


@dataclass(frozen=True)
class DataSource:
    """A published data set.

    Attributes:
        name: the set's name, and the name of its folder under the data root.
        title: a line for people.
        terms: licence, and what to cite.
        files: what the set is made of.
    """

    name: str
    title: str
    terms: str
    files: tuple[DataFile, ...]


def _idx_files(mirrors: tuple[str, ...], rows: tuple[tuple[str, int, str, int, str], ...]) -> tuple[DataFile, ...]:
    return tuple(DataFile(*row, urls=tuple(mirror + row[0] for mirror in mirrors)) for row in rows)


_MNIST = DataSource(
    name="mnist",
    title="MNIST: handwritten digits, 28×28 grey, 60,000 to train and 10,000 to test",
    terms="Cite LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998.",
    files=_idx_files(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            (
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                47_040_016,
                "6bbc9ace898e44ae57da46a324031adb",
            ),
            (
                "train-labels-idx1-ubyte.gz",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                60_008,
                "a25bea736e30d166cdddb491f175f624",
            ),
            (
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                7_840_016,
                "2646ac647ad5339dbf082846283269ea",
            ),
            (
                "t10k-labels-idx1-ubyte.gz",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                10_008,
                "27ae3e4e09519cfbb04c329615203637",
            ),
        ),
    ),
)

_FASHION_MNIST = DataSource(
    name="fashion-mnist",
    title="Fashion-MNIST: clothes, 28×28 grey, 60,000 to train and 10,000 to test",
    terms="MIT licence, copyright 2017 Zalando SE. Cite Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv:1708.07747.",
    files=_idx_files(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        (
            (
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                47_040_016,
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            ),
            (
                "train-labels-idx1-ubyte.gz",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                60_008,
                "9018921c3c673c538a1fc5bad174d6f9",
            ),
            (
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                7_840_016,
                "8181f5470baa50b63fa0f6fddb340f0a",
            ),
            (
                "t10k-labels-idx1-ubyte.gz",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                10_008,
                "15d484375f8d13e6eb1aabb0c3f46965",
            ),
        ),
    ),
)

SMALLNORB_STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
"""The published names up to ``-dat.mat``, ``-cat.mat`` and ``-info.mat``."""


def _smallnorb_files() -> tuple[DataFile, ...]:
    mirrors = (
        "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/",
        "http://www.cs.nyu.edu/~ylclab/data/norb-v1.0-small/",
    )
    # The university's two names may lead to one machine. A stranger's copy on another site holds the three .mat files
    # of each part in a zip file; the checksums of the contents say whether to believe it.
    archives = {
        split: Archive(
            url=f"https://huggingface.co/datasets/randall-lab/small-norb/resolve/main/smallnorb-{split}.zip",
            name=f"smallnorb-{split}.zip",
            size_limit=500_000_000,
        )
        for split in SMALLNORB_STEMS
    }
    rows: tuple[tuple[str, str, int, str, int, str], ...] = (
        (
            "train",
            "dat",
            131_896_188,
            "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
            447_897_624,
            "8138a0902307b32dfa0025a36dfa45ec",
        ),
        (
            "train",
            "cat",
            348,
            "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa",
            97_220,
            "fd5120d3f770ad57ebe620eb61a0b633",
        ),
        (
            "train",
            "info",
            71_052,
            "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
            388_820,
            "19faee774120001fc7e17980d6960451",
        ),
        (
            "test",
            "dat",
            130_799_817,
            "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
            447_897_624,
            "e9920b7f7b2869a8f1a12e945b2c166c",
        ),
        (
            "test",
            "cat",
            347,
            "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff",
            97_220,
            "fd5120d3f770ad57ebe620eb61a0b633",
        ),
        (
            "test",
            "info",
            10_428,
            "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
            388_820,
            "7c5b871cc69dcadec1bf6a18141f5edc",
        ),
    )
    return tuple(
        DataFile(
            name := f"{SMALLNORB_STEMS[split]}-{kind}.mat.gz",
            size,
            sha256,
            content_size,
            content_md5,
            urls=tuple(mirror + name for mirror in mirrors),
            archive=archives[split],
        )
        for split, kind, size, sha256, content_size, content_md5 in rows
    )


_SMALLNORB = DataSource(
    name="smallnorb",
    title="smallNORB: stereo photographs of toys, 2×96×96 grey, 24,300 to train and 24,300 to test",
    terms=(
        "Provided for research purposes; it cannot be sold. Cite LeCun, Huang and Bottou, Learning methods for "
        "generic object recognition with invariance to pose and lighting, CVPR 2004."
    ),
    files=_smallnorb_files(),
)

SOURCES: dict[str, DataSource] = {source.name: source for source in (_MNIST, _FASHION_MNIST, _SMALLNORB)}
"""The sets that ``matcaps data fetch`` can download, by name."""


def get_source(name: str) -> DataSource:
    """The published set of that name.

    Raises:
        ValueError: there is no such set.
    """
    if name not in SOURCES:
        raise ValueError(f"name must be one of {', '.join(SOURCES)}; got {name!r}")
    return SOURCES[name]
