# Type fetch. What is kept; Surrogate-Key and Surrogate-Control are read by Fastly itself.
if (beresp.status == 500 || beresp.status == 502 || beresp.status == 503 || beresp.status == 504) {
    # RFC 5861, section 4: these are the errors that a stale response may stand in for.
    if (stale.exists) {
        return(deliver_stale);
    }
    if (req.url ~ "/\.grip-edge/next/" && req.http.Grip-Last) {
        error 698 "Unchanged";
    }
    return(pass);
}
if (beresp.http.Cache-Control ~ "(?i)\b(private|no-store)\b" || beresp.http.Surrogate-Control ~ "(?i)\bno-store\b") {
    return(pass);
}
# If nothing says how long, nothing is kept; Fastly's default would be an hour.
if (beresp.http.Surrogate-Control !~ "(?i)\bmax-age=\d"
    && beresp.http.Cache-Control !~ "(?i)\b(s-maxage|max-age)=\d" && !beresp.http.Expires) {
    return(pass);
}
# Who of the long-polls is held depends on what they have: the app says so.
if (beresp.http.Grip-Hold == "response") {
    return(pass);
}
