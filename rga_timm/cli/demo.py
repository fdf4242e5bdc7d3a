"""A page to try a model on: give it a person's image, see who looks alike in a gallery.

    rga-timm demo                                    # drawn people, http://127.0.0.1:7860
    rga-timm demo --model output/RUN --gallery FOLDER
    rga-timm demo --model MODEL --dataset market1501 --data-dir DIR

The gallery is embedded once, at the start. The page then ranks it by cosine similarity to the
query, shows where the model looked, and counts similarities above a threshold. Needs the extra
`demo`.
"""

import argparse
import inspect
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import rga_timm
from rga_timm.cli import demo_search, options
from rga_timm.cli.result_cards import CSS
from rga_timm.data import ReidReader, read_images
from rga_timm.data.specs import FORM, dataset_help, read_partitions
from rga_timm.hub.model_source import public_name
from rga_timm.report_page.pictures import read_picture

# Before the import: Gradio reports no use, and keeps no history of runs in the browser.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")

try:
    import gradio as gr
    from starlette.middleware import Middleware

    from rga_timm.cli.demo_offline import OfflinePage
except ImportError as error:
    text = "rga-timm demo needs the extra: pip install 'rga-timm[demo]'"
    raise ImportError(f"{text} ({error})") from error

_logger = logging.getLogger("demo")

DRAWN = "test_rga_resnet.pedestrians"
CLEAN_UP = (300, 3000)  # seconds: interval and age of deletion, together below an hour
FIRST = "Drop an image of a person into the field, or choose an example."
NOTICE = (
    "A research tool. The nearest image is a **guess**, not a proof of who somebody is: a ranking "
    "always has a first image, also if the person is not in the gallery. Your images are deleted "
    "after an hour at the latest, and when the demo ends."
)
PAGE_CSS = """
#results > div { padding: 0; }
#examples .gallery { gap: 6px; }
#examples .gallery-item, #examples .gallery-item div { width: 46px; height: 92px; }
#examples img { width: 100%; height: 100%; object-fit: cover; }
.message.error { border-left: 4px solid #dc2626; padding-left: 10px; }
"""


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = options.create_parser("demo", __doc__)
    options.add_model_options(parser, "--model")
    gallery = parser.add_argument_group("gallery")
    source = gallery.add_mutually_exclusive_group()
    source.add_argument("--gallery", type=Path, metavar="FOLDER", help="all images below a folder")
    text = f"its gallery, with its queries as examples: {dataset_help()} (default: pedestrians)"
    source.add_argument("--dataset", default="pedestrians", metavar=FORM, help=text)
    gallery.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of the data set")
    page, number = parser.add_argument_group("page"), options.positive_int
    add = page.add_argument
    add("--top", type=number, default=24, help="nearest to show (default: 24)")
    add("--examples", type=number, default=12, help="queries to show (default: 12)")
    add("--host", help="to listen on (default: GRADIO_SERVER_NAME, 127.0.0.1)")
    add("--port", type=number, help="(default: GRADIO_SERVER_PORT, or a free one from 7860)")
    add("--share", action="store_true", help="let everybody in, by a public link of Gradio's")
    images = parser.add_argument_group("images")
    options.add_loading_options(images)
    options.add_preprocessing_options(images)
    options.add_feature_options(parser.add_argument_group("features"))
    options.add_run_options(parser.add_argument_group("run"))
    return parser


