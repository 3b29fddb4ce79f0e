"""One thread a worker, and the same examples every time: a red suite means a changed program."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")

settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")
