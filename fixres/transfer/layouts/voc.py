"""Pascal VOC's layout of boxes: JPEGImages, Annotations (XML), ImageSets/Main (lists).

VOC counts pixels from 1, and a box includes its last pixel: xmin = xmax = 1 is the first pixel alone. As edges this is
0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from fixres.pipelines.spec import InputError
from fixres.transfer.layouts.annotations import (
    BoxedData,
    NamedBox,
    NamedImage,
    boxed_data,
    first_existing,
    image_in,
    read_list,
)

_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_MAX_BYTES = 1 << 24
_MAX_DEPTH = 32
_MAX_SIDE = 1 << 20


def voc_folders(folder: Path, inside: str = "Annotations") -> list[Path]:
    """The folder itself, or the folders VOC2007, VOC2012, ... in it, that have a folder `inside`."""
    found = [folder] if (folder / inside).is_dir() else sorted(folder.glob("VOC2*"))
    return [one for one in found if (one / inside).is_dir() and (one / "ImageSets").is_dir()]


def read_voc(folder: Path, classes: Sequence[str] = (), on_bad: str = "stop") -> BoxedData:
    """Training and test images in VOC's layout.

    In a folder of years the lists trainval of all years are for training, and test of the first year that has one
    (2007) for testing. A single folder without a list test is trained on train and tested on val.

    Raises:
        InputError: a file that is missing or not XML, a bad box; see `boxed_data`.
    """
    years = voc_folders(folder)
    tested = next((year for year in years if _list(year, "test").is_file()), None)
    if tested is None:
        train, test = [(year, "train") for year in years], [(year, "val") for year in years]
    else:
        train, test = [(year, _with_val(year)) for year in years], [(tested, "test")]
    return boxed_data(_images(train), _images(test), classes, on_bad)


def _list(year: Path, name: str) -> Path:
    return year / "ImageSets" / "Main" / f"{name}.txt"


def _with_val(year: Path) -> str:
    return "trainval" if _list(year, "trainval").is_file() else "train"


def _images(lists: Sequence[tuple[Path, str]]) -> list[NamedImage]:
    return [_image(year, name) for year, listed in lists for name in read_list(_list(year, listed))]


def _image(year: Path, name: str) -> NamedImage:
    path = year / "Annotations" / f"{name}.xml"
    root = read_xml(path)
    image = voc_image(year, name, str(path))
    width, height = (_number(path, root, f"size/{side}") for side in ("width", "height"))
    if not (1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE):
        raise InputError(f"{path}: an image of {width:g} x {height:g} pixels; correct its size")
    objects = [_object(path, one) for one in root.findall("object")]
    return NamedImage(image, str(path), int(height), int(width), objects)


def voc_image(year: Path, name: str, place: str) -> Path:
    """The file of the image `name`; InputError, which begins with `place`, if there is none."""
    found = first_existing(year / "JPEGImages" / f"{name}{ending}" for ending in _ENDINGS)
    return image_in(year / "JPEGImages", found.name if found else f"{name}.jpg", place)


def _object(path: Path, one: Element) -> NamedBox:
    xmin, ymin, xmax, ymax = (_number(path, one, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    name = (one.findtext("name") or "").strip()
    if not name:
        raise InputError(f"{path}: an object without a name; correct it")
    if (difficult := (one.findtext("difficult") or "").strip()) not in ("", "0", "1"):
        raise InputError(f"{path}: difficult {difficult[:20]!r} is neither 0 nor 1; correct it")
    return NamedBox(name, (xmin - 1, ymin - 1, xmax, ymax), difficult == "1")


def _number(path: Path, element: Element, place: str) -> float:
    text = element.findtext(place)
    try:
        return float(text or "")
    except ValueError:
        what = "is missing" if text is None else f"{text.strip()[:80]!r} is not a number"
        raise InputError(f"{path}: {place} {what}; correct it") from None


def read_xml(path: Path) -> Element:
    """The root element of an XML file. A document type is refused, and with it all entities.

    Raises:
        InputError: no such file, not XML, or more than an annotation has: a document type, 16 MiB, 32 levels.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; restore it, or remove the image from the list") from None
    builder, parser, depth = TreeBuilder(), expat.ParserCreate(), 0

    def refuse(*_: object) -> None:
        raise InputError(f"{path}: an XML file with a document type, which annotations do not have; remove it")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise InputError(f"{path}: elements inside one another, {depth} deep; not an annotation of VOC")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not an XML file of at most 16 MiB ({error}); restore it") from error
    return builder.close()