def check_port(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message if the requested port cannot be listened on."""
    try:
        if args.port is not None:
            socket.create_server((args.host or "127.0.0.1", args.port)).close()
    except (OSError, OverflowError) as error:
        parser.error(f"--port {args.port}: {error}")


def default_model(*, drawn: bool) -> str:
    """A checkpoint for drawn people; for real ones the first on this machine, if any."""
    for checkpoint in [] if drawn else rga_timm.list_checkpoints():
        if set(checkpoint.trained_on) != {"pedestrians"} and Path(checkpoint.source).is_dir():
            return checkpoint.name
    return DRAWN


def read_gallery(args: argparse.Namespace) -> tuple[ReidReader, ReidReader | None, bool]:
    """The gallery, its queries if it has any, and whether camera ids mean cameras."""
    if args.gallery:
        return read_images(args.gallery), None, False
    splits, *others = read_partitions(args.dataset, args.data_dir)
    if others:
        raise ValueError(f"{args.dataset} is several data sets: choose one of them")
    if not len(splits.gallery):
        raise ValueError(f"{args.dataset} has no gallery")
    return splits.gallery, splits.query, splits.has_cameras


def write_examples(reader: ReidReader, count: int, folder: Path) -> list[tuple[str, int]]:
    """Write images from all over a list as files; return paths and rows."""
    rows = np.unique(np.linspace(0, len(reader) - 1, min(count, len(reader))).round().astype(int))
    examples = []
    for row in rows.tolist():
        path = folder / f"{row}_{Path(reader.images[row].path).stem}.png"
        try:
            read_picture(reader, row).save(path)
            examples.append((str(path), row))
        except RuntimeError as error:
            _logger.warning("left out: %s", error)
    return examples


def build(
    searcher: demo_search.Searcher, about: str, examples: list[tuple[str, str]], top: int,
    style: dict[str, Any],
) -> gr.Blocks:  # fmt: skip
    """Build the page: `about` model and gallery, and example files, each with a description."""

    def show(query: tuple[str, str] | None, stage: str, threshold: float) -> str:
        if query is None:
            return demo_search.message_page(FIRST)
        try:
            image = demo_search.read_query(query[0])
        except demo_search.UnreadableImageError as error:
            return demo_search.message_page(str(error), is_error=True)
        return demo_search.results_page(searcher, image, stage, threshold, top, known=query[1])

    with gr.Blocks(
        title="Person re-identification", analytics_enabled=False, delete_cache=CLEAN_UP, **style
    ) as demo:
        query = gr.State(None)  # file and description
        gr.Markdown(f"# Who looks alike?\n{about}\n\n{NOTICE}")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file = gr.File(
                    label="Query image", file_types=["image"], height=140, elem_id="query"
                )
                chosen = gr.Dataset(
                    components=[gr.Image(render=False)], samples=[[path] for path, _ in examples],
                    samples_per_page=len(examples), type="index", label="Examples",
                    elem_id="examples",
                )  # fmt: skip
                none = demo_search.NO_STAGE
                stage = gr.Radio(
                    [none, *searcher.stages], value=none, label="Attention of stage",
                    info=None if searcher.stages else "This model has no spatial attention.",
                    interactive=bool(searcher.stages), elem_id="stage",
                )  # fmt: skip
                threshold = gr.Slider(
                    -1, 1, -1, step=0.01, label="Least similarity", elem_id="threshold",
                    info="Cosine: 1 is the same image, -1 shows all.",
                )  # fmt: skip
            with gr.Column(scale=3, min_width=300):
                results = gr.HTML(demo_search.message_page(FIRST), elem_id="results")
        file.upload(lambda path: (path, ""), file, query)
        file.clear(lambda: None, None, query)
        chosen.click(lambda index: (examples[index], None), chosen, [query, file])
        inputs, changes = [query, stage, threshold], [query.change, stage.change, threshold.change]
        # always_last: of a slider's many values
        gr.on(changes, show, inputs, results, trigger_mode="always_last")
    return demo


def end(*_: object) -> None:
    """Leave as by Ctrl-C, so that the temporary folder is deleted; once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def main(argv: Sequence[str] | None = None) -> None:
    """Embed the gallery, and serve the page until the program is ended."""
    parser = get_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        drawn = not args.gallery and args.dataset == "pedestrians"
        args.model = args.model or default_model(drawn=drawn)
        options.check_model(args, parser)
        options.prepare_run(args, parser)
        check_port(args, parser)
        gallery, queries, has_cameras = read_gallery(args)
        model = options.create_model(args)
        config = options.preprocessing(args, model)
        options.feature_width(args, model, config)  # fails before any work
        searcher = demo_search.Searcher(
            model,
            options.protocol_of(args, config),
            gallery,
            has_cameras=has_cameras,
            compute=options.compute_of(args),
        )
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))

    weights = options.checkpoint_name(args)
    about = (
        f"Model `{public_name(args.model)}`{f' ({weights})' if weights else ''}; gallery "
        f"`{args.gallery.name if args.gallery else args.dataset}`, {len(searcher.gallery)} images."
    )
    source = queries if queries else searcher.gallery
    # Local fonts.
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    style: dict[str, Any] = {"theme": theme, "css": CSS + PAGE_CSS}
    # Gradio 6 takes them at the launch, Gradio 5 before.
    at_launch = "theme" in inspect.signature(gr.Blocks.launch).parameters
    signal.signal(signal.SIGTERM, end)
    with TemporaryDirectory(prefix="rga_timm_demo_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        examples = [
            (path, demo_search.describe(source, row, has_cameras))
            for path, row in write_examples(source, args.examples, Path(folder))
        ]
        demo = build(searcher, about, examples, args.top, {} if at_launch else style)
        demo.launch(
            server_name=args.host, server_port=args.port, share=args.share, max_file_size="20mb",
            app_kwargs={"middleware": [Middleware(OfflinePage)]}, show_error=True,
            **(style if at_launch else {}),
        )  # fmt: skip
