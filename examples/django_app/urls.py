from django.urls import path

from examples.django_app import views

urlpatterns = [
    path("", views.index, name="index"),
    path("counters/<name>/", views.counter, name="counter"),
]
