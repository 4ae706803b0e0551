"""What holds for every process that runs tests."""

import os
import signal

# two processes run the tests, so each computes with one thread; set before torch is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

# what a script starts in the background ignores Ctrl-C, and would hand that on to the jobs tested
signal.signal(signal.SIGINT, signal.default_int_handler)
