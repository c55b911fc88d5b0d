"""Tables 1 to 3 of the paper as they are printed, and a run's own figures beside them.

The paper's times are of an Intel Core i5-7600, ours of onnxruntime elsewhere, so that both are shown in
multiples of MobileNetV2's in the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.evaluation.over_seeds import SHARED
from scripts.comparison.tables import reference_of
from scripts.comparison.text_table import Columns, TextTable, with_ends

System = tuple[str, float, float | None]
"""Its name, test error in %, and mean latency as printed; None where the paper has none."""

CIFAR10: tuple[System, ...] = (
    ("ResNet50", 6.38, 0.051),
    ("ResNet101", 6.25, 0.095),
    ("ShuffleNet v2 1.0x", 7.40, 0.035),
    ("ShuffleNet v2 1.5x", 6.36, 0.052),
    ("IGCV3-D 1.0x", 5.54, 0.185),
    ("IGCV3-D 0.5x", 5.27, 0.095),
    ("NASNet-A", 3.41, 0.219),
    ("DARTS", 2.83, 0.236),
    ("DPP-Net-Mobile", 5.84, 0.062),
    ("MobileNet v2 0.4x", 7.44, 0.038),
    ("MobileNet v2 1.0x", 5.56, 0.092),
    ("MobileNet v2 1.4x", 4.92, 0.129),
    ("InstaNAS-C10-A", 4.30, 0.085),
    ("InstaNAS-C10-B", 4.50, 0.055),
    ("InstaNAS-C10-C", 5.20, 0.047),
    ("InstaNAS-C10-D", 6.00, 0.033),
    ("InstaNAS-C10-E", 8.10, 0.016),
)
CIFAR100: tuple[System, ...] = (
    ("ShuffleNet v2 0.5x", 34.64, 0.016),
    ("ShuffleNet v2 1.0x", 30.60, 0.035),
    ("ShuffleNet v2 1.5x", 28.30, 0.052),
    ("MobileNet v2 0.4x", 30.72, 0.049),
    ("MobileNet v2 1.0x", 27.00, 0.092),
    ("MobileNet v2 1.4x", 25.66, 0.129),
    ("InstaNAS-C100-A", 24.20, 0.089),
    ("InstaNAS-C100-B", 24.40, 0.086),
    ("InstaNAS-C100-C", 24.90, 0.065),
    ("InstaNAS-C100-D", 26.60, 0.055),
    ("InstaNAS-C100-E", 27.80, 0.046),
)
TINY_IMAGENET: tuple[System, ...] = (
    ("MobileNetV1", 56.4, None),
    ("MobileNetV2 1.0", 48.1, 0.264),
    ("MobileNetV2 1.4", 42.8, 0.377),
    ("InstaNAS-Tiny-A", 41.4, 0.223),
    ("InstaNAS-Tiny-B", 43.9, 0.179),
    ("InstaNAS-Tiny-C", 46.1, 0.171),
)
PRINTED = {"cifar10": CIFAR10, "cifar100": CIFAR100, "tiny_imagenet": TINY_IMAGENET}
MOBILENET_V2 = ("MobileNet v2 1.0x", "MobileNetV2 1.0")
CIFAR10_CLASSES = {
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
}  # fmt: skip

COLUMNS: Columns = {
    "network": lambda row: row["name"],
    "figures of": lambda row: row["source"],
    "error, %": lambda row: row["error"],
    "time, in MobileNetV2's": lambda row: row["time"],
}


def printed_for(dataset: str, classes: Sequence[str]) -> tuple[System, ...]:
    """What the paper prints for a data set; nothing for others. A folder is told by its classes."""
    if dataset == "folder" and set(classes) == CIFAR10_CLASSES:
        return CIFAR10
    return PRINTED.get(dataset, ())


def beside_the_paper(systems: Sequence[System], lines: Sequence[dict[str, Any]]) -> TextTable:
    """The paper's systems, then a run's.

    Args:
        systems: of :func:`printed_for`.
        lines: policies of the run; its fixed choices of modules on shared weights are left out.
    """
    (unit,) = (latency for name, _, latency in systems if name in MOBILENET_V2 and latency)
    quoted = [
        {
            "name": name,
            "source": "the paper (quoted)",
            "error": f"{error:.2f}",
            "time": "" if latency is None else f"{latency / unit:.2f}",
        }
        for name, error, latency in systems
    ]
    return TextTable.of(COLUMNS, [*quoted, *ours(lines)])


def ours(lines: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """A run's networks trained alone and its searches, in multiples of its own MobileNetV2."""
    reference = reference_of(lines)
    unit = reference["latency_ms"][0] if reference else None
    rows = []
    for line in lines:
        if line is not reference and line.get("group") in SHARED:
            continue
        mean, low, high = line["accuracy"]
        right = (1 - mean, None if high is None else 1 - high, None if low is None else 1 - low)
        rows.append(
            {
                "name": line["policy"],
                "source": "this run",
                "error": with_ends(right, 2, scale=100),
                "time": f"{line['latency_ms'][0] / unit:.2f}" if unit else "",
            }
        )
    return rows
