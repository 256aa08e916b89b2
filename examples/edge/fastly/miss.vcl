# Type miss. A 304 would renew the old GRIP headers too, and with them the old prev-id.
unset bereq.http.If-None-Match;
unset bereq.http.If-Modified-Since;
if (req.http.X-Edge-Sig) {
    set bereq.http.Grip-Sig = req.http.X-Edge-Sig;
}
unset bereq.http.X-Edge-Sig;
