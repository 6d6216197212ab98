"""A file's bytes from Hugging Face's Xet storage: fetched in parallel, given in order.

The library's own way (`xet_get`) begins a file that was cut off from its start, and waits 262 s
(measured, hf_xet 1.8) for a storage that can't be reached. A stream from a given byte on resumes,
and each wait for it has a limit.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitedTooLong
from contextlib import contextmanager
from typing import TYPE_CHECKING

from worker.model_retry import Broken, Refused

if TYPE_CHECKING:
    from huggingface_hub.utils._xet import XetFileData


def blocks(
    file: XetFileData, size: int, headers: Mapping[str, str], *, start: int, stall: float
) -> Generator[bytes, None, None]:
    """Give a file of `size` bytes from byte `start` on; stall: seconds of each wait.

    Close it when it is not wanted any more: that ends what runs. Raises Broken.
    """
    from hf_xet import XetFileInfo, XetSession  # noqa: PLC0415 - only some repositories need it
    from huggingface_hub.utils._xet import (  # noqa: PLC0415 - as above
        refresh_xet_connection_info,
    )

    # The group is left before the pool: that ends a wait in its thread, which has no limit itself.
    with _faults(), ThreadPoolExecutor(1, "xet") as pool:
        access = refresh_xet_connection_info(file_data=file, headers=dict(headers))
        with XetSession().new_download_stream_group(
            endpoint=access.endpoint,
            token=access.access_token,
            token_expiry_unix_secs=access.expiration_unix_epoch,
            token_refresh_url=file.refresh_route,
            token_refresh_headers=dict(headers),
        ) as group:
            stream = group.download_stream(XetFileInfo(file.file_hash, size), start=start)
            while block := pool.submit(next, stream, b"").result(stall):
                yield block


@contextmanager
def _faults() -> Iterator[None]:
    """Turn the faults of the storage into words, without addresses."""
    try:
        yield
    except WaitedTooLong:
        raise Broken("no bytes came from the Xet storage for too long") from None
    except (Refused, RuntimeError, OSError, ValueError):
        raise Broken("the Xet storage can't be read") from None
