"""Which files of ``{train,val,test}/<class>/`` are images, of which class, and what is passed over.

Folders and files whose names begin with a dot are passed over, and what unpackers and file servers leave
(``__MACOSX``, ``@eaDir``). Linked folders are followed; one that was read already, such as a link in a
circle, is not read again. What looks like an image and cannot be reached is an error.
"""

from __future__ import annotations

import difflib
import os
from collections import Counter
from pathlib import Path

from instanas_env.data.decoding import EXTENSIONS

Passed = Counter[str]
"""What was passed over, and how many of it."""
Labelled = list[tuple[Path, int]]

LEFT_BY_PROGRAMS = {"__MACOSX", "@eaDir"}
ANNOTATIONS = "val_annotations.txt"


def class_folders(train: Path) -> dict[str, Path]:
    """The class folders of ``train`` by their names, in the order of the names."""
    return {entry.name: Path(entry.path) for entry in _listed(train) if _is_folder(entry)}


def readable(name: str) -> str:
    """A file's name as text; of one that is no UTF-8 the odd bytes are shown as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def images_below(folder: Path, passed: Passed) -> list[Path]:
    """All images in ``folder`` and below, in the order of their paths."""
    found: list[Path] = []
    waiting, seen = [folder], set()
    while waiting:
        place = waiting.pop()
        status = place.stat()
        if (status.st_dev, status.st_ino) in seen:
            passed["links to a folder read before"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        folders = []
        for entry in _listed(place, passed):
            ending = os.path.splitext(entry.name)[1].lower()
            if _is_folder(entry):
                folders.append(Path(entry.path))
            elif ending not in EXTENSIONS:
                passed[f"files ending in {ending}" if ending else "files without an ending"] += 1
            elif entry.is_file():
                found.append(Path(entry.path))
            else:
                passed["pipes and devices"] += 1
        waiting += reversed(folders)
    return sorted(found)


def labelled_images(source: Path, classes: dict[str, Path], passed: Passed) -> Labelled:
    """The images of a split with their labels.

    TinyImageNet's ``val`` is read as it is unpacked (``images/`` with ``val_annotations.txt``) and as the
    usual scripts leave it: ``<wnid>/``, ``<wnid>/images/``, ``images/<wnid>/``, also with what they forget.

    Raises:
        ValueError: a folder with images is no class of train.
    """
    flat, label_of = source / "images", {name: label for label, name in enumerate(classes)}
    if "images" not in classes and flat.is_dir():
        loose = {path.name for path in images_below(flat, Counter()) if path.parent == flat}
        if loose and (source / ANNOTATIONS).is_file():
            return _annotated(source / ANNOTATIONS, loose, label_of, passed)
        if any((flat / name).is_dir() for name in classes):
            source = flat
    found: Labelled = []
    for entry in _listed(source, passed):
        if not _is_folder(entry):
            if entry.name != ANNOTATIONS:
                passed["files outside of the class folders"] += 1
            continue
        images = images_below(Path(entry.path), passed)
        if entry.name in label_of:
            found += [(path, label_of[entry.name]) for path in images]
        elif images:
            lower = {name.lower(): name for name in classes}
            close = difflib.get_close_matches(entry.name.lower(), lower, 1)
            hint = f", perhaps to {lower[close[0]]}," if close else ""
            raise ValueError(f"data_dir: {entry.path} is no class of train; rename it{hint} or remove it")
        else:
            passed["folders without images"] += 1
    return sorted(found, key=lambda pair: pair[1])  # stable: within a class in the order of the paths


def _annotated(annotations: Path, loose: set[str], label_of: dict[str, int], passed: Passed) -> Labelled:
    """The images of TinyImageNet's ``images/``: their names and labels are lines of ``annotations``."""
    text = annotations.read_text(encoding="utf-8-sig", errors="surrogateescape")
    found: Labelled = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        class_name = rest.split("\t")[0].strip()
        if class_name not in label_of:
            raise ValueError(
                f"data_dir: {annotations} names the class {class_name}, which has no folder in train"
                f" (line {number})"
            )
        if name not in loose:
            raise ValueError(f"data_dir: {annotations} names {name}, which is not in images/ (line {number})")
        found.append((annotations.parent / "images" / name, label_of[class_name]))
    left = len(loose) - len({path.name for path, _ in found})
    if left:
        passed[f"images without a line in {ANNOTATIONS}"] += left
    return found


def _listed(folder: Path, passed: Passed | None = None) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, but for what is hidden."""
    try:
        with os.scandir(folder) as entries:
            every = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"data_dir: {folder} cannot be read ({error})") from error
    seen = [entry for entry in every if entry.name[0] != "." and entry.name not in LEFT_BY_PROGRAMS]
    if passed is not None and len(seen) < len(every):
        passed["hidden files and folders"] += len(every) - len(seen)
    return seen


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that leads nowhere is an error."""
    try:
        if entry.is_symlink():
            entry.stat()
        return entry.is_dir()
    except OSError as error:
        raise ValueError(
            f"data_dir: {entry.path} is a link that leads nowhere, or cannot be read ({error}); fetch or"
            " remove it"
        ) from error
