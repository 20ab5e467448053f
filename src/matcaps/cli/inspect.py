"""``matcaps inspect``: what is to be looked at, and where the findings go."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcaps.cli.findings import Subject, look_at_image, look_at_poses, look_at_set, look_at_viewpoint
from matcaps.cli.parsing import SOURCE, make_parser

if TYPE_CHECKING:
    from torch import Tensor

    from matcaps.data import ImageDataset
    from matcaps.models import EMCapsNet
    from matcaps.training.inference import SavedNetwork


def inspect_command(arguments: list[str]) -> int:
    """Look inside a trained network: figures, and the numbers behind them."""
    parser = make_parser(
        "inspect",
        "Look inside a trained capsule network: what it found in one image, and what holds over a set of images. "
        "Writes figures as PNG and SVG, and the numbers behind each as NPZ or JSON.",
    )
    parser.add_argument("run", type=str, help=SOURCE)
    parser.add_argument("--index", type=int, default=0, help="the image to look at: its place in the part, from 0")
    parser.add_argument("--image", type=str | None, help="an image file to look at instead")
    parser.add_argument("--data", type=str | None, help="data set; default: the one it was trained on")
    parser.add_argument("--folder", type=str | None, help='with "--data folder": the folder of images')
    parser.add_argument("--root", type=str | None, help="folder that holds the data sets")
    parser.add_argument("--part", type=str, default="test", help="test, validation, familiar_test or train")
    parser.add_argument(
        "--num_images",
        type=int,
        default=1000,
        help="images for what holds over a set, evenly over the classes; 0: none",
    )
    parser.add_argument("--cnn", type=str | None, help="a CNN trained on the same data, to compare viewpoints with")
    parser.add_argument(
        "--train_decoder", action="store_true", help="train a decoder on the network's poses and save it beside it"
    )
    parser.add_argument("--decoder_epochs", type=int, default=10, help="with --train_decoder: epochs")
    parser.add_argument("--output", type=str | None, help="folder to write to; default: RUN/inspect, or inspect-NAME")
    parser.add_argument("--batch_size", type=int, default=100, help="images at a time")
    parsed = parser.parse_args(arguments)
    subject = _open(parsed)
    subject.output.mkdir(parents=True, exist_ok=True)
    look_at_image(subject)
    if subject.measured is not None:
        look_at_set(subject)
    look_at_poses(subject)
    look_at_viewpoint(subject)
    subject.finish(parsed.run)
    return 0


def _open(options: Any) -> Subject:
    """Load everything and refuse what does not fit, before anything is written."""
    from matcaps.data import load_image
    from matcaps.data.splits import limit_images
    from matcaps.models import EMCapsNet
    from matcaps.training.decoding import DECODER_NAME, load_decoder
    from matcaps.training.inference import load_saved_data, open_saved

    for name, least in (("num_images", 0), ("batch_size", 1), ("decoder_epochs", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"{name} must be at least {least}; got {getattr(options, name)}")
    saved = open_saved(options.run)
    network = saved.network
    if not isinstance(network, EMCapsNet):
        raise ValueError(f"{options.run} has no capsules to look into: it is a {type(network).__name__}")
    transform, channels = saved.transform, network.config.in_channels
    at_home = Path(options.run).is_dir()
    output = (
        Path(options.output)
        if options.output is not None
        else Path(options.run) / "inspect"
        if at_home
        else Path(f"inspect-{options.run.replace('/', '-')}")
    )
    decoder_path = (Path(options.run) if at_home else output) / DECODER_NAME
    if options.train_decoder and decoder_path.exists():
        raise FileExistsError(f"{decoder_path} is there already: leave --train_decoder out, or move the file away")
    picture = None if options.image is None else load_image(options.image, transform.image_size, channels)
    bundle = part = None
    if picture is None or options.num_images or options.train_decoder:
        bundle = load_saved_data(saved, data=options.data, folder=options.folder, root=options.root, part=options.part)
        part = getattr(bundle, options.part)
    truth, name = None, str(options.image)
    if picture is None:
        assert part is not None
        assert bundle is not None
        if not 0 <= options.index < len(part):
            raise ValueError(f"index must be from 0 to {len(part) - 1} in the {options.part} part; got {options.index}")
        picture, truth = part.images[options.index : options.index + 1], int(part.labels[options.index])
        name = f"{bundle.settings.name}, {options.part} image {options.index}"
    image = transform.evaluate(picture)
    size = transform.output_size
    decoder = None
    if decoder_path.is_file():
        decoder = load_decoder(decoder_path, network.config.num_classes, (channels, size, size))
    measured = None
    if part is not None and options.num_images:
        measured = limit_images(part, options.num_images, 0)
    subject = Subject(
        options, saved, network, None, bundle, measured, image, truth, name, output, decoder_path, decoder, {}, []
    )
    if options.cnn is not None:
        subject.cnn = _open_cnn(options, measured)
    subject.record = {
        "image": name,
        "true_class": None if truth is None else saved.classes[truth],
        "activations": dict(zip(saved.classes, _scores(network, image), strict=True)),
    }
    return subject


def _open_cnn(options: Any, measured: "ImageDataset | None") -> "SavedNetwork":
    from matcaps.inspection import has_viewpoints
    from matcaps.models import BaselineCNN
    from matcaps.training.inference import open_saved

    cnn = open_saved(options.cnn)
    if not isinstance(cnn.network, BaselineCNN):
        raise ValueError(f"cnn must be a BaselineCNN's run; {options.cnn} is a {type(cnn.network).__name__}")
    if measured is None or not has_viewpoints(measured):
        raise ValueError("cnn compares viewpoints: it needs images whose viewpoint is known, smallNORB's test part")
    if cnn.network.config.in_channels != measured.num_channels or cnn.transform.image_size != measured.image_size:
        raise ValueError(
            f"cnn must take the same images, {measured.num_channels} channels of {measured.image_size} pixels; "
            f"{options.cnn} takes {cnn.network.config.in_channels} of {cnn.transform.image_size}"
        )
    return cnn


def _scores(network: "EMCapsNet", image: "Tensor") -> list[float]:
    import torch

    with torch.no_grad():
        return network(image).activations[0].tolist()
