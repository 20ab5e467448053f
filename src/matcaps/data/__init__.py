"""Read images, divide them, prepare them and load them in batches.

Names are imported when they are first used, so that ``matcaps.data.settings`` can be imported without torch.
"""

from typing import TYPE_CHECKING

from matcaps._lazy import lazy_names

if TYPE_CHECKING:
    from matcaps.data.build import DataBundle, load_data
    from matcaps.data.dataset import ImageDataset
    from matcaps.data.distortions import rotate_images, shift_images
    from matcaps.data.download import DownloadError, fetch
    from matcaps.data.embedded import load_embedded
    from matcaps.data.files import FileStatus, missing_files, verify
    from matcaps.data.fingerprint import Fingerprint
    from matcaps.data.folder import load_image_folder
    from matcaps.data.grey_levels import Appearance, appearance
    from matcaps.data.idx import read_idx
    from matcaps.data.images import load_image
    from matcaps.data.loader import Batch, EpochSampler, make_loader
    from matcaps.data.mnist import load_mnist
    from matcaps.data.roots import data_root
    from matcaps.data.settings import DataSettings, SplitSettings, TransformSettings
    from matcaps.data.smallnorb import load_smallnorb, read_norb_matrix
    from matcaps.data.sources import SOURCES
    from matcaps.data.splits import Split, split_dataset
    from matcaps.data.transforms import Transform

_MODULES = {
    "grey_levels": ("Appearance", "appearance"),
    "build": ("DataBundle", "load_data"),
    "dataset": ("ImageDataset",),
    "distortions": ("rotate_images", "shift_images"),
    "download": ("DownloadError", "fetch"),
    "embedded": ("load_embedded",),
    "files": ("FileStatus", "missing_files", "verify"),
    "fingerprint": ("Fingerprint",),
    "folder": ("load_image_folder",),
    "images": ("load_image",),
    "idx": ("read_idx",),
    "loader": ("Batch", "EpochSampler", "make_loader"),
    "mnist": ("load_mnist",),
    "roots": ("data_root",),
    "settings": ("DataSettings", "SplitSettings", "TransformSettings"),
    "smallnorb": ("load_smallnorb", "read_norb_matrix"),
    "sources": ("SOURCES",),
    "splits": ("Split", "split_dataset"),
    "transforms": ("Transform",),
}
__getattr__, __dir__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
)

__all__ = [
    "SOURCES",
    "Appearance",
    "Batch",
    "DataBundle",
    "DataSettings",
    "DownloadError",
    "EpochSampler",
    "FileStatus",
    "Fingerprint",
    "ImageDataset",
    "Split",
    "SplitSettings",
    "Transform",
    "TransformSettings",
    "appearance",
    "data_root",
    "fetch",
    "load_data",
    "load_embedded",
    "load_image",
    "load_image_folder",
    "load_mnist",
    "load_smallnorb",
    "make_loader",
    "missing_files",
    "read_idx",
    "read_norb_matrix",
    "rotate_images",
    "shift_images",
    "split_dataset",
    "verify",
]
