"""Transforms of images, by name: their options, and the data that they are for."""

CASES = {
    "paper": ({}, "smallnorb"),
    "authors": ({"normalise": "crop"}, "smallnorb"),
    "scale": ({"max_shift": 2, "fill": "zero", "flip": True, "max_contrast": 1.5}, "mnist"),
    "edge": ({"max_shift": 2, "fill": "edge"}, "mnist"),
    "warp": ({"max_rotation": 15, "max_scale": 0.1, "max_shear": 5, "max_elastic": 2, "normalise": "image"}, "mnist"),
    "crops": ({"num_test_crops": 9}, "smallnorb"),
}
