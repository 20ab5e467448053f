import json
import subprocess
import sys
from dataclasses import fields

import pytest

from matcaps.data import DataSettings, SplitSettings, TransformSettings


def test_settings_do_not_import_torch():
    code = "import sys, matcaps.data.settings, matcaps.data.sources; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "settings",
    [
        DataSettings(),
        DataSettings("smallnorb", split=SplitSettings("azimuth", "test", test_instances=(3, 5))),
        DataSettings("folder", folder="x", channels=3, max_train_images=10, transform=TransformSettings(flip=True)),
    ],
)
def test_round_trip_through_json_and_yaml(settings):
    yaml = pytest.importorskip("yaml")
    for again in (json.loads(json.dumps(settings.to_dict())), yaml.safe_load(yaml.safe_dump(settings.to_dict()))):
        assert DataSettings.from_dict(again) == settings


def test_jsonargparse_reads_and_writes_them():
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataSettings, "data")
    chosen = ["--data.name=smallnorb", "--data.split.test_instances=[3,5]", "--data.transform.crop=24"]
    parsed = parser.parse_args(chosen)
    made = parser.instantiate_classes(parsed).data
    assert made == DataSettings(
        "smallnorb", split=SplitSettings(test_instances=(3, 5)), transform=TransformSettings(crop=24)
    )
    assert parser.instantiate_classes(parser.parse_string(parser.dump(parsed))).data == made
    text = parser.format_help()
    for entry in (*fields(DataSettings), *fields(SplitSettings), *fields(TransformSettings)):
        assert entry.name in text


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: DataSettings("cifar"), "name must be one of embedded, .*; got 'cifar'"),
        (lambda: DataSettings("folder"), "folder must be given"),
        (lambda: DataSettings("mnist", folder="x"), "folder must be left out"),
        (lambda: DataSettings("smallnorb", image_size=50), "divisor of 96 for smallnorb; got 50"),
        (lambda: DataSettings("mnist", image_size=32), "28 for mnist"),
        (lambda: DataSettings(batch_size=0), "batch_size must be a whole number from 1"),
        (lambda: DataSettings(batch_size=1.5), "batch_size must be a whole number"),
        (lambda: DataSettings(batch_size=True), "batch_size must be a whole number"),
        (lambda: DataSettings(num_workers=-1), "num_workers"),
        (lambda: DataSettings(max_train_images=0), "max_train_images"),
        (lambda: DataSettings(channels=2), "channels must be 1"),
        (lambda: DataSettings("mnist", split=SplitSettings("elevation")), "name must be 'smallnorb'"),
        (lambda: SplitSettings("camera"), "rule must be one of"),
        (lambda: SplitSettings(validation_fraction=1), "validation_fraction must be a number from 0 to below 1"),
        (lambda: SplitSettings(validation_fraction=float("nan")), "validation_fraction"),
        (lambda: SplitSettings(train_instances=(1, 1)), "different whole numbers"),
        (lambda: SplitSettings(test_instances=(10,)), "test_instances"),
        (lambda: SplitSettings(train_azimuths=(1,)), "train_azimuths"),
        (lambda: SplitSettings(train_elevations=()), "at least one elevation"),
        (lambda: SplitSettings(train_instances=(4,), validation_instances=(4,)), "apart from train_instances"),
        (lambda: SplitSettings(source="test"), "test_instances must be given"),
        (
            lambda: SplitSettings(source="test", train_instances=(1,), test_instances=(1,)),
            "test_instances must be apart",
        ),
        (lambda: SplitSettings("instance"), "rule must be given with"),
        (lambda: TransformSettings(crop=-1), "crop must be a whole number from 0"),
        (lambda: TransformSettings(normalise="batch"), "normalise must be image, crop or scale"),
        (lambda: TransformSettings(max_rotation=float("inf")), "max_rotation must be a number from 0 to 180"),
        (lambda: TransformSettings(min_contrast=1.5), "min_contrast"),
        (lambda: TransformSettings(crop_jitter=1.5), "crop_jitter must be a number from 0 to 1; got 1.5"),
        (lambda: TransformSettings(max_elastic=None), "max_elastic must be a number from 0 to 64; got None"),  # type: ignore[arg-type]
        (lambda: TransformSettings(num_test_crops=4), "num_test_crops must be one of 1, 5, 9, 13; got 4"),
        (lambda: TransformSettings(fill="red"), "fill must be"),
        (lambda: DataSettings.from_dict({"name": "mnist", "bach_size": 3}), "unknown setting 'bach_size'"),
        (lambda: DataSettings.from_dict({"transform": {"crops": 3}}), "transform has the unknown setting 'crops'"),
    ],
)
def test_bad_settings_are_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


def test_defaults_of_the_data_sets():
    norb = TransformSettings().resolve("smallnorb")
    assert norb.is_resolved
    assert (norb.crop, norb.normalise, norb.fill) == (32, "image", "edge")
    authors = TransformSettings(normalise="crop").resolve("smallnorb")
    assert (authors.max_brightness, authors.min_contrast, authors.max_contrast) == (63, 0.2, 1.8)
    mnist = TransformSettings(max_shift=2).resolve("mnist")
    assert (mnist.crop, mnist.normalise, mnist.max_shift, mnist.max_brightness) == (0, "scale", 2, 0)
    assert not TransformSettings().is_resolved
    # What is given is kept, zero too.
    assert TransformSettings(crop=0, max_brightness=0).resolve("smallnorb").max_brightness == 0
    assert norb.resolve("mnist") == norb
