"""The settings of the data: plain values only, and no torch, so that ``--help`` stays fast."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from matcaps._numbers import is_finite
from matcaps._paths import user_path

DataName = Literal["embedded", "mnist", "fashion-mnist", "smallnorb", "folder"]

Fit = Literal["crop", "pad", "stretch"]
Transparency = Literal["auto", "white", "black", "drop"]

CROP_COUNTS = (1, 5, 9, 13)
"""How many crops :meth:`matcaps.data.Transform.evaluate_crops` can take."""


def _check(condition: bool, name: str, expected: str, value: object, advice: str = "") -> None:
    if not condition:
        raise ValueError(f"{name} must be {expected}; got {value!r}" + (f": {advice}" if advice else ""))


def _check_number(
    name: str, value: float | None, low: float, high: float, *, whole: bool = False, optional: bool = True
) -> None:
    if value is None and optional:
        return
    kind = int if whole else (int, float)
    expected = f"{'a whole number' if whole else 'a number'} from {low:g} to {high:g}"
    good = isinstance(value, kind) and not isinstance(value, bool) and is_finite(value) and low <= value <= high
    _check(good, name, expected, value)


@dataclass(frozen=True)
class TransformSettings:
    """How an image becomes the network's input. ``None`` means the data set's own default (:meth:`resolve`).

    Args:
        crop: side of the crop in pixels, at a random place in training and at the centre in evaluation; 0 keeps the
            whole image. Default 32 for smallNORB (Hinton et al. 2018, section 4), otherwise 0.
        crop_jitter: how far from the centre crops may lie in training, as a share of the room that there is: 1 for
            anywhere in the image (the paper), 0.5 for half as far each way, 0 for the centre alone.
        normalise: "image" takes each whole image to mean 0 and variance 1 over its pixels and channels, then crops,
            then varies contrast and brightness (the paper's text); "crop" varies brightness and contrast in grey
            levels, crops, and takes each crop to mean 0 and variance 1 (the authors' code: what comes last undoes
            nearly all of the variation); "scale" divides by 255. Default "image" for smallNORB and for a folder,
            otherwise "scale".
        max_brightness: largest shift of brightness, drawn evenly between minus and plus this. In standard deviations
            of the image for "image", grey levels of 255 for "crop", full range for "scale". Default for smallNORB 0.5
            with "image" (the paper gives no figure), 63 with "crop" (the authors' code); otherwise 0.
        min_contrast: smallest factor of contrast. Default for smallNORB 0.5 with "image", 0.2 with "crop"; otherwise
            1.
        max_contrast: largest factor of contrast. Default for smallNORB 1.5 with "image", 1.8 with "crop"; otherwise 1.
        max_shift: largest shift up, down, left and right, in whole pixels, each drawn evenly. Default 0.
        max_rotation: largest rotation either way, in degrees. Default 0.
        max_scale: largest relative change of size, 0.1 for 0.9 to 1.1. Default 0.
        max_shear: largest shear either way, in degrees. Default 0.
        max_elastic: elastic deformation, the same of all channels: four by four points over the image move by up to so
            many of its pixels along each axis, and what lies between follows bicubically. After Simard et al. (2003),
            who smooth a displacement of each pixel instead.
        flip: whether to mirror half of the images left to right. Default no.
        fill: what comes in from outside the image after a shift or a rotation: "zero", or "edge" to repeat the
            nearest pixel. Default "edge" for smallNORB and for a folder, otherwise "zero".
        num_test_crops: crops of each image at evaluation, whose outputs are averaged: 1 (the centre), 5 (and the
            corners), 9 (three by three) or 13 (and the four places between). Default 1. The authors' 13 lie within
            three pixels of the centre, where these reach the image's corners.
    """

    crop: int | None = None
    crop_jitter: float = 1.0
    normalise: Literal["image", "crop", "scale"] | None = None
    max_brightness: float | None = None
    min_contrast: float | None = None
    max_contrast: float | None = None
    max_shift: int | None = None
    max_rotation: float | None = None
    max_scale: float | None = None
    max_shear: float | None = None
    max_elastic: float = 0.0
    flip: bool | None = None
    fill: Literal["zero", "edge"] | None = None
    num_test_crops: int | None = None

    def __post_init__(self) -> None:
        _check_number("crop", self.crop, 0, 4096, whole=True)
        _check_number("crop_jitter", self.crop_jitter, 0, 1, optional=False)
        _check(self.normalise in (None, "image", "crop", "scale"), "normalise", "image, crop or scale", self.normalise)
        _check_number("max_brightness", self.max_brightness, 0, 255)
        _check_number("min_contrast", self.min_contrast, 0, 1)
        _check_number("max_contrast", self.max_contrast, 1, 100)
        _check_number("max_shift", self.max_shift, 0, 1024, whole=True)
        _check_number("max_rotation", self.max_rotation, 0, 180)
        _check_number("max_scale", self.max_scale, 0, 0.9)
        _check_number("max_shear", self.max_shear, 0, 80)
        _check_number("max_elastic", self.max_elastic, 0, 64, optional=False)
        _check(self.flip in (None, True, False), "flip", "true or false", self.flip)
        _check(self.fill in (None, "zero", "edge"), "fill", "zero or edge", self.fill)
        _check(
            self.num_test_crops is None or self.num_test_crops in CROP_COUNTS,
            "num_test_crops",
            f"one of {', '.join(map(str, CROP_COUNTS))}",
            self.num_test_crops,
        )

    @property
    def is_resolved(self) -> bool:
        """Whether every value is given."""
        return all(getattr(self, entry.name) is not None for entry in fields(self))

    def resolve(self, name: str) -> "TransformSettings":
        """These settings with each None replaced by the default of a data set.

        Args:
            name: the data set's name, as in :class:`DataSettings`.
        """
        paper = name == "smallnorb"
        defaults: dict[str, Any] = {
            "crop": 32 if paper else 0,
            "normalise": "image" if name in ("smallnorb", "folder") else "scale",
            "max_brightness": 0.0,
            "min_contrast": 1.0,
            "max_contrast": 1.0,
            "max_shift": 0,
            "max_rotation": 0.0,
            "max_scale": 0.0,
            "max_shear": 0.0,
            "flip": False,
            "fill": "edge" if name in ("smallnorb", "folder") else "zero",
            "num_test_crops": 1,
        }
        normalise = self.normalise or defaults["normalise"]
        if paper and normalise == "image":
            defaults |= {"max_brightness": 0.5, "min_contrast": 0.5, "max_contrast": 1.5}
        elif paper and normalise == "crop":
            defaults |= {"max_brightness": 63.0, "min_contrast": 0.2, "max_contrast": 1.8}
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(self, **(defaults | given))


EARLIER_FOLDER: dict[str, Any] = {"transparency": "drop"}
"""The settings with which folders were read before these settings existed."""

EARLIER_SPLIT: dict[str, Any] = {"choose_by": "position"}
"""The settings with which folders were divided then."""

_WRITTEN_FROM_THE_FIRST = {"rule", "validation_fraction", "test_fraction", "seed"}


def is_of_an_earlier_version(values: Any) -> bool:
    """Whether these are a whole :meth:`DataSettings.to_dict` of a folder, from before content decided its division.

    A run with such settings keeps the parts, and the pictures, that it was trained with.
    """
    split = values.get("split") if isinstance(values, dict) and values.get("name") == "folder" else None
    return isinstance(split, dict) and split.keys() >= _WRITTEN_FROM_THE_FIRST and "choose_by" not in split


def _check_codes(name: str, values: tuple[int, ...], allowed: range) -> None:
    expected = f"different whole numbers, each one of {', '.join(map(str, allowed))}"
    good = all(isinstance(value, int) and value in allowed for value in values) and len(set(values)) == len(values)
    _check(good, name, expected, values)


@dataclass(frozen=True)
class SplitSettings:
    """The rule that divides images into training, validation and test images.

    Args:
        rule: "official" keeps the published parts; "instance" divides by object; "elevation" and "azimuth" train on
            some viewpoints and test on the others (Hinton et al. 2018, section 5); these three need smallNORB. "group"
            divides a folder's training images by the groups of a table, and leaves its val and test folders alone.
        source: "both" trains on images of the published training part and tests on the published test part; "train"
            and "test" take all images from that one part, which the rule or the instances must then divide.
        train_instances: objects to train on, by their number 0-9 in their category; empty: all that are left.
        validation_instances: objects of the training side kept for validation; empty: none.
        test_instances: objects to test on; empty: all that are left.
        train_elevations: elevations to train on under the rule "elevation", codes 0-8. Default the three lowest
            (section 5).
        train_azimuths: azimuths to train on under the rule "azimuth", in units of 10 degrees. Default 300, 320, 340,
            0, 20 and 40 degrees (section 5).
        validation_fraction: share of the training images of each class kept for validation, from 0 to below 1; left
            aside where a folder of images has a "val" of its own.
        test_fraction: share of the images of each class kept for testing, for a folder of images that has no "test"
            folder of its own.
        choose_by: for a folder of images, what decides which images those fractions and the limits on the number of
            images take. "content": each image's own content, so that no image changes its part when others come or go,
            and copies of a picture stay together; the shares are then met on average only. "position": its place in
            the folder, with exact shares, as runs before this setting had it; one image more moves others.
        groups: under the rule "group", a CSV file with the columns "file" and "group": for each training image of the
            folder its path in it, or its name alone, and the patient, session or device that it is of.
        test_groups: under that rule, the groups to test on, by name or number; all others train. Validation images are
            then taken by whole groups, too.
        seed: seed of the two fractions and of the limits on the number of images; apart from the run's seed, so that
            runs with different seeds share one split.
    """

    rule: Literal["official", "instance", "elevation", "azimuth", "group"] = "official"
    source: Literal["both", "train", "test"] = "both"
    train_instances: tuple[int, ...] = ()
    validation_instances: tuple[int, ...] = ()
    test_instances: tuple[int, ...] = ()
    train_elevations: tuple[int, ...] = (0, 1, 2)
    train_azimuths: tuple[int, ...] = (30, 32, 34, 0, 2, 4)
    validation_fraction: float = 0.0
    test_fraction: float = 0.2
    choose_by: Literal["content", "position"] = "content"
    groups: str | None = None
    test_groups: tuple[str | int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        rules = ("official", "instance", "elevation", "azimuth", "group")
        _check(self.rule in rules, "rule", f"one of {', '.join(rules)}", self.rule)
        _check(self.source in ("both", "train", "test"), "source", "both, train or test", self.source)
        for name, allowed in (
            ("train_instances", range(10)),
            ("validation_instances", range(10)),
            ("test_instances", range(10)),
            ("train_elevations", range(9)),
            ("train_azimuths", range(0, 36, 2)),
        ):
            # A YAML file brings a list.
            object.__setattr__(self, name, tuple(getattr(self, name)))
            _check_codes(name, getattr(self, name), allowed)
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            good = isinstance(value, (int, float)) and 0 <= value < 1
            _check(good, name, "a number from 0 to below 1", value)
        _check(self.choose_by in ("content", "position"), "choose_by", "content or position", self.choose_by)
        _check(isinstance(self.seed, int), "seed", "a whole number", self.seed)
        _check(bool(self.train_elevations), "train_elevations", "at least one elevation", self.train_elevations)
        _check(bool(self.train_azimuths), "train_azimuths", "at least one azimuth", self.train_azimuths)
        shared = set(self.train_instances) & set(self.validation_instances)
        _check(not shared, "validation_instances", "apart from train_instances", sorted(shared))
        if self.source != "both":
            shared = set(self.test_instances) & {*self.train_instances, *self.validation_instances}
            _check(not shared, "test_instances", "apart from the instances that train or validate", sorted(shared))
            _check(
                self.rule in ("elevation", "azimuth", "group") or bool(self.test_instances),
                "test_instances",
                f"given when source is {self.source!r} and the rule is {self.rule!r}",
                self.test_instances,
                "for example 3 and 5",
            )
        groups = tuple(
            str(group) if isinstance(group, int) and not isinstance(group, bool) else group
            for group in self.test_groups
        )
        object.__setattr__(self, "test_groups", groups)
        good = all(isinstance(group, str) and group for group in groups) and len(set(groups)) == len(groups)
        _check(good, "test_groups", "different names of groups", groups)
        by_group = self.rule == "group"
        _check(bool(self.groups) == by_group, "groups", "given with the rule 'group', and with no other", self.groups)
        _check(bool(groups) == by_group, "test_groups", "given with the rule 'group', and with no other", groups)
        if by_group:
            _check(self.source != "test", "source", "train for the rule 'group'", self.source)
            _check(self.choose_by == "content", "choose_by", "content for the rule 'group'", self.choose_by)
            instances = (*self.train_instances, *self.validation_instances, *self.test_instances)
            _check(not instances, "test_instances", "left out under the rule 'group'", instances)
        if self.rule == "instance":
            _check(
                any((self.train_instances, self.validation_instances, self.test_instances)),
                "rule",
                "given with train_instances, validation_instances or test_instances",
                self.rule,
            )

    @property
    def uses_attributes(self) -> bool:
        """Whether the images' instance, elevation or azimuth must be known."""
        return self.rule not in ("official", "group") or bool(
            self.train_instances or self.validation_instances or self.test_instances
        )


@dataclass(frozen=True)
class DataSettings:
    """Which images, in which parts, and how they are prepared.

    Args:
        name: the data set: "embedded" (6,000 images of Fashion-MNIST that come with matcaps), "mnist",
            "fashion-mnist", "smallnorb", or "folder" for images of your own.
        root: folder that holds the data sets; None: the environment variable MATCAPS_DATA, then the user's cache
            folder.
        folder: for "folder": the folder of images, with a folder for each class, or "train", and perhaps "val" and
            "test", with those inside.
        image_size: side in pixels to which images are brought as they are read: for smallNORB a divisor of 96
            (default 48: 2×2 pixels averaged, section 4 of the paper), for "folder" any (default 32). The others are
            28 as published.
        channels: for "folder": 1 for grey, 3 for colour.
        fit: for "folder", how a picture that is not square is fitted: "crop", its middle; "pad", the whole picture on a
            ground of the mean colour of its border; "stretch", the whole picture with its sides made equal.
        transparency: for "folder", the ground under transparent pixels: "auto" for white, or black if the drawing
            would hardly show on white; "white"; "black"; "drop" for the colour that the file has there,
            as in runs before this setting.
        balance: "sampling" draws equally many training images of every class in an epoch: those of small classes come
            several times, each time varied anew, those of large ones take turns over the epochs. "none": each
            training image once an epoch.
        batch_size: images in a batch, of each process.
        num_workers: further processes that prepare batches; 0: the training process itself, which keeps up with a
            training of thousands of images a second. A GPU prepares its batches itself, and there are none.
        max_train_images: train on at most so many images, evenly over the classes; None: all.
        max_test_images: test and validate on at most so many images each, evenly over the classes; None: all.
        split: which images train, validate and test.
        transform: how an image becomes the network's input.
    """

    name: DataName = "embedded"
    root: str | None = None
    folder: str | None = None
    image_size: int | None = None
    channels: Literal[1, 3] = 1
    fit: Fit = "crop"
    transparency: Transparency = "auto"
    balance: Literal["none", "sampling"] = "none"
    batch_size: int = 32
    num_workers: int = 0
    max_train_images: int | None = None
    max_test_images: int | None = None
    split: SplitSettings = field(default_factory=SplitSettings)
    transform: TransformSettings = field(default_factory=TransformSettings)

    def __post_init__(self) -> None:
        names = ("embedded", "mnist", "fashion-mnist", "smallnorb", "folder")
        _check(self.name in names, "name", f"one of {', '.join(names)}", self.name)
        if self.name == "folder":
            _check(bool(self.folder), "folder", "given when name is 'folder'", self.folder, "folder=path/to/images")
        else:
            _check(not self.folder, "folder", "left out unless name is 'folder'", self.folder)
        if self.name == "smallnorb":
            good = self.image_size is None or (self.image_size >= 1 and 96 % self.image_size == 0)
            _check(good, "image_size", "a divisor of 96 for smallnorb", self.image_size, "48 is the paper's")
        elif self.name == "folder":
            _check_number("image_size", self.image_size, 1, 4096, whole=True)
        else:
            good = self.image_size in (None, 28)
            _check(good, "image_size", f"28 for {self.name}, as published", self.image_size, "leave it out")
        _check(self.channels in (1, 3), "channels", "1 (grey) or 3 (colour)", self.channels)
        _check(self.fit in get_args(Fit), "fit", "crop, pad or stretch", self.fit)
        good = self.transparency in get_args(Transparency)
        _check(good, "transparency", "auto, white, black or drop", self.transparency)
        _check(self.balance in ("none", "sampling"), "balance", "none or sampling", self.balance)
        _check_number("batch_size", self.batch_size, 1, 1_000_000, whole=True)
        _check_number("num_workers", self.num_workers, 0, 1024, whole=True)
        _check_number("max_train_images", self.max_train_images, 1, math.inf, whole=True)
        _check_number("max_test_images", self.max_test_images, 1, math.inf, whole=True)
        if self.split.rule == "group":
            _check(self.name == "folder", "name", "'folder' for a split by groups", self.name)
        elif self.split.uses_attributes or self.split.source != "both":
            _check(
                self.name == "smallnorb",
                "name",
                "'smallnorb' for a split by instance, elevation, azimuth or source",
                self.name,
                "only smallNORB labels them",
            )

    def with_whole_paths(self) -> "DataSettings":
        """These settings with absolute paths and no ``~``, so that they mean the same from wherever they are read."""
        root = self.root and str(user_path(self.root).absolute())
        split = replace(self.split, groups=self.split.groups and str(user_path(self.split.groups).absolute()))
        return replace(self, root=root, folder=self.folder and str(user_path(self.folder).absolute()), split=split)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DataSettings":
        """The settings that :meth:`to_dict` wrote.

        Raises:
            ValueError: a name is unknown or a value is out of range.
        """
        values = dict(values)
        if is_of_an_earlier_version(values):
            values = EARLIER_FOLDER | values | {"split": EARLIER_SPLIT | values["split"]}
        split = _build(SplitSettings, values.pop("split", {}), "split")
        transform = _build(TransformSettings, values.pop("transform", {}), "transform")
        return _build(cls, values | {"split": split, "transform": transform}, "data")

    def to_dict(self) -> dict[str, Any]:
        """The settings as dicts, lists, strings, numbers and None, which YAML and JSON can hold."""
        values = asdict(self)
        for name, value in values["split"].items():
            if isinstance(value, tuple):
                values["split"][name] = list(value)
        return values


def _build(cls: type, values: Any, where: str) -> Any:
    if isinstance(values, cls):
        return values
    known = [entry.name for entry in fields(cls)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{where} has the unknown setting {unknown[0]!r}; known are {', '.join(known)}")
    return cls(**values)
