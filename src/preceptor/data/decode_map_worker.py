"""Process that decodes images and maps for another one, see `decode_worker`."""

from __future__ import annotations

from preceptor.data.decode_worker import decode_parts
from preceptor.data.resampling import stored_map

if __name__ == "__main__":
    decode_parts(stored_map)
