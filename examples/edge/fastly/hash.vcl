# Type hash. A next link answers each Grip-Last differently.
if (req.url ~ "/\.grip-edge/next/") {
    set req.hash += req.http.Grip-Last;
}
