"""Each reader of files that may come from strangers, with whole files to begin from."""

import gzip
import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image

from matcaps import create_model, from_pretrained
from matcaps.data import load_image
from matcaps.data.groups import read_groups
from matcaps.data.idx import read_idx
from matcaps.data.layouts import find_layout
from matcaps.data.settings import Fit, Transparency
from matcaps.data.smallnorb import read_norb_matrix
from matcaps.models.pretrained import CONFIG_NAME, WEIGHTS_NAME
from matcaps.models.sources import DECODER_NAME
from matcaps.training.checkpoint_files import read_checkpoint
from matcaps.training.data_record import read_fingerprint
from matcaps.training.decoding import load_decoder
from matcaps.training.record import SETTINGS_NAME, read_json, read_metrics, read_run_settings
from matcaps.training.settings import TrainSettings
from tests.support.fuzz.mutations import archive, json_text, safetensors, table, yaml_text
from tests.support.fuzz.reader import Reader


def readers(folder: Path) -> dict[str, Callable[[], Reader]]:
    """What to call for each reader; files that must lie beside the mutated one go to the folder."""
    return {
        "idx": _idx,
        "norb": _norb,
        "image": _image,
        "config": lambda: _config(folder),
        "weights": lambda: _weights(folder),
        "decoder": lambda: _decoder(folder),
        "checkpoint": _checkpoint,
        "settings": _settings,
        "metrics": _metrics,
        "record": _record,
        "fingerprint": _fingerprint,
        "groups": lambda: _groups(folder),
        "kernels": lambda: _kernels(folder),
    }


def _idx() -> Reader:
    plain = struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4) + bytes(32)
    numbers = struct.pack(">HBBI", 0, 0x0D, 1, 3) + np.arange(3, dtype=">f4").tobytes()
    return Reader(read_idx, [plain, gzip.compress(plain, mtime=0), numbers], "images-idx3-ubyte")


def _norb() -> Reader:
    plain = struct.pack("<IIIIII", 0x1E3D4C55, 4, 2, 2, 4, 4) + bytes(64)
    labels = struct.pack("<IIIII", 0x1E3D4C54, 1, 5, 1, 1) + np.arange(5, dtype="<i4").tobytes()
    return Reader(read_norb_matrix, [plain, gzip.compress(plain, mtime=0), labels], "dat.mat")


def _image() -> Reader:
    pixels = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)
    files = []
    for mode, kind in (
        ("RGB", "PNG"),
        ("RGB", "JPEG"),
        ("RGB", "BMP"),
        ("P", "GIF"),
        ("RGB", "PPM"),
        ("RGB", "TIFF"),
        ("RGB", "WEBP"),
        ("I;16", "PNG"),
        ("RGBA", "PNG"),
        ("F", "TIFF"),
    ):
        content = io.BytesIO()
        image = Image.fromarray(pixels)
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 300)
        elif mode != "RGB":
            image = image.convert(mode)
        image.save(content, kind)
        files.append(content.getvalue())
    ways = tuple(product(get_args(Fit), (1, 3), get_args(Transparency)))

    def read(path: Path) -> object:
        fit, channels, transparency = ways[zlib.crc32(path.read_bytes()) % len(ways)]
        return load_image(path, 8, channels, fit=fit, transparency=transparency)

    return Reader(read, files, "picture.png")


def _saved(folder: Path) -> Path:
    sizes = {"stem_channels": 2, "primary_capsules": 1, "conv_capsules1": 1, "conv_capsules2": 1}
    network = create_model("quickstart", num_classes=2, **sizes)
    network.save_pretrained(folder, classes=("a", "b"))
    return folder


def _config(folder: Path) -> Reader:
    whole = (_saved(folder) / CONFIG_NAME).read_bytes()
    cnn = folder / "cnn"
    create_model(
        "baseline-cnn", num_classes=2, image_size=28, in_channels=1, channels1=1, channels2=1, hidden_units=1
    ).save_pretrained(cnn)
    other = (cnn / CONFIG_NAME).read_bytes()
    shutil.rmtree(cnn)
    return Reader(lambda path: from_pretrained(path.parent), [whole, other], CONFIG_NAME, json_text)


