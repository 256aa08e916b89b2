"""The applications: what to install, which of their tests to run, and how they are wrapped.

Each file is read here, and once more in the application's own environment, where `wrap` is called.
So it imports nothing of ours, and the application itself only in `wrap`.
"""
