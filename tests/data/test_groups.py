"""Tables of groups, folds that keep groups whole, and splits by them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from matcaps.data import DataSettings, SplitSettings, load_data
from matcaps.data.groups import Groups, count_images, make_folds, read_groups
from matcaps.data.layouts import find_layout
from tests.support.folders import make_folder, write_table


@pytest.fixture
def folder(tmp_path):
    base = tmp_path / "photos"
    return base, make_folder(base, {"cat": 6, "dog": 6})


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("call", [str, lambda name: Path(name).name, lambda name: name.replace("/", "\\")])
def test_a_table_names_files_by_path_or_by_name_and_groups_by_any_text(folder, tmp_path, delimiter, call):
    base, names = folder
    rows = [[f"Müller {number % 3}", call(name), "?"] for number, name in enumerate(names)]
    table = write_table(tmp_path / "g.csv", rows, ("Group", "File", "note"), delimiter, "utf-8-sig")
    groups = read_groups(find_layout(base), table)
    assert groups.names == ("Müller 0", "Müller 1", "Müller 2")
    assert groups.numbers == (0, 1, 2) * 4
    assert groups.labels == (0,) * 6 + (1,) * 6


def test_files_in_parts_are_named_in_the_folder_or_in_the_training_part(tmp_path):
    base = tmp_path / "photos"
    names = make_folder(base, {"cat": 2, "dog": 2}, "train")
    tests = make_folder(base, {"cat": 1, "dog": 1}, "test")
    rows = [(names[0], "a"), *((name.removeprefix("train/"), "b") for name in names[1:]), (tests[0], "c")]
    assert read_groups(find_layout(base), write_table(tmp_path / "g.csv", rows)).names == ("a", "b")
    rows[1] = ("dog0.png", "b")  # one to train and one to test
    with pytest.raises(ValueError, match=r"line 3: several images are called dog0\.png: name its folder, too"):
        read_groups(find_layout(base), write_table(tmp_path / "g.csv", rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[:-4],
            "must have a line for every training image of .*; none for dog/dog2.png, .* and 1 more",
        ),
        (lambda rows: [*rows, ("cat/no.png", "a")], r"names cat/no.png \(line 14\), but no such image is in"),
        (lambda rows: [*rows, rows[0]], "line 14: names cat/cat0.png a second time"),
        (
            lambda rows: [("cat/cat0.png", " "), *rows[1:]],
            "line 2: cat/cat0.png must have a group; it has an empty one",
        ),
        (lambda rows: [("cat/cat0.png",), *rows[1:]], "line 2: must have 2 cells, as the first line; got 1"),
        (lambda rows: [('cat/"cat0.png', 'a"b'), *rows[1:]], "no such image is in"),
    ],
)
def test_a_bad_table_is_refused_in_one_line_that_says_where(folder, tmp_path, change, message):
    base, names = folder
    rows = [(name, f"p{number % 4}") for number, name in enumerate(names)]
    with pytest.raises(ValueError, match=message) as refusal:
        read_groups(find_layout(base), write_table(tmp_path / "g.csv", change(rows)))
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_no_table_of_groups_is_refused(folder, tmp_path):
    layout, names = find_layout(folder[0]), folder[1]
    rows = [(name, "p") for name in names]
    with pytest.raises(
        ValueError, match=r"must begin with a line that names its columns, file and group .* cat/cat0.png,p"
    ):
        read_groups(layout, write_table(tmp_path / "g.csv", rows, header=None))
    with pytest.raises(ValueError, match="must be UTF-8; byte 12 is not: save it as CSV in UTF-8"):
        read_groups(layout, write_table(tmp_path / "g.csv", [("é", "p")], encoding="latin-1", header=("file", "group")))
    (tmp_path / "g.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="begins with an empty line"):
        read_groups(layout, tmp_path / "g.csv")
    (tmp_path / "g.csv").write_bytes(b'file,group\n"cat')
    with pytest.raises(ValueError, match="is not a CSV file"):
        read_groups(layout, tmp_path / "g.csv")
    with pytest.raises(FileNotFoundError, match="groups must be a CSV file with the columns file and group"):
        read_groups(layout, tmp_path / "other.csv")


def some_groups(sizes: list[list[int]]) -> Groups:
    """Groups with so many images of each class."""
    numbers = [place for place, own in enumerate(sizes) for count in own for _ in range(count)]
    labels = [label for own in sizes for label, count in enumerate(own) for _ in range(count)]
    return Groups(
        tuple(f"p{place:03}" for place in range(len(sizes))),
        tuple(numbers),
        tuple(labels),
        tuple("abc"[: len(sizes[0])]),
    )


def test_folds_hold_every_group_once_and_do_not_depend_on_the_order_of_images():
    random = np.random.default_rng(0)
    groups = some_groups(random.integers(0, 9, (30, 3)).tolist())
    folds = make_folds(groups, 4)
    assert sorted(name for fold in folds for name in fold) == sorted(groups.names)
    order = random.permutation(len(groups.numbers))
    shuffled = Groups(
        groups.names, tuple(groups.numbers[i] for i in order), tuple(groups.labels[i] for i in order), groups.classes
    )
    assert make_folds(shuffled, 4) == folds


def test_folds_are_as_even_as_groups_allow():
    # where an even division exists it is found
    even = some_groups([[5, 0], [0, 5], [3, 2], [2, 3], [4, 1], [1, 4]])
    assert set(map(tuple, np.transpose([*count_images(even, make_folds(even, 3)).values()]))) == {(5, 5)}
    # many groups, uneven and with rare classes: each fold has a third of each class, to within a small group
    random = np.random.default_rng(1)
    sizes = (random.pareto(1.5, (60, 3)) * [4, 2, 1]).astype(int).clip(max=8)
    sizes[:, 2] *= random.random(60) < 0.4
    groups = some_groups(sizes.tolist())
    found = count_images(groups, make_folds(groups, 3))
    for counts in found.values():
        assert max(counts) - min(counts) <= max(2, 0.06 * sum(counts))
    # one group larger than a fold's share: the others make up for it between them
    large = some_groups([[40, 40], *([2, 2] for _ in range(20))])
    assert sorted(count_images(large, make_folds(large, 3))["a"]) == [20, 20, 40]


@pytest.mark.parametrize(
    ("sizes", "count", "message"),
    [
        ([[1, 1]] * 3, 4, "folds must be at most 3, as many as there are groups; got 4"),
        ([[1, 1]] * 3, 1, "folds must be 2 or more; got 1"),
        ([[1, 0], [1, 0], [1, 4]], 2, "'b' is in 'p002' alone"),
    ],
)
def test_folds_that_cannot_be_are_refused(sizes, count, message):
    with pytest.raises(ValueError, match=message):
        make_folds(some_groups(sizes), count)


def test_every_fold_has_a_group_where_there_are_hardly_more():
    for number in (5, 6):
        groups = some_groups([[9, 9], *([1, 1] for _ in range(number - 1))])
        assert all(make_folds(groups, 5))


def settings(base: Path, table: Path, *left_out: str, **split) -> DataSettings:
    rule = SplitSettings(rule="group", groups=str(table), test_groups=left_out, **split)
    return DataSettings("folder", folder=str(base), image_size=8, split=rule)


def test_a_group_is_on_one_side_alone_and_the_test_part_stays_out(tmp_path):
    base = tmp_path / "photos"
    names = make_folder(base, {"cat": 20, "dog": 20}, "train")
    make_folder(base, {"cat": 3, "dog": 3}, "test")
    table = write_table(tmp_path / "g.csv", [(name, f"p{number % 10}") for number, name in enumerate(names)])
    bundle = load_data(settings(base, table, "p3", "p7", validation_fraction=0.3))
    assert bundle.validation is not None
    parts = [bundle.train, bundle.validation, bundle.test]
    groups = [set(part.attributes["group"].tolist()) for part in parts]
    assert groups[2] == {3, 7}
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10
    assert sum(map(len, parts)) == 40
    assert {part.split for part in parts} == {"train"}
    again = load_data(settings(base, table, "p3", "p7", validation_fraction=0.3))
    assert again.validation is not None
    assert torch.equal(bundle.validation.indices, again.validation.indices)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"rule": "group", "groups": "g.csv"}, "test_groups must be given with the rule 'group'"),
        ({"rule": "group", "test_groups": ("a",)}, "groups must be given with the rule 'group'"),
        ({"groups": "g.csv"}, "groups must be given with the rule 'group', and with no other; got 'g.csv'"),
        ({"rule": "group", "groups": "g.csv", "test_groups": ("a", "a")}, "test_groups must be different names"),
        ({"rule": "group", "groups": "g.csv", "test_groups": (True,)}, "test_groups must be different names"),
        ({"rule": "group", "groups": "g.csv", "test_groups": (3, "3")}, "test_groups must be different names"),
        ({"rule": "group", "groups": "g.csv", "test_groups": ("a",), "choose_by": "position"}, "choose_by must be"),
    ],
)
def test_settings_that_do_not_fit_the_rule_are_refused(split, message):
    with pytest.raises(ValueError, match=message):
        SplitSettings(**split)


def test_groups_that_the_table_has_not_are_refused(folder, tmp_path):
    base, names = folder
    table = write_table(tmp_path / "g.csv", [(name, f"p{number % 2}") for number, name in enumerate(names)])
    with pytest.raises(ValueError, match=r"test_groups must be groups of .*; got 'p2': it has p0, p1"):
        load_data(settings(base, table, "p2"))
    with pytest.raises(ValueError, match="no group is left to train of the 2"):
        load_data(settings(base, table, "p0", "p1"))
    with pytest.raises(ValueError, match="name must be 'folder' for a split by groups; got 'embedded'"):
        DataSettings(split=SplitSettings(rule="group", groups="g.csv", test_groups=("a",)))
