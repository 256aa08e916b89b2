# Type deliver. Fastly takes Surrogate-Key and Surrogate-Control off; at a shield it must not, and does not.
if (!req.http.Fastly-FF && (!req.http.Grip-Sig || req.method == "HEAD")) {
    # A direct client has no use for them, and a HEAD that is held never gets a body.
    unset resp.http.Grip-Hold;
    unset resp.http.Grip-Channel;
    unset resp.http.Grip-Timeout;
    unset resp.http.Grip-Keep-Alive;
    unset resp.http.Grip-Link;
    unset resp.http.Grip-Status;
    unset resp.http.Grip-Set-Meta;
    unset resp.http.Grip-Expose-Headers;
}
if (!req.http.Fastly-FF) {
    # Age counts against the edge's lifetime, which the client does not see.
    unset resp.http.Age;
}
