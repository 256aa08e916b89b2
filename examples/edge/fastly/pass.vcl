# Type pass. The app checks the token itself.
if (req.http.X-Edge-Sig) {
    set bereq.http.Grip-Sig = req.http.X-Edge-Sig;
}
unset bereq.http.X-Edge-Sig;
