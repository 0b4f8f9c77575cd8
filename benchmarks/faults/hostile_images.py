"""Attacks by images to predict."""

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from attack import NAMES, NO_FILES, SHOWS, Attack, Place, Runs, nested_folders
from PIL import Image


def png(width: int, height: int, *, rows: int | None = None, colour: int = 0, extra: bytes = b"") -> bytes:
    """A PNG file of zeros, of which so many rows are there."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer, line = zlib.compressobj(9), bytes(1 + channels * width)
    packed = b"".join(packer.compress(line) for _ in range(min(height if rows is None else rows, height)))
    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + part(b"IDAT", packed + packer.flush()) + part(b"IEND", b"")


def png_part(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(width: int, height: int, **more: int) -> bytes:
    """A TIFF file in grey of one strip, whose pixels are not there."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width * height % 2**32}
    tags |= {int(key[1:]): value for key, value in more.items()}
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + listed + struct.pack("<I", 0)


def saved(kind: str, size: tuple[int, int] = (16, 16), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (9, 90, 200)).save(file, kind, **options)
    return file.getvalue()


def frames() -> bytes:
    file = io.BytesIO()
    pages = [Image.new("P", (16, 16), k % 250) for k in range(3000)]
    pages[0].save(file, "GIF", save_all=True, append_images=pages[1:])
    return file.getvalue()


