"""Imported first by the server that workers are forked from: no garbage is collected while it imports.

Else the collector walks through torch again and again while that is imported: 3.3 s instead of 2.3 s, for
13 MB (12,800 objects), which all workers share.
"""

import gc

gc.disable()  # `frozen` enables it again
