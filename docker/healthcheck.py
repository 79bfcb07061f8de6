"""Whether MLflow's server answers as clients ask it: by the name that they know, from its database."""
# ruff: noqa: INP001 (a script of the server's image)

import sys
import urllib.request

address, host = sys.argv[1:]
question = f"{address}/api/2.0/mlflow/experiments/get?experiment_id=0"
request = urllib.request.Request(question, headers={"Host": host})  # noqa: S310 (our own address)
with urllib.request.urlopen(request, timeout=8) as answer:  # noqa: S310
    sys.exit(answer.status != 200)
