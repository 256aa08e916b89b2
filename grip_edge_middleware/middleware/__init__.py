"""How a response leaves: the faces carry the policy's answer to each kind of app.

A face passes through what is not ours first, keeps nothing about a request on itself, and never
touches a body.
"""
