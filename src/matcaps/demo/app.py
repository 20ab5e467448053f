"""The page: Gradio components, and the functions that each of them calls."""

import os
from importlib import resources
from threading import Event
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

try:
    import gradio as gr  # pyright: ignore[reportMissingImports]
    from gradio.themes import Base, Default  # pyright: ignore[reportMissingImports]
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]
except ImportError as problem:
    raise ImportError(f'the demo needs Gradio ({problem}): pip install "matcaps[demo]"') from problem
import torch

from matcaps._version import __version__
from matcaps.demo import panels
from matcaps.demo.bounds import BoundedRequests
from matcaps.demo.events import LIVE, QUIET
from matcaps.demo.pictures import Prepared, read_upload
from matcaps.demo.ports import check_address
from matcaps.demo.session import LARGEST_EPSILON, DemoNetwork, Reading, attack, read
from matcaps.demo.strokes import draw_strokes, parse_strokes
from matcaps.demo.viewpoint_page import fill_viewpoint_page
from matcaps.inference.saved import reading_options

MAX_UPLOAD = "10mb"
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # installed fonts: none is downloaded


class Server:
    """A running server of the page.

    Attributes:
        url: the page's address.
    """

    def __init__(self, blocks: gr.Blocks, url: str):
        self._blocks = blocks
        self.url = url

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        try:
            Event().wait()
        finally:
            self.close()

    def close(self) -> None:
        """Stop serving."""
        self._blocks.close(verbose=False)


def serve(
    demo: DemoNetwork,
    *,
    smallnorb: str = "paper-small-smallnorb",
    root: str | None = None,
    accelerator: str = "auto",
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
) -> Server:
    """Serve the page about a network, and return at once.

    PyTorch is set to one thread in this process: for a single image one thread is faster than several that
    wait for each other, especially while other programs run on the machine.

    Args:
        demo: see :func:`matcaps.demo.open_demo`.
        smallnorb: the network of the viewpoint page.
        root: folder that holds the data sets.
        accelerator: where the network of the viewpoint page computes, as :func:`matcaps.demo.open_demo`.
        host: the address to serve at; the default can be reached only from this machine.
        port: None: the first free one from 7860.
        browser: whether to open the page in a browser.

    Raises:
        OSError: the port is in use, or the address does not belong to this machine.
    """
    check_address(host, port)
    torch.set_num_threads(1)
    blocks = make_page(demo, smallnorb, root, accelerator)
    _, url, _ = blocks.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        show_error=True,
        max_file_size=MAX_UPLOAD,
        state_session_capacity=64,
        app_kwargs={"middleware": [Middleware(BoundedRequests)]},
        theme=_theme(),
        css=_resource("page.css"),
    )
    return Server(blocks, url)


def _theme() -> Base:
    theme = Default(primary_hue="blue", font=_FONTS, font_mono=["ui-monospace", "monospace"])
    return theme.set(block_info_text_color="*body_text_color", block_label_text_color="*body_text_color")


def make_page(demo: DemoNetwork, smallnorb: str, root: str | None, accelerator: str = "auto") -> gr.Blocks:
    """Build the page."""
    with gr.Blocks(title="matcaps demo", analytics_enabled=False, delete_cache=(300, 3600)) as blocks:
        about = demo.saved.description.get("data") or "images"
        gr.Markdown(
            f"# matcaps demo\nA matrix capsule network with EM routing, `{demo.source}`, trained on {about}: what it "
            "sees, how its capsules agree, and what their poses encode. Everything runs on the machine that serves "
            f"this page; nothing is sent elsewhere. matcaps {__version__}."
        )
        with gr.Tab("One image"):
            _image_page(demo)
        with gr.Tab("smallNORB") as tab:
            fill_viewpoint_page(tab, smallnorb, root, accelerator)
    return blocks


def _resource(name: str) -> str:
    return resources.files("matcaps.demo").joinpath(name).read_text(encoding="utf-8")


