# Type recv. Who asks, and for what; the GRIP proxy is known by its Grip-Sig.
if (req.restarts == 0) {
    unset req.http.X-Edge-Sig;
    # What an app may build its links from is not a client's to say: the page is everybody's.
    unset req.http.Forwarded;
    unset req.http.X-Forwarded-Host;
    unset req.http.X-Forwarded-Port;
    unset req.http.X-Forwarded-Prefix;
    unset req.http.X-Original-URL;
    unset req.http.X-Rewrite-URL;
    if (req.http.Grip-Sig) {
        # The token changes every second: what varies on it must only depend on whether there is one.
        set req.http.X-Edge-Sig = req.http.Grip-Sig;
        set req.http.Grip-Sig = "yes";
    } else {
        # Anybody could read any topic with a Grip-Last of their own.
        unset req.http.Grip-Last;
        unset req.http.Grip-Feature;
    }
    if (req.http.Accept ~ "(?i)\btext/event-stream\b") {
        set req.http.Accept = "text/event-stream";
        # A stream needs its body: it can be neither a 304 nor a 206.
        unset req.http.If-None-Match;
        unset req.http.If-Modified-Since;
        unset req.http.Range;
    }
}
