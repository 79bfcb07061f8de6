"""Imported first by the server that workers are forked from: nothing is garbage while it imports.

Without this the collector walks through torch again and again while that is imported: 3.3 s instead of 2.3 s,
for 34 objects that it finds.
"""

import gc

gc.disable()  # `frozen` enables it again
