from django.db import models


class Counter(models.Model):
    name = models.CharField(max_length=64, unique=True)  # type: ignore[var-annotated]
    value = models.IntegerField(default=0)  # type: ignore[var-annotated]
