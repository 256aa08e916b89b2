"""Whole applications behind the edge and a cache, written as their public tutorials are."""