def _weights(folder: Path) -> Reader:
    whole = (_saved(folder) / WEIGHTS_NAME).read_bytes()
    return Reader(lambda path: from_pretrained(path.parent), [whole], WEIGHTS_NAME, safetensors)


def _decoder(folder: Path) -> Reader:
    from matcaps.models import PoseDecoder
    from matcaps.models.pretrained import save_weights

    save_weights(PoseDecoder(3, (1, 8, 8), hidden_units=(4, 4)), folder / DECODER_NAME)
    whole = (folder / DECODER_NAME).read_bytes()
    return Reader(lambda path: load_decoder(path, 3, (1, 8, 8)), [whole], DECODER_NAME, safetensors)


def _checkpoint() -> Reader:
    content = io.BytesIO()
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.Adam([weight])
    state = {"optimizer_states": [optimizer.state_dict()], "random_state": torch.get_rng_state()[:64]}
    torch.save({"epoch": 1, "global_step": 2, "state_dict": {"weight": weight.data}, "matcaps": state}, content)
    earlier = io.BytesIO()
    torch.save({"global_step": 2, "weight": torch.zeros(3)}, earlier, _use_new_zipfile_serialization=False)
    return Reader(read_checkpoint, [content.getvalue(), earlier.getvalue()], "after-epoch.ckpt", archive)


def _settings() -> Reader:
    import yaml

    whole = yaml.safe_dump(TrainSettings().to_dict(), sort_keys=False).encode()
    laughs = "a: &a [x, x]\n" + "".join(
        f"{name}: &{name} [*{earlier}, *{earlier}]\n"
        for earlier, name in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    )
    return Reader(
        lambda path: read_run_settings(path.parent), [whole, laughs.encode(), b"epochs: 3\n"], SETTINGS_NAME, yaml_text
    )


def _metrics() -> Reader:
    whole = b"epoch,step,train/loss,validation/accuracy\n1,10,0.5,0.25\n2,20,0.25,\n"
    return Reader(read_metrics, [whole], "metrics.csv", table)


def _record() -> Reader:
    whole = {"test": {"error_percent": 2.5, "worst": []}, "machine": {"torch": "2.13"}, "seconds": 3.0}
    return Reader(read_json, [json.dumps(whole, indent=2).encode()], "results.json", json_text)


def _fingerprint() -> Reader:
    from matcaps.data import DataSettings, load_data

    fingerprint = load_data(DataSettings()).fingerprint
    assert fingerprint is not None
    whole = json.dumps(fingerprint.to_dict(), indent=2).encode()
    return Reader(lambda path: read_fingerprint(path.parent), [whole], "data.json", json_text)


def _groups(folder: Path) -> Reader:
    lines = ["file,group"]
    for name in ("a", "b"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (8, 8), number).save(folder / "images" / name / f"{number}.png")
            lines.append(f"{name}/{number}.png,patient {number}")
    layout = find_layout(folder / "images")
    whole = "\n".join(lines) + "\n"
    files = [whole.encode(), whole.replace(",", ";").encode("utf-8-sig"), whole.replace(",", "\t").encode()]
    return Reader(lambda path: read_groups(layout, path), files, "groups.csv", table)


def _kernels(folder: Path) -> Reader:
    import hashlib
    import os

    from matcaps.routing import cuda_program

    os.environ["MATCAPS_CUDA_CACHE"] = str(folder)
    cuda_program.nvrtc_version = lambda: "0"  # type: ignore[assignment] # what is not in the cache is not compiled
    cuda_program.compile_source = lambda *_: (b"compiled", "")  # type: ignore[assignment]
    cuda_program.constants = lambda *_: ""  # type: ignore[assignment]
    key = hashlib.sha256("\0".join((cuda_program.source(), "sm_90", "0")).encode()).hexdigest()
    whole = hashlib.sha256(b"code").digest() + b"code"

    def read(path: Path) -> bytes:
        code = cuda_program.machine_code(None, None, "sm_90")  # type: ignore[arg-type]
        assert code == b"compiled" or hashlib.sha256(code).digest() == path.read_bytes()[:32]
        return code

    return Reader(read, [whole], f"{key[:40]}.cubin")
