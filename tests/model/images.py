"""Radiographs made for the tests: a known picture, stored in every way that a modality may choose."""

from __future__ import annotations

import io
from tempfile import NamedTemporaryFile
from typing import Any

import gdcm
import jpeg_ls as jpeg_ls_module
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.int16]


def film(rows: int = 512, columns: int = 480, *, largest: int = 4095) -> NDArray[np.uint16]:
    """Return a picture with lungs, ribs and noise as a film has them, black at its lower end."""
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    body = 0.8 * np.exp(-((x / 0.9) ** 6) - (y / 1.1) ** 8)
    lungs = np.exp(-(((np.abs(x) - 0.4) / 0.28) ** 4) - ((y + 0.1) / 0.6) ** 4)
    noise = np.random.default_rng(0).normal(0, 0.01, x.shape)
    shares = np.clip(0.05 + body - 0.5 * lungs + 0.06 * np.sin(18 * y + 4 * np.abs(x)) * body + noise, 0, 1)
    shares[-rows // 16 :] = 0
    return np.asarray(np.rint(shares * largest), dtype=np.uint16)


def picture(rows: int = 300, columns: int = 260) -> NDArray[np.uint8]:
    """Return a picture that no symmetry maps on itself, with every grey from 0 to 255, air dark."""
    y, x = np.mgrid[0:rows, 0:columns]
    ramp = (x * 255 / (columns - 1) + 40 * np.sin(y / 17)).clip(0, 255)
    ramp[: rows // 8, : columns // 3] = 0
    return np.asarray(np.rint(ramp), dtype=np.uint8)


def radiograph(pixels: Pixels, *, bits: int | None = None, **attributes: Any) -> Dataset:
    """Return an uncompressed image of these stored values; attributes are added or replaced."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.Rows, image.Columns = pixels.shape[:2]
    image.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    image.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        image.PlanarConfiguration = 0
    image.BitsAllocated = 8 * pixels.dtype.itemsize
    image.BitsStored = bits or image.BitsAllocated
    image.HighBit = image.BitsStored - 1
    image.PixelRepresentation = int(pixels.dtype.kind == "i")
    octets = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    image.PixelData = octets + b"\0" * (len(octets) % 2)
    image["PixelData"].VR = "OB" if image.BitsAllocated == 8 else "OW"
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    return image


def stored_as(image: Dataset, keyword: str, octets: bytes, vr: str | None = "DS", *, little: bool = True) -> Dataset:
    """Return the image with an attribute of these bytes, as it is after reading; without a VR in implicit VR."""
    tag = BaseTag(Tag(keyword))
    image[tag] = RawDataElement(tag, vr, len(octets), octets, 0, vr is None, little)
    return image


def big_endian(image: Dataset) -> Dataset:
    """Return a 16-bit image in Explicit VR Big Endian."""
    image.PixelData = np.frombuffer(image.PixelData, dtype="<u2").astype(">u2").tobytes()
    image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    return image


def compressed(image: Dataset, stream: bytes, syntax: str) -> Dataset:
    """Return the image with a compressed stream for its pixel data."""
    image.PixelData = encapsulate([stream])
    image["PixelData"].VR = "OB"
    image["PixelData"].is_undefined_length = True
    image.file_meta.TransferSyntaxUID = UID(syntax)
    return image


def jpeg_stream(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", **{"quality": 95, **options})
    return file.getvalue()


def jpeg(pixels: NDArray[np.uint8], **options: Any) -> Dataset:
    """Return an image in JPEG Baseline; three channels are stored as YBR."""
    image = radiograph(pixels)
    if pixels.ndim == 3:
        image.PhotometricInterpretation = "YBR_FULL_422"
    return compressed(image, jpeg_stream(pixels, **options), JPEGBaseline8Bit)


def jpeg2000(pixels: Pixels, *, bits: int | None = None) -> Dataset:
    return _compressed_by(radiograph(pixels, bits=bits), JPEG2000Lossless, "pylibjpeg")


def jpeg2000_91(pixels: Pixels, *, bits: int, ratio: float = 0) -> Dataset:
    """Return an image in JPEG 2000 that may be lossy; the stream itself is exact unless it has a compression ratio."""
    if ratio:
        image = radiograph(pixels, SOPInstanceUID="1.2.3")
        image.compress(JPEG2000, j2k_cr=[ratio], encoding_plugin="pylibjpeg", generate_instance_uid=False)
    else:
        image = jpeg2000(pixels)
        image.file_meta.TransferSyntaxUID = JPEG2000
    return _stored_with(image, bits)


def jpeg_ls(pixels: Pixels, *, bits: int | None = None) -> Dataset:
    return _compressed_by(radiograph(pixels, bits=bits), JPEGLSLossless, "pyjpegls")


def rle(pixels: Pixels, *, bits: int | None = None) -> Dataset:
    return _compressed_by(radiograph(pixels, bits=bits), RLELossless, "pydicom")


def jpeg_ls_words(words: Pixels, *, bits: int, error: int = 0) -> Dataset:
    """Return an image whose whole words are coded in JPEG-LS, also above its stored bits; exactly if `error` is 0."""
    stream = bytes(jpeg_ls_module.encode_array(words, lossy_error=error))
    syntax = JPEGLSNearLossless if error else JPEGLSLossless
    return compressed(radiograph(words, bits=bits), stream, syntax)


def jpeg2000_words(words: Pixels, *, bits: int) -> Dataset:
    return _stored_with(jpeg2000(words), bits)


def rle_words(words: Pixels, *, bits: int) -> Dataset:
    return _stored_with(rle(words), bits)


def jpeg_lossless_words(words: Pixels, *, bits: int) -> Dataset:
    """Return an image whose whole words are coded in JPEG Lossless, also above its stored bits."""
    stream = _coded_by_gdcm(words, gdcm.TransferSyntax.JPEGLosslessProcess14_1)
    return compressed(radiograph(words, bits=bits), stream, JPEGLosslessSV1)


def jpeg_extended(words: NDArray[np.uint16], *, bits: int) -> Dataset:
    """Return an image in JPEG Extended, of more than 8 bits."""
    stream = _coded_by_gdcm(words, gdcm.TransferSyntax.JPEGExtendedProcess2_4)
    return compressed(radiograph(words, bits=bits), stream, JPEGExtended12Bit)


def _coded_by_gdcm(words: Pixels, syntax: int) -> bytes:
    reader = gdcm.ImageReader()
    with NamedTemporaryFile(suffix=".dcm") as before, NamedTemporaryFile(suffix=".dcm") as after:
        native = radiograph(words, SOPClassUID=SecondaryCaptureImageStorage, SOPInstanceUID="1.2.3")
        native.save_as(before.name, enforce_file_format=True)
        reader.SetFileName(before.name)
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        writer = gdcm.ImageWriter()
        writer.SetFileName(after.name)
        assert reader.Read()
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        stream: bytes = get_frame(dcmread(after.name).PixelData, 0, number_of_frames=1)
    return stream


def _stored_with(image: Dataset, bits: int) -> Dataset:
    image.BitsStored, image.HighBit = bits, bits - 1
    return image


def _compressed_by(image: Dataset, syntax: str, plugin: str) -> Dataset:
    image.SOPInstanceUID = "1.2.3"
    image.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    return image


def lookup_table(entries: NDArray[np.integer[Any]], *, first: int, bits: int) -> Dataset:
    """Return a Modality or VOI LUT item (PS3.3 C.11)."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "US", entries.tolist())
    return item


def stored_table(octets: bytes, *, count: int, bits: int, first: int = 0, vr: str = "OW") -> Dataset:
    """Return a Modality or VOI LUT item whose entries are these bytes."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, first, bits])
    item.add_new("LUTData", vr, octets)
    return item
