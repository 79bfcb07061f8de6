"""The user's own folders, outside of any store."""

import os
import tempfile
from pathlib import Path

from ablate.errors import AblateError


def cache() -> Path:
    """Return ablate's folder in the user's cache: downloaded data sets, and what torch has compiled.

    Where there is no home, as in a container under any user, it is a folder of the user's own among the
    temporary files. Raises an AblateError where that folder is another user's.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    if Path(home).is_absolute():  # else it is to be ignored, by the standard
        return Path(home) / "ablate"
    try:
        return Path.home() / ".cache" / "ablate"
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"ablate-{os.getuid()}"
    if os.path.lexists(folder) and folder.lstat().st_uid != os.getuid():
        raise AblateError(
            f"{folder}: must be a folder of yours, and is another user's: set HOME or XDG_CACHE_HOME"
        )
    return folder
