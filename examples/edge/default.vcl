# The cache between the GRIP proxy and the app: it keeps pages together with their GRIP headers.
#
#     client -> Pushpin -> this cache -> app
#
# An ordinary request never sees what was purged. Only when the app cannot answer is the last good copy
# shown, for as long as the app said (stale-if-error). README.md shows how to start it.
vcl 4.1;

import std;
import var;
import xkey;

backend app {
    .host = "127.0.0.1";
    .port = "8000";
    # A client that waits for a dead app waits this long for the last good copy.
    .connect_timeout = 1s;
    .first_byte_timeout = 30s;
}

# Who may purge. Clients of a GRIP proxy on this machine come from here too: see purge_keys.
acl purgers {
    "127.0.0.1";
    "::1";
}

# ---------------------------------------------------------------------------------------------- requests

sub vcl_recv {
    if (req.method == "PURGEKEYS") {
        call purge_keys;
    }
    if (req.restarts == 0) {
        call trust_the_grip_proxy_only;
        call normalise_accept;
    }
    if (req.url == "/.grip-edge/probe") {
        return (synth(299, "OK"));
    }
    call choose_grace;
    if (req.http.Upgrade ~ "(?i)^websocket$") {
        return (pipe);
    }
}

# PURGEKEYS with `xkey-purge: key1 key2 ...`, in one line or several of at most 7,500 bytes each.
sub purge_keys {
    # What comes through the GRIP proxy is the public, whatever address the proxy has.
    if (client.ip !~ purgers || req.http.Grip-Sig || req.http.Grip-Feature) {
        return (synth(403, "Forbidden"));
    }
    if (!req.http.xkey-purge) {
        return (synth(400, "xkey-purge is missing"));
    }
    std.collect(req.http.xkey-purge, " ");
    if (req.http.xkey-hard == "1") {
        set req.http.X-Edge-Purged = xkey.purge(req.http.xkey-purge);
    } else {
        set req.http.X-Edge-Purged = xkey.softpurge(req.http.xkey-purge);
    }
    return (synth(200, "Purged"));
}

sub trust_the_grip_proxy_only {
    unset req.http.X-Edge-Has-Copy;
    unset req.http.X-Edge-Last-Resort;
    unset req.http.X-Edge-Stale;
    # What an app may build its links from is not a client's to say: the page is everybody's.
    unset req.http.Forwarded;
    unset req.http.X-Forwarded-Host;
    unset req.http.X-Forwarded-Port;
    unset req.http.X-Forwarded-Prefix;
    unset req.http.X-Forwarded-Server;
    unset req.http.X-Original-URL;
    unset req.http.X-Rewrite-URL;
    unset req.http.X-Edge-Sig;
    if (req.http.Grip-Sig) {
        # The token changes every second. A response that varies on it must only depend on whether there is one.
        set req.http.X-Edge-Sig = req.http.Grip-Sig;
        set req.http.Grip-Sig = "yes";
        std.collect(req.http.Grip-Last);
    } else {
        # Anybody could read any topic with a Grip-Last of their own.
        unset req.http.Grip-Last;
        unset req.http.Grip-Feature;
    }
}

# Browsers differ in how they ask for a stream; to an app that varies on Accept they are all the same.
sub normalise_accept {
    if (req.http.Accept ~ "(?i)\btext/event-stream\b") {
        set req.http.Accept = "text/event-stream";
    }
}

# Up to three looks at the cache, the second and third only if there is an old copy:
# 1. Is there a copy at all?  2. As if there were none: ask the app.  3. The app failed: the old copy.
sub choose_grace {
    if (req.http.X-Edge-Has-Copy && !req.http.X-Edge-Last-Resort) {
        set req.grace = 0s;
    } else {
        # The limit is the object's own grace, which is its stale-if-error.
        set req.grace = 365d;
    }
}

sub take_the_copy_after_failure {
    if (req.http.X-Edge-Has-Copy && !req.http.X-Edge-Last-Resort) {
        set req.http.X-Edge-Last-Resort = "1";
        return (restart);
    }
}

# The app says what is private (Set-Cookie, Cache-Control, Vary: Cookie), so a cookie alone is no reason to pass.
sub vcl_req_cookie {
    return;
}

sub vcl_hash {
    # A next link answers each Grip-Last differently. Not by Vary: variants are walked one by one. Pages do not:
    # a long-poll that is asked again (with a Grip-Last) gets the same copy as everybody.
    if (req.url ~ "/\.grip-edge/next/") {
        hash_data(req.http.Grip-Last);
    }
}

