"""webdataset's rule for member names, its switches out of the environment's reach."""

from __future__ import annotations

import os

# webdataset reads these when it is imported and when it opens a URL
for _name in [name for name in os.environ if name.startswith(("WDS_", "GOPEN_", "USE_AIS_FOR"))]:
    del os.environ[_name]

import webdataset.utils  # noqa: E402
from webdataset.tariterators import base_plus_ext  # noqa: E402

webdataset.utils.enforce_security = True  # no pickled member is ever decoded, no pipe opened

__all__ = ["base_plus_ext"]
