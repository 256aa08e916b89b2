"""The article's live counter on Django: POST counts, and who listens hears of it.

    browser ── Pushpin (holds the connections) ── Varnish (caches) ── this project

The views are ordinary: none of them knows of a channel or a push. `GRIP_EDGE` in `settings.py`
says which responses show a counter, and that is all there is to it. `python examples/demo.py
django` runs it with its edge. Then:

* Open the page in two windows and press a button: both move, at most once a second.
* `curl -N -H 'Accept: text/event-stream' localhost:7999/counters/1/` and, beside it,
  `curl -X POST localhost:7999/counters/1/`.
* Stop the app: the page still opens and streams stay up. Start it again and press a button.

Environment: GRIP_URL (Pushpin's control port), EDGE_CDN (the cache to purge), DATABASE_URL.
"""
