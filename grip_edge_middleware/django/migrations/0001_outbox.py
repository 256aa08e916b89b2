"""Create the table of the outbox."""

from __future__ import annotations

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    """See `grip_edge_middleware.django.models`."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar[list[migrations.operations.base.Operation]] = [
        migrations.CreateModel(
            name="OutboxRow",
            fields=[
                ("id", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("edge", models.CharField(max_length=64)),
                ("due", models.BigIntegerField(db_index=True)),
                ("changes", models.TextField()),
            ],
            options={"db_table": "grip_edge_outbox"},
        ),
    ]
