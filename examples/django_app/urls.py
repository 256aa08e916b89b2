from django.urls import path

from examples.django_app import views

urlpatterns = [
    path("counters/<name>/", views.counter, name="counter"),
    path("pages/<name>/", views.page, name="page"),
]
