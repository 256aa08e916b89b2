# Type error. The app does not answer: the last good copy, and to held clients, that nothing is new.
if (obj.status >= 500 && obj.status < 600 && stale.exists) {
    return(deliver_stale);
}
if (obj.status == 698
    || (obj.status == 503 && req.url ~ "/\.grip-edge/next/" && req.http.Grip-Last)) {
    set obj.status = 200;
    set obj.response = "OK";
    set obj.http.Content-Type = "text/event-stream";
    set obj.http.Grip-Hold = "stream";
    set obj.http.Grip-Channel = regsuball(req.http.Grip-Last, "; *last-id=", "; prev-id=");
    set obj.http.Grip-Link = "<" req.url ">; rel=next; timeout=10";
    synthetic {""};
    return(deliver);
}
