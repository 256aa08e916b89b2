"""The users' projects are run from an installed wheel, by `test_projects.py`."""

collect_ignore_glob = ["project_*"]
