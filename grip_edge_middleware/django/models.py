"""The table of the outbox."""

from __future__ import annotations

from django.db import models

from grip_edge_middleware.outbox import TABLE


class OutboxRow(models.Model):
    """What one transaction changes. See `grip_edge_middleware.outbox`."""

    id: models.CharField[str, str] = models.CharField(max_length=32, primary_key=True)
    edge: models.CharField[str, str] = models.CharField(max_length=64)
    due: models.BigIntegerField[int, int] = models.BigIntegerField(db_index=True)
    changes: models.TextField[str, str] = models.TextField()

    class Meta:
        """Which table it is."""

        db_table = TABLE