sub vcl_hit {
    if (obj.ttl <= 0s && !req.http.X-Edge-Last-Resort) {
        set req.http.X-Edge-Has-Copy = "1";
        return (restart);
    }
    if (obj.ttl <= 0s) {
        set req.http.X-Edge-Stale = "1";
    }
}

sub vcl_miss {
    # Who is this late has waited for somebody else's fetch, and if the app has failed since, it was that one.
    # Trying in turn, everybody would wait for a dead app once, one after the other.
    if (!req.is_hitmiss && now - req.time > 2s
        && std.time(var.global_get("failed"), std.real2time(0, now)) > req.time) {
        call take_the_copy_after_failure;
    }
}

# ---------------------------------------------------------------------------------------------- the app

sub vcl_pipe {
    call restore_grip_sig;
    set bereq.http.Upgrade = req.http.Upgrade;
    set bereq.http.Connection = req.http.Connection;
}

sub vcl_backend_fetch {
    # A stale copy is shown because the app has just failed: do not ask it again behind the client's back.
    if (bereq.is_bgfetch) {
        return (abandon);
    }
    # A 304 would renew the old GRIP headers too, and with them the old prev-id.
    if (!bereq.uncacheable) {
        unset bereq.http.If-None-Match;
        unset bereq.http.If-Modified-Since;
    }
    call restore_grip_sig;
}

# X-Edge-Has-Copy goes on to the app: keep_the_copy asks for it afterwards.
sub restore_grip_sig {
    if (bereq.http.X-Edge-Sig) {
        set bereq.http.Grip-Sig = bereq.http.X-Edge-Sig;
    }
    unset bereq.http.X-Edge-Sig;
}

sub vcl_backend_response {
    if (bereq.http.Grip-Sig) {
        # What Vary is compared with; see trust_the_grip_proxy_only.
        set bereq.http.Grip-Sig = "yes";
    }
    call index_by_surrogate_key;
    if (bereq.uncacheable) {
        return (deliver);
    }
    # RFC 5861, section 4: these are the errors that a stale response may stand in for.
    if (beresp.status == 500 || beresp.status == 502 || beresp.status == 503 || beresp.status == 504) {
        call keep_the_copy;
        call vcl_beresp_hitmiss;
    }
    call freshness;
}

sub vcl_backend_error {
    call keep_the_copy;
}

# Whatever is stored takes the place of the old copy, even an error for those who wait for it. So store nothing;
# vcl_synth goes on.
sub keep_the_copy {
    var.global_set("failed", "" + std.time2real(now, 0));
    if (bereq.http.X-Edge-Has-Copy) {
        return (abandon);
    }
}

# xkey reads the header `xkey` only.
sub index_by_surrogate_key {
    if (beresp.http.Surrogate-Key) {
        std.collect(beresp.http.Surrogate-Key, " ");
        set beresp.http.xkey = beresp.http.Surrogate-Key;
        unset beresp.http.Surrogate-Key;
    }
}

# Surrogate-Control first, then Cache-Control. If neither says how long, nothing is kept.
sub freshness {
    if (beresp.http.Cache-Control ~ "(?i)\b(private|no-store)\b") {
        call vcl_beresp_hitmiss;
    }
    if (beresp.http.Surrogate-Control ~ "(?i)\bmax-age=\d") {
        set beresp.ttl = std.duration(
            regsub(beresp.http.Surrogate-Control, "(?i)^.*\bmax-age=(\d+).*$", "\1s"), 0s);
    } elseif (beresp.http.Cache-Control !~ "(?i)\b(s-maxage|max-age)=\d" && !beresp.http.Expires) {
        # Hit-for-miss: clients do not queue for what cannot be shared.
        call vcl_beresp_hitmiss;
    }
    set beresp.grace = std.duration(
        regsub(beresp.http.Surrogate-Control + "," + beresp.http.Cache-Control,
            "(?i)^.*?\bstale-if-error=(\d+).*$", "\1s"), 0s);
}

# ---------------------------------------------------------------------------------------------- responses

