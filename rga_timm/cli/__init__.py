"""The program: ``rga-timm VERB ...`` or ``python -m rga_timm VERB ...``, one module a verb."""

from __future__ import annotations

import difflib
import io
import sys
from importlib import import_module
from typing import NoReturn

from rga_timm._version import __version__

VERBS = {
    "finetune": "train a model on images of people, from ImageNet or other weights",
    "evaluate": "test a model on data sets, or compare reports",
    "embed": "store the embeddings of images",
    "search": "index stored embeddings, and find people in them",
    "report": "show an evaluation as an HTML page",
    "export": "write a model as an ONNX file",
    "check-data": "look for errors in a data set",
    "extract-cuhk03": "unpack the images of cuhk-03.mat",
    "convert-official": "convert a checkpoint of the paper's own code",
    "publish": "pack a trained model, and upload it to the Hugging Face Hub",
    "checkpoints": "list the checkpoints that timm.create_model can load",
    "demo": "search a gallery in the browser",
    "ablation": "train one recipe with and without attention, and compare",
}

_USAGE = f"""\
usage: rga-timm VERB [options]       (rga-timm VERB --help shows the options)
       rga-timm SCRIPT.py [options]  (any timm script, unchanged, with the models registered)

verbs:
{"".join(f"  {verb:<17} {text}" + chr(10) for verb, text in VERBS.items())}
options:
  -h, --help        show this message
  --version         show the versions of rga-timm, timm and torch

`python -m rga_timm` is the same program. For several processes:
torchrun --nproc-per-node 4 -m rga_timm finetune [options]
"""


def main(*arguments: str) -> None:
    """Run a verb or a timm script as the command line says.

    Args:
        arguments: A verb, for scripts that stand for one. The command line follows it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # the name of a file is not always valid UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    verb, *options = [*arguments, *sys.argv[1:]] or [""]
    if verb in ("-h", "--help"):
        sys.stdout.write(_USAGE)
    elif verb == "--version":
        sys.stdout.write(_versions())
    elif verb in VERBS:
        sys.exit(run(verb, options))
    elif verb.endswith(".py"):
        from rga_timm.cli.timm_script import run_script

        run_script(verb, options)
    elif not verb:
        _refuse("name a verb or a script")
    elif verb.startswith("-"):
        _refuse(f"the verb or script comes first, its options after it; got {verb}")
    else:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        _refuse(f"there is no verb {verb!r}{hint}")


def run(verb: str, options: list[str]) -> int:
    """Run a verb with these options.

    Returns:
        The exit status.

    Raises:
        SystemExit: With one line, if a file cannot be written or read: full disks, quotas, rights.
    """
    try:
        result = import_module(f"rga_timm.cli.{verb.replace('-', '_')}").main(options)
    except OSError as error:
        if error.errno is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        raise SystemExit(f"rga-timm {verb}: error: {place}{error.strerror}") from error
    return result if isinstance(result, int) else 0


def _versions() -> str:
    import timm
    import torch

    return f"rga-timm {__version__}, timm {timm.__version__}, torch {torch.__version__}\n"


def _refuse(message: str) -> NoReturn:
    """Show the usage and what was wrong; exit with status 2, as argparse does."""
    sys.stderr.write(f"{_USAGE}\nrga-timm: error: {message}\n")
    sys.exit(2)
