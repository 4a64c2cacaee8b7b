"""Route of the page of the lead."""

from __future__ import annotations

import threading

from preceptor.label.calls import Call
from preceptor.label.figures import Remembered, figures
from preceptor.web.refusal import forbidden
from preceptor.web.replies import Reply, told

_ONE = threading.Lock()  # the comparisons are made once, however many pages ask


def lead(call: Call) -> Reply:
    """Progress, times and agreement of everybody."""
    if not call.leads:
        raise forbidden("this page is for whoever leads; open the link of the terminal")
    remembered = call.labeling.memory.setdefault("comparisons", Remembered())
    with _ONE:
        return told(figures(call.reading, remembered))