sub vcl_deliver {
    if (resp.status >= 500 && req.url ~ "/\.grip-edge/next/" && req.http.Grip-Last) {
        return (synth(298, "Unchanged"));
    }
    call show_the_cache;
    call hide_the_edge;
    if (!req.http.Grip-Sig || req.method == "HEAD") {
        # A direct client has no use for them, and a HEAD that is held never gets a body.
        call hide_grip;
    } elseif (resp.http.Grip-Hold == "response") {
        call answer_or_hold;
    } elseif (resp.http.Grip-Hold) {
        # A stream needs its body: it can be neither a 304 nor a 206.
        unset req.http.If-None-Match;
        unset req.http.If-Modified-Since;
        unset req.http.Range;
    }
}

# A long-poll. Who has this copy is held: what is delivered is a 304, which the GRIP proxy keeps until there is news
# or the time is up. Who has another, or none, gets this one at once.
sub answer_or_hold {
    unset req.http.If-Modified-Since;
    unset req.http.Range;
    # Without its quotes it might be a part of another.
    if (resp.http.ETag ~ {"^(W/)?".+"$"} && std.strstr(req.http.If-None-Match, regsub(resp.http.ETag, "^W/", ""))) {
        set req.http.If-None-Match = resp.http.ETag;
    } elseif (resp.status != 304) {
        unset req.http.If-None-Match;
        call hide_grip;
    }
}

sub show_the_cache {
    if (req.http.X-Edge-Stale) {
        set resp.http.X-Cache = "STALE";
    } elseif (obj.hits > 0) {
        set resp.http.X-Cache = "HIT";
    } else {
        set resp.http.X-Cache = "MISS";
    }
    set resp.http.X-Cache-Hits = obj.hits;
}

sub hide_the_edge {
    unset resp.http.Surrogate-Key;
    unset resp.http.xkey;
    unset resp.http.Surrogate-Control;
    # Age counts against the edge's lifetime, which the client does not see; its own max-age begins now.
    unset resp.http.Age;
    if (resp.http.Cache-Control ~ "(?i)\b(s-maxage|stale-if-error)=") {
        set resp.http.Cache-Control = regsuball(
            resp.http.Cache-Control, "(?i)\s*\b(s-maxage|stale-if-error)=\d+\s*,?", "");
        set resp.http.Cache-Control = regsub(resp.http.Cache-Control, "^\s+|[\s,]+$", "");
    }
    if (resp.http.Cache-Control == "") {
        unset resp.http.Cache-Control;
    }
}

sub hide_grip {
    unset resp.http.Grip-Hold;
    unset resp.http.Grip-Channel;
    unset resp.http.Grip-Timeout;
    unset resp.http.Grip-Keep-Alive;
    unset resp.http.Grip-Link;
    unset resp.http.Grip-Status;
    unset resp.http.Grip-Set-Meta;
    unset resp.http.Grip-Expose-Headers;
}

# The app cannot say what a held client has missed, and there is no copy of its answer. Else the GRIP proxy would
# close the stream after half a minute; so it is told that nothing is new, and asks again soon.
sub hold_on {
    set resp.status = 200;
    set resp.http.Content-Type = "text/event-stream";
    set resp.http.Grip-Hold = "stream";
    set resp.http.Grip-Channel = regsuball(req.http.Grip-Last, "; *last-id=", "; prev-id=");
    set resp.http.Grip-Link = "<" + req.url + ">; rel=next; timeout=10";
    set resp.body = "";
    return (deliver);
}

# A stream that works without the app: for start scripts and health checks of Pushpin and this cache.
sub hold_probe {
    set resp.status = 200;
    set resp.http.Content-Type = "text/plain";
    set resp.http.Cache-Control = "no-store";
    if (req.http.Grip-Sig) {
        set resp.http.Grip-Hold = "stream";
        set resp.http.Grip-Channel = "grip-edge-probe";
    }
    set resp.body = {"held
"};
    return (deliver);
}

sub vcl_synth {
    if (resp.status == 298) {
        call hold_on;
    }
    if (resp.status == 299) {
        call hold_probe;
    }
    if (req.method == "PURGEKEYS") {
        if (req.http.X-Edge-Purged && resp.status == 200) {
            # (key, object) pairs. That the header is there tells the caller that this cache answered, not the app.
            set resp.http.Grip-Edge-Purged = req.http.X-Edge-Purged;
        }
        set resp.http.Content-Type = "text/plain";
        set resp.body = resp.reason + {"
"};
        return (deliver);
    }
    if (resp.status == 503) {
        call take_the_copy_after_failure;
    }
}