def _image_page(demo: DemoNetwork) -> None:
    reading, page = gr.State(None), gr.State(0)
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            gr.Markdown("### Draw, choose or upload\nThe network reads the drawing while you draw.")
            pad = gr.HTML(
                "",
                html_template='<canvas width="280" height="280" role="img" aria-label="Drawing pad: draw with the '
                'mouse, a pen or a finger"></canvas><button type="button">Clear</button>',
                js_on_load=_resource("pad.js"),
                elem_id="pad",
                elem_classes="pad",
            )
            examples = gr.HTML(
                panels.show_examples(demo.examples, 0),
                js_on_load="element.addEventListener('click', (event) => { const button = "
                "event.target.closest('button'); if (button) trigger('select', {index: +button.dataset.index}); });",
                elem_id="examples",
            )
            with gr.Row():
                more = gr.Button("Other images", size="sm", visible=demo.examples is not None)
                upload = gr.UploadButton("Upload a picture", file_types=["image"], size="sm", elem_id="upload")
            as_digit = gr.Checkbox(
                demo.reads_digits,
                label="Prepare an upload like MNIST: white on black, cut out, centred",
                info="Dark digits on light paper are inverted. Without it the middle square is used unchanged.",
            )
        with gr.Column(scale=2, min_width=300):
            gr.Markdown(
                "### What the network sees\nEach class has a capsule; its activation shows how certain the capsule is "
                "that its class is present, from 0 to 1. The activations need not sum to 1."
            )
            seen = gr.HTML(panels.show_reading(demo, None), elem_id="seen")
    gr.Markdown(
        "### How the votes agree\nEvery lower capsule votes for the pose of each class; routing clusters the votes. A "
        "class is active if its votes lie close together for their number; step through the iterations to see this. An "
        "empty histogram is not an error: a class costs more the more votes it has, so training may switch one on by "
        "leaving it almost no votes."
    )
    iteration = gr.Slider(
        1, demo.iterations, value=demo.iterations, step=1, label="Routing iteration", elem_id="iteration"
    )
    votes = gr.HTML(panels.show_votes(demo, None, demo.iterations), elem_id="votes")
    gr.Markdown(
        "### What the pose encodes\nThe winning capsule's pose is a 4×4 matrix that describes how its digit or object "
        "lies. A decoder, trained afterwards, draws an image from it: change a number to see what it means. A slider's "
        "range is that of the images above, 2nd to 98th percentile; the decoder was not trained beyond it."
    )
    with gr.Row():
        with gr.Column(min_width=300, visible=demo.decoder is not None):
            pose = gr.HTML(
                "",
                html_template=_pose_template(),
                js_on_load=_resource("poses.js"),
                elem_id="pose",
                elem_classes="poses",
            )
        with gr.Column(min_width=300):
            decoded = gr.HTML(panels.show_pose(demo, None, None), elem_id="decoded")
    gr.Markdown(
        "### How to fool it\nFGSM moves every pixel by at most ε in the direction that helps the wrong classes most: "
        "one step along the sign of the gradient. It is a weak attack: an answer that survives it may change under "
        "others."
    )
    epsilon = gr.Slider(
        0, LARGEST_EPSILON, value=0, step=0.01, label=f"ε, the largest change of a pixel ({demo.input_unit})",
        elem_id="epsilon",
    )  # fmt: skip
    attacked = gr.HTML(panels.show_attack(demo, None, None), elem_id="attacked")

    answers = _Answers(demo)
    results = [reading, seen, votes, pose, decoded]
    for event in (
        pad.input(answers.draw, [pad, iteration], results, **LIVE),
        examples.select(answers.choose, [iteration], [pad, *results], **LIVE),
        upload.upload(answers.take, [upload, as_digit, iteration], [pad, *results], **QUIET),
    ):
        event.then(answers.fool, [reading, epsilon], attacked, **LIVE)
    more.click(answers.turn, page, [page, examples], **QUIET)
    iteration.input(
        lambda image_reading, number: panels.show_votes(demo, image_reading, number),
        [reading, iteration],
        votes,
        **LIVE,
    )
    pose.input(answers.move, [reading, pose], decoded, **LIVE)
    epsilon.input(answers.fool, [reading, epsilon], attacked, **LIVE)


class _Answers:
    """The page's answers when someone draws, chooses, uploads or moves a slider."""

    def __init__(self, demo: DemoNetwork):
        self._demo = demo

    def show(self, prepared: Prepared, name: str, number: int, truth: int | None = None) -> tuple[Any, ...]:
        pixels = prepared.pixels
        if pixels.shape[1] != self._demo.channels:
            pixels = pixels[:, :1].repeat(1, self._demo.channels, 1, 1)
        reading = read(self._demo, pixels, name, truth)
        return (
            reading,
            panels.show_reading(self._demo, reading, prepared.description),
            panels.show_votes(self._demo, reading, number),
            panels.pose_values(self._demo, reading),
            panels.show_pose(self._demo, reading, None),
        )

    def show_nothing(self, text: str) -> tuple[Any, ...]:
        return None, text, panels.show_votes(self._demo, None, 1), "", panels.show_pose(self._demo, None, None)

    def draw(self, text: str, number: int) -> tuple[Any, ...]:
        try:
            strokes = parse_strokes(text)
        except ValueError as error:
            return self.show_nothing(panels.note(str(error), "problem"))
        if not strokes:
            return self.show_nothing(panels.note(panels.EMPTY))
        return self.show(draw_strokes(strokes, self._demo.transform.image_size), "your drawing", number)

    def choose(self, number: int, event: gr.EventData) -> tuple[Any, ...]:
        assert self._demo.examples is not None
        dataset, place = self._demo.examples.dataset, int(event.index)
        if not 0 <= place < len(dataset):
            return "", *self.show_nothing(panels.note("There is no such image.", "problem"))
        prepared = Prepared(dataset.images[place : place + 1], "")
        return "", *self.show(prepared, f"{dataset.name}, number {place}", number, int(dataset.labels[place]))

    def take(self, path: str, prepare: bool, number: int) -> tuple[Any, ...]:
        try:
            reading = reading_options(self._demo.saved.description)
            size = self._demo.transform.image_size
            prepared = read_upload(path, size, self._demo.channels, as_digit=prepare, reading=reading)
        except (ValueError, OSError) as error:
            message = str(error).replace(str(path), os.path.basename(path))
            return "", *self.show_nothing(panels.note(f"That picture could not be used: {message}.", "problem"))
        return "", *self.show(prepared, "your picture", number)

    def turn(self, number: int) -> tuple[int, str]:
        return number + 1, panels.show_examples(self._demo.examples, number + 1)

    def move(self, reading: Reading | None, text: str) -> str:
        try:
            return panels.show_pose(self._demo, reading, panels.parse_pose(text))
        except ValueError as error:
            return panels.note(str(error), "problem")

    def fool(self, reading: Reading | None, size: float) -> str:
        return panels.show_attack(self._demo, reading, None if reading is None else attack(reading, float(size)))


def _pose_template() -> str:
    sliders = "".join(
        f"<label><span>{row}, {column}</span> <output>–</output>"
        f'<input type="range" disabled aria-label="pose, row {row}, column {column}"></label>'
        for row in range(1, 5)
        for column in range(1, 5)
    )
    return (
        f'<p class="axes">Row, column and value of the pose matrix, in pose units:</p><div class="grid">{sliders}</div>'
        '<button type="button" disabled>Back to the image\'s own pose</button>'
    )
