"""A zip archive that grows part by part, and of which a kill costs no more than the last part."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

_BLOCK_B = 1 << 20
# Of the header before the data of a member: checksum, and size as stored and as unpacked.
_HEADER = struct.Struct("<14xIII4x")


class GrowingArchive:
    """An archive to which parts are appended, each of which is a few files.

    A part is on the disk before the next one begins. What an earlier process left is looked through
    first: the parts at its beginning that are whole stay, and what follows them is cut off. The
    members are uncompressed and have no time stamps, so that equal contents make equal bytes.

    Parameters
    ----------
    file
        The archive, open for reading and appending. Others can read it once it is finished.
    parts
        Names of the members of each part, in the order in which the parts are appended.
    """

    def __init__(self, file: BinaryIO, parts: Sequence[Sequence[str]]) -> None:
        self._file, self._parts = file, parts
        self._members: list[zipfile.ZipInfo] = []
        self.whole = self._keep_whole_parts()

    def append(self, folder: Path) -> None:
        """Append the next part.

        Parameters
        ----------
        folder
            Where its members are, as files.
        """
        for name in self._parts[self.whole]:
            data = (folder / name).read_bytes()
            member = _member(name, self._file.tell(), len(data), zlib.crc32(data))
            self._file.write(member.FileHeader())
            self._file.write(data)
            self._members.append(member)
        self._flush()
        self.whole += 1

    def finish(self) -> None:
        """Write the table of contents."""
        with zipfile.ZipFile(self._file, "w") as archive:  # begins where the last part ends
            archive.filelist.extend(self._members)
        self._flush()

    def _flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _keep_whole_parts(self) -> int:
        """Return how many parts are whole, and cut off what follows them."""
        whole = end = 0
        self._file.seek(0)
        for names in self._parts:
            found = list(self._whole_members(names))
            if len(found) < len(names):
                break
            self._members += found
            whole, end = whole + 1, self._file.tell()
        self._file.seek(end)
        self._file.truncate()
        return whole

    def _whole_members(self, names: Sequence[str]) -> Iterator[zipfile.ZipInfo]:
        """Yield the members of a part up to the first that is not as it was written."""
        for name in names:
            offset = self._file.tell()
            header = self._file.read(_HEADER.size + len(name))
            if len(header) < _HEADER.size:
                return
            checksum, size, _ = _HEADER.unpack_from(header)
            member = _member(name, offset, size, checksum)
            if header != member.FileHeader() or self._checksum(size) != checksum:
                return
            yield member

    def _checksum(self, size: int) -> int | None:
        """Return the checksum of the following bytes, if there are so many."""
        checksum = 0
        while size:
            block = self._file.read(min(size, _BLOCK_B))
            if not block:
                return None
            checksum = zlib.crc32(block, checksum)
            size -= len(block)
        return checksum


def _member(name: str, offset: int, size: int, checksum: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16
    member.header_offset = offset
    member.file_size = member.compress_size = size
    member.CRC = checksum
    return member
