"""The command ``instanas``: one verb a file, and what all of them share.

An error of the user's is one line and exit code 2, never a traceback (``INSTANAS_DEBUG=1`` shows it). A run
that is interrupted says so and ends with the signal's code; the same command goes on where it was.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from types import FrameType, ModuleType
from typing import Any, NoReturn

VERBS = {
    "demo": "two controllers learn on the embedded images, against what could refute them (2 to 5 minutes)",
    "pretrain": "train a meta-graph, or MobileNetV2 alone",
    "baseline": "train ShuffleNetV2 or ResNet alone, to compare with",
    "profile": "measure the latency table of a search space on this machine",
    "search": "the joint search: controller and meta-graph in turn",
    "choose": "pick several trade-offs, A to E, from one search",
    "finetune": "train a meta-graph further under a controller that stays as it is",
    "early-exit": "let a sure controller answer, so that no network runs",
    "evaluate": "compare policies on the test split, with controls",
    "benchmark": "rank policies on the frozen meta-graph, over seeds",
    "oneshot": "rank 10,000 fixed masks (OneshotNAS), and leave a menu",
    "report": "one page about a run, with all figures",
    "tabulate": "a table of K masks by all images, for the tabular twin",
    "export": "write a run as one ONNX file that runs without PyTorch",
    "experiment": "the paper's experiment for a preset, from nothing to the page",
    "bench": "what a mask costs: time and memory, as ratios",
}
PLACES = {
    "early-exit": "scripts.early_exit",
    "report": "scripts.report.run_report",
    "experiment": "scripts.experiment.run",
}
"""Verbs that are more than a file."""
USER_ERRORS = (ValueError, OSError, ImportError)
"""A full disk is an OSError, so are files that are absent or must not be read."""
STARTS_ANEW = ("profile", "choose", "early-exit", "report", "export", "bench")
"""Verbs that keep nothing of a call that was stopped."""
STOPPING = (signal.SIGTERM, signal.SIGINT)


def usage() -> str:
    """The screen of ``instanas --help``."""
    verbs = "\n".join(f"  {verb:<11} {line}" for verb, line in VERBS.items())
    return (
        "usage: instanas VERB [OPTIONS]\n\nInstaNAS: every image gets a neural network of its own.\n\n"
        f"{verbs}\n\n`instanas VERB --help` tells the options of a verb, `instanas --version` the version."
    )


def parse(module: ModuleType, verb: str, arguments: Sequence[str]) -> Any:
    """The options of a verb from the command line."""
    if hasattr(module, "parse"):
        return module.parse(list(arguments))
    import tyro

    settings = (tyro.conf.OmitArgPrefixes, tyro.conf.CascadeSubcommandArgs, tyro.conf.SuppressFixed)
    return tyro.cli(
        module.Options,
        prog=f"instanas {verb}",
        description=module.__doc__,
        args=list(arguments),
        config=settings,
    )


def run(verb: str, arguments: Sequence[str]) -> None:
    """Parse and call one verb; in every process of torchrun where the verb shares its work."""
    from scripts.options import check_options

    module = import_module(PLACES.get(verb, f"scripts.{verb}"))
    options = parse(module, verb, arguments)
    check_options(options)
    if "world" not in inspect.signature(module.main).parameters:
        module.main(options)
        return
    from instanas_env.training.distributed import launch

    with launch() as world:
        module.main(options, world)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM and Ctrl-C unwind, so that files are closed and workers ended.

    Not as a KeyboardInterrupt: one that came while a library was imported ends Python as if nobody had
    caught it, with another exit code.
    """
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; gives the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, *rest = given
    if verb in ("-V", "--version"):
        print(f"instanas {version('instanas-env')}")
        return 0
    if verb not in VERBS:
        print(f"instanas: unknown verb {verb!r}; choose from {', '.join(VERBS)}", file=sys.stderr)
        return 2
    before = {number: signal.signal(number, _stop) for number in STOPPING}
    try:
        run(verb, rest)
    except USER_ERRORS as error:
        if os.environ.get("INSTANAS_DEBUG"):
            raise
        print(f"instanas {verb}: {error}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        if stop.code not in [128 + number for number in STOPPING]:
            raise
        then = "starts anew" if verb in STARTS_ANEW else "goes on where it was"
        print(f"\ninstanas {verb}: stopped; the same command {then}", file=sys.stderr)
        return int(stop.code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
