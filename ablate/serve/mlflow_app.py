"""The service inside MLflow's own server: `mlflow server --app-name ablate` shows both under one address.

MLflow runs several processes of it, so none leads the queue: `ablate serve` does. It protects no routes
that others add, so the door is our own here, too, and always asks for the token.
"""

import os
import sys
from pathlib import Path
from typing import Any

from ablate.serve import app as web
from ablate.serve import config, tokens
from ablate.store import layout

PREFIX = "/ablate"


def create_app() -> Any:
    """Return MLflow's application, with the service below /ablate on the store ABLATE_STORE, or ./mlruns."""
    from mlflow.server.fastapi_app import create_fastapi_app
    from starlette.routing import Mount

    store = layout.open_store(Path(os.environ.get("ABLATE_STORE", layout.USUAL)))
    token, is_new = tokens.get(store)
    if is_new:
        sys.stderr.write(f"ablate below {PREFIX}/ asks for a token, shown this once: {token}\n")
    beside = config.read(store).model_copy(update={"mlflow": "/"})
    own = web.create_app(store, beside, token=token)
    app = create_fastapi_app()
    app.router.routes.insert(0, Mount(PREFIX, app=own))  # before MLflow's, the last of which takes everything
    return app
