"""The page on which smallNORB's objects can be rotated."""

from collections.abc import Callable
from functools import cache
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]

from matcaps.data.files import missing_files
from matcaps.data.smallnorb import CLASSES as NORB_CLASSES
from matcaps.demo import panels
from matcaps.demo.events import LIVE, QUIET
from matcaps.demo.viewpoints import INSTANCES, ObjectViews, open_views


def fill_viewpoint_page(tab: gr.Tab, source: str, root: str | None, accelerator: str) -> None:
    """Build the page inside its tab; arguments as :func:`matcaps.demo.serve`."""
    gr.Markdown(
        f"### One object from all sides\n`{source}` on the objects of smallNORB's test part, which do not occur in the "
        "training part. The azimuths of two objects, especially planes, need not start from the same side. "
        "Rotate one to see where the answer stays right: capsules were designed to recognise an object from any "
        "viewpoint."
    )
    if missing_files("smallnorb", root):
        gr.HTML(
            panels.note(
                "smallNORB is not on this machine, and matcaps may not include it. Fetch it once (matcaps data fetch "
                "smallnorb) and start the demo again; --root names another folder. Everything else works without it."
            ),
            elem_id="view",
        )
        return
    with gr.Row():
        category = gr.Radio(list(NORB_CLASSES), value=NORB_CLASSES[0], label="Category", elem_id="category")
        instance = gr.Radio(list(INSTANCES), value=INSTANCES[0], label="Object", elem_id="instance")
    with gr.Row():
        elevation = gr.Slider(
            0, 8, value=0, step=1, label="Elevation: 0 is 30°, 8 is 70°, 5° a step", elem_id="elevation"
        )
        azimuth = gr.Slider(0, 17, value=0, step=1, label="Azimuth: 0 is 0°, 17 is 340°, 20° a step", elem_id="azimuth")
        lighting = gr.Slider(0, 5, value=0, step=1, label="Lighting: six set-ups", elem_id="lighting")
    view = gr.HTML(
        panels.note("The images are read when this page is first opened, which takes some seconds."), elem_id="view"
    )

    @cache
    def views() -> ObjectViews:
        return open_views(source, root=root, accelerator=accelerator)

    def look(kind: str, number: int, height: int, angle: int, light: int) -> str:
        try:
            views_of_objects = views()
        except (OSError, ValueError) as error:
            return panels.note(str(error), "problem")
        label = NORB_CLASSES.index(kind)
        current_view = views_of_objects.view(label, number, height, angle, light)
        return panels.show_view(
            views_of_objects, current_view, angle, views_of_objects.sweep(label, number, height, light)
        )

    controls = [category, instance, elevation, azimuth, lighting]
    tab.select(look, controls, view, **QUIET)
    listeners: list[Callable[..., Any]] = [control.input for control in controls]
    for listen in listeners:
        listen(look, controls, view, **LIVE)
