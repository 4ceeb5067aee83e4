"""What is read of a process and its workers."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.xds import probe

WORK = "import time; print('up', flush=True); time.sleep(60)"


def test_metrics_without_labels_and_the_largest_of_workers():
    text = (
        '# TYPE hold gauge\nhold{worker="0"} 0.5\nhold{worker="1"} 0.7\nup 1.0\n'
        'pushes{type="cds"} 3.0\npushes{type="cds",worker="0"} 3.0\n'
    )
    assert probe.metrics_of(text) == {"hold": 0.7, "up": 1.0}


def test_workers_count_and_other_children_do_not():
    mine = os.getpid()
    children = [
        subprocess.Popen([sys.executable, "-c", WORK, flag], stdout=subprocess.PIPE)
        for flag in ("--worker=/run/x:0", "--other")
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        alone, worker = probe._status(mine, "VmRSS"), probe.rss_mb(children[0].pid)
        assert worker > 1
        assert abs(probe.rss_mb(mine) - alone - worker) < 1
        assert probe.cpu_s(mine) > probe.cpu_s(children[0].pid) > 0
    finally:
        for child in children:
            child.kill()
            child.communicate()