def image_files() -> dict[str, tuple[str, Callable[[], bytes], bool]]:
    """Image files: in words -> ending, content, and whether they must be refused."""
    jpeg = bytearray(saved("JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 65_000, 65_000)
    middle = bytearray(saved("JPEG"))
    middle[place : place + 4] = struct.pack(">HH", 9_990, 9_990)
    gif = bytearray(saved("GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    webp = bytearray(saved("WEBP", lossless=True))
    return {
        "PNG of 60,000 x 60,000 pixels": ("png", lambda: png(60_000, 60_000, rows=20), True),
        "PNG of 2^31 - 1 pixels in a row": (
            "png",
            lambda: png(16, 1).replace(struct.pack(">II", 16, 1), b"\x7f\xff\xff\xff\0\0\0\1"),
            True,
        ),
        "PNG of no pixels": ("png", lambda: png(16, 1).replace(struct.pack(">II", 16, 1), bytes(8)), True),
        "PNG of 10^8 pixels, whole": ("png", lambda: png(10_000, 10_000), False),
        "PNG of 10^8 pixels in colour": ("png", lambda: png(10_000, 9_999, colour=2), False),
        "PNG of 10^8 pixels with transparency": ("png", lambda: png(10_000, 9_999, colour=6), False),
        "PNG of 10^8 pixels, cut": ("png", lambda: png(10_000, 10_000, rows=100), False),
        "PNG of 1 x 10^7 pixels": ("png", lambda: png(1, 10**7), False),
        "PNG with 200 MB of text": (
            "png",
            lambda: png(16, 16, extra=png_part(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 * 2**20)))),
            False,
        ),
        "PNG with 200 MB of a profile": (
            "png",
            lambda: png(16, 16, extra=png_part(b"iCCP", b"a\0\0" + zlib.compress(bytes(200 * 2**20)))),
            False,
        ),
        "PNG with a part of 2^31 bytes": ("png", lambda: png(16, 16, extra=struct.pack(">I", 2**31) + b"tEXt"), True),
        "JPEG of 65,000 x 65,000 pixels": ("jpg", lambda: bytes(jpeg), True),
        "JPEG that says 10^8 pixels": ("jpg", lambda: bytes(middle), False),
        "GIF of 65,535 x 65,535 pixels": ("webp", lambda: bytes(gif), True),
        "GIF of 3000 frames": ("png", frames, False),
        "TIFF of 2^31 x 2^31 pixels": ("tif", lambda: tiff(2**31, 2**31), True),
        "TIFF of 10^8 pixels, none there": ("tif", lambda: tiff(10_000, 10_000), True),
        "TIFF whose pages go round": ("tif", lambda: tiff(16, 16)[:-4] + struct.pack("<I", 8), True),
        "TIFF of 2^32 - 1 samples": ("tif", lambda: tiff(16, 16, t277=2**32 - 1), True),
        "BMP of 2^31 - 1 pixels": (
            "bmp",
            lambda: (
                b"BM" + bytes(8) + struct.pack("<IIiiHHIIIIII", 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0)
            ),
            True,
        ),
        "PPM of 10^9 x 10^9 pixels": ("ppm", lambda: b"P6 1000000000 1000000000 255\n" + bytes(100), True),
        "PPM of 10^5 digits": ("ppm", lambda: b"P6 " + b"9" * 10**5 + b" 1 255\n" + bytes(100), True),
        "PPM of 9,999 x 9,999 pixels, none there": ("ppm", lambda: b"P6 9999 9999 255\n", True),
        "WebP, cut": ("webp", lambda: bytes(webp[:30]), True),
        "WebP of 16,383 x 16,383 pixels": (
            "webp",
            lambda: b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f\xff\xff\xff\x0f" + bytes(20),
            True,
        ),
        "PostScript": (
            "png",
            lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n(%pipe%touch EXECUTED) (w) file\n",
            True,
        ),
        "SVG": ("png", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", True),
        "a pickle": ("png", lambda: pickle.dumps(Runs("touch EXECUTED")), True),
        "an array": ("png", lambda: b"\x93NUMPY\x01\x00", True),
        "JPEG with EXIF of cycles": ("jpg", lambda: saved("JPEG", exif=exif_cycle()), False),
    }


def exif_cycle() -> bytes:
    """EXIF data whose folder is its own sub-folder."""
    tags = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x8769, 4, 1, 8)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + tags + struct.pack("<I", 8)


def images() -> Iterator[Attack]:
    """Images to predict."""
    predict = ("predict", "run", "images")

    def put(place: Place, name: str | bytes, content: bytes | None = None) -> None:
        folder = place.work / "images"
        folder.mkdir(exist_ok=True)
        path = os.path.join(os.fsencode(folder), name if isinstance(name, bytes) else os.fsencode(name))
        with open(path, "wb") as file:
            file.write(png(16, 16) if content is None else content)

    for what, (ending, _, refused) in image_files().items():
        for options in ((), ("--skip-broken",)):
            yield Attack(
                "images",
                f"{what}{' with --skip-broken' if options else ''}",
                lambda p, w=what, e=ending: (put(p, f"a.{e}", image_files()[w][1]()), put(p, "b.png")),
                (*predict, *options),
                refused=refused and not options,
            )
    for what, maker in NO_FILES.items():
        yield Attack(
            "images",
            f"a.png is {what}",
            lambda p, m=maker: (put(p, "b.png"), m(p.work / "images/a.png")),
            predict,
            refused=False,
        )
        yield Attack(
            "images", f"the image is {what}", lambda p, m=maker: m(p.work / "a.png"), ("predict", "run", "a.png")
        )
        yield Attack(
            "images",
            f"the folder is {what}",
            lambda p, m=maker: m(p.work / "images"),
            predict,
            refused=what != "a link",
        )
        for ending in ("csv", "jsonl"):
            yield Attack(
                "images",
                f"labels.{ending} is {what}",
                lambda p, m=maker, e=ending: (put(p, "b.png"), m(p.work / f"labels.{e}")),
                (*predict, "--out", f"labels.{ending}"),
                refused=False,
            )
    for ending in ("csv", "jsonl"):
        for name in (f"labels.{ending}", f"labels.{ending}.part"):
            for hard in (False, True):
                yield Attack(
                    "images",
                    f"{name} is a {'hard' if hard else 'symbolic'} link to a file outside",
                    lambda p, n=name, h=hard: (
                        put(p, "b.png"),
                        (p.work / n).hardlink_to(p.outside / "secret")
                        if h
                        else (p.work / n).symlink_to(p.outside / "secret"),
                    ),
                    (*predict, "--out", f"labels.{ending}"),
                    refused=False,
                )
    names: list[str | bytes] = [f"{text.replace('/', '')}.png" for text in NAMES]
    names += [
        "-x.png",
        "+1+1.png",
        "@a.png",
        "\t=1.png",
        "a\nb.png",
        'a,b".png',
        b"\xff\xfe.png",
        b"\x9b31m.png",
        "é.png",
    ]
    for name in names:
        for how, options in SHOWS.items():
            yield Attack(
                "images",
                f"a file is called {ascii(name)}, shown {how}",
                lambda p, n=name: (put(p, n), put(p, "b.png")),
                (*predict, *options),
                refused=False,
            )
        yield Attack(
            "images",
            f"a broken file is called {ascii(name)}",
            lambda p, n=name: put(p, n, b"x"),
            predict,
        )
        yield Attack(
            "images",
            f"a broken file is called {ascii(name)}, with --skip-broken",
            lambda p, n=name: (put(p, n, b"x"), put(p, "b.png")),
            (*predict, "--skip-broken"),
            refused=False,
        )
    for what, make in {
        "a link to the folder above": lambda p: (p.work / "images/up").symlink_to(".."),
        "a link to /": lambda p: (p.work / "images/root").symlink_to("/"),
        "a link to a file outside": lambda p: (p.work / "images/a.png").symlink_to(p.outside / "secret"),
        "folders 1500 deep": lambda p: nested_folders(p.work / "images", 1500),
        "folders that end in .png": lambda p: (p.work / "images/a.png").mkdir(),
        "20,000 empty folders": lambda p: [(p.work / f"images/{k}").mkdir() for k in range(20_000)],
    }.items():
        yield Attack(
            "images", f"the folder has {what}", lambda p, m=make: (put(p, "b.png"), m(p)), predict, refused=False
        )
