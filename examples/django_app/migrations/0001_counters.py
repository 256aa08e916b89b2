from typing import Any

from django.db import migrations, models


def make_counters(apps: Any, schema_editor: Any) -> None:
    counters = apps.get_model("django_app", "Counter").objects
    counters.bulk_create([counters.model(name=str(number)) for number in range(1, 10)])


class Migration(migrations.Migration):
    initial = True
    operations = [  # noqa: RUF012 - as Django has it
        migrations.CreateModel(
            name="Counter",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=64, unique=True)),
                ("value", models.IntegerField(default=0)),
            ],
        ),
        migrations.RunPython(make_counters, migrations.RunPython.noop),
    ]
