"""The shop django-oscar, as it is published: catalogue, reviews, baskets, checkout, dashboard.

What it writes when a product is looked at stays: it counts views.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from oscar import INSTALLED_APPS
from oscar import defaults as oscar_defaults

from tests.applications import django_site
from tests.applications.browser import Browser
from tests.applications.harness import Report, Site, site, stranger

SCOPES = ["product_id", "category_id", "user_id", "owner_id"]


class PlainThumbnails:
    """Shows images as they are: the package that would make them smaller is not there."""

    def generate_thumbnail(self, source: Any, **options: Any) -> Any:
        return source

    def delete_thumbnails(self, source: Any) -> None:
        """There are none."""


def run(auto_tags: object, directory: Path) -> Report:
    with site(auto_tags=auto_tags) as shop:
        defaults = {n: getattr(oscar_defaults, n) for n in dir(oscar_defaults) if n.isupper()}
        app = django_site.set_up(
            directory,
            **{
                **defaults,
                "INSTALLED_APPS": INSTALLED_APPS,
                "ROOT_URLCONF": _urls(),
                "MIDDLEWARE": [
                    *django_site.MIDDLEWARE,
                    "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware",
                    "oscar.apps.basket.middleware.BasketMiddleware",
                ],
                "TEMPLATES": django_site.templates(
                    "oscar.apps.search.context_processors.search_form",
                    "oscar.apps.checkout.context_processors.checkout",
                    "oscar.apps.communication.notifications.context_processors.notifications",
                    "oscar.core.context_processors.metadata",
                ),
                "HAYSTACK_CONNECTIONS": {
                    "default": {"ENGINE": "tests.applications.database_search.Engine"}
                },
                "AUTHENTICATION_BACKENDS": ["oscar.apps.customer.auth_backends.EmailBackend"],
                "OSCAR_THUMBNAILER": f"{__name__}.PlainThumbnails",
                "OSCAR_INITIAL_ORDER_STATUS": "Pending",
                "OSCAR_ORDER_STATUS_PIPELINE": {"Pending": ("Cancelled",), "Cancelled": ()},
            },
        )
        # When the page was made, which each says of itself.
        django_site.listen(shop, rb'(?<=<meta name="created" content=")[^"]+')
        _forget_who_looked()
        _fill()
        face: Any = shop.edge.wsgi(app)
        shop.ask = stranger(face)
        shop.pages = PAGES
        _write(shop, face)
        return shop.report()


def _urls() -> str:
    urls = ModuleType("oscar_urls")
    sys.modules[urls.__name__] = urls

    def patterns(name: str) -> Any:
        from django.apps import apps
        from django.urls import include, path

        if name != "urlpatterns":
            raise AttributeError(name)
        config: Any = apps.get_app_config("oscar")
        i18n = path("i18n/", include("django.conf.urls.i18n"))
        return [i18n, path("", include(config.urls[0]))]

    urls.__getattr__ = patterns  # type: ignore[method-assign]
    return urls.__name__


def _forget_who_looked() -> None:
    """Set no cookie with each product: such a page is one visitor's, and in no cache."""
    from oscar.apps.catalogue.signals import product_viewed
    from oscar.apps.customer.receivers import receive_product_view

    assert product_viewed.disconnect(receive_product_view)


def _fill() -> None:
    from django.contrib.auth.models import User
    from django.contrib.flatpages.models import FlatPage
    from django.contrib.sites.models import Site as Home
    from oscar.apps.address.models import Country
    from oscar.apps.catalogue.categories import create_from_breadcrumbs
    from oscar.test.factories import create_product

    home, _ = Home.objects.get_or_create(pk=1, defaults={"domain": "localhost", "name": "Shop"})
    User.objects.create_superuser("admin", "admin@example.com", "secret")
    User.objects.create_user("ann", "ann@example.com", "secret")
    Country.objects.create(
        iso_3166_1_a2="GB", printable_name="UK", name="UK", is_shipping_country=True
    )
    FlatPage.objects.create(url="/terms/", title="Terms", content="None").sites.add(home)
    categories = [create_from_breadcrumbs(f"Books > {name}") for name in ("Poems", "Prose")]
    categories.append(create_from_breadcrumbs("Tea"))
    for title, at in (("Odes", 0), ("Sonnets", 0), ("Novel", 1), ("Green", 2)):
        product = create_product(
            title=title, product_class="Thing", price=10, num_in_stock=5, partner_name="Us"
        )
        product.categories.add(categories[at])


PAGES = [
    *("/", "/catalogue/", "/search/?q=mug", "/offers/", "/terms/", "/about-us/", "/basket/"),
    *(f"/catalogue/{product}/" for product in ("odes_1", "sonnets_2", "novel_3", "mug_5")),
    *("/catalogue/odes_1/reviews/", "/catalogue/odes_1/reviews/1/", "/catalogue/novel_3/reviews/"),
    *(f"/catalogue/category/{category}/" for category in ("books_1", "books/poems_2", "tea_4")),
    "/catalogue/category/cups_5/",
]


def _write(shop: Site, face: Any) -> None:
    admin, ann = Browser(face), Browser(face)
    for browser, name in ((admin, "admin"), (ann, "ann")):
        who = {"login-username": f"{name}@example.com", "login-password": "secret"}
        browser.submit("/accounts/login/", "#login_form", login_submit="", **who)
    _review(shop, admin, ann)
    _buy(shop, ann)
    _keep_products(shop, admin)
    _keep_categories(shop, admin)
    _keep_pages(shop, admin)


def _review(shop: Site, admin: Browser, ann: Browser) -> None:
    with shop.write("review a product"):
        said = {"title": "Lovely", "score": "5", "body": "By heart."}
        ann.submit("/catalogue/odes_1/reviews/add/", "#add_review_form", **said)
    with shop.write("find a review useful"):
        reviews = "/catalogue/odes_1/reviews/"
        admin.submit(reviews, "form[action*='/vote/']", delta="1")
    with shop.write("edit a review"):
        admin.submit("/dashboard/reviews/1/", "form:not(#logout_form)", body="By rote.")


def _buy(shop: Site, ann: Browser) -> None:
    with shop.write("put a product into the basket"):
        ann.submit("/catalogue/novel_3/", "#add_to_basket_form", quantity="5")
    with shop.write("say where to send it"):
        where = {"first_name": "Ann", "last_name": "Lee", "line1": "1 Street", "line4": "Town"}
        ann.submit(
            "/checkout/shipping-address/", "#new_shipping_address", postcode="N1 9GU", **where
        )
        ann.get("/checkout/shipping-method/")
    with shop.write("place an order"):
        ann.submit("/checkout/preview/", "#place_order_form")


def _keep_products(shop: Site, admin: Browser) -> None:
    def change(pk: int, **fields: object) -> None:
        page = f"/dashboard/catalogue/products/{pk}/"
        admin.submit(page, "#create_update_product_form", action="save", **fields)

    with shop.write("save a product as it is"):
        change(1)
    with shop.write("edit the description of a product"):
        change(1, description="Ten of them")
    with shop.write("change a price"):
        change(4, **{"stockrecords-0-price": "12.00"})
    with shop.write("restock"):
        change(3, **{"stockrecords-0-num_in_stock": "9"})
    with shop.write("add a category to a product"):
        change(4, **{"productcategory_set-1-category": "3"})
    with shop.write("take a product out of the catalogue"):
        change(2, is_public=None)
    with shop.write("recommend a product"):
        change(1, **{"primary_recommendations-0-recommendation": "4"})
    with shop.write("a product that was not found before"):
        admin.submit(
            "/dashboard/catalogue/products/create/thing/",
            "#create_update_product_form",
            action="save",
            title="Mug",
            **{
                "productcategory_set-0-category": "4",
                "stockrecords-0-partner": "1",
                "stockrecords-0-partner_sku": "mug",
                "stockrecords-0-num_in_stock": "3",
                "stockrecords-0-price": "7.00",
            },
        )
    with shop.write("delete a product"):
        admin.submit("/dashboard/catalogue/products/4/delete/", "#delete_product_form")


def _keep_categories(shop: Site, admin: Browser) -> None:
    form, categories = "#create_update_category_form", "/dashboard/catalogue/categories"
    with shop.write("a category"):
        at = {"_position": "right", "_ref_node_id": "4"}
        admin.submit(f"{categories}/create/", form, name="Cups", slug="cups", **at)
    with shop.write("rename a category"):
        admin.submit(f"{categories}/2/update/", form, name="Poetry")
    with shop.write("move a category into another"):
        at = {"_position": "first-child", "_ref_node_id": "4"}
        admin.submit(f"{categories}/5/update/", form, **at)
    with shop.write("hide a category"):
        admin.submit(f"{categories}/3/update/", form, is_public=None)


def _keep_pages(shop: Site, admin: Browser) -> None:
    with shop.write("edit a page"):
        form = "#create_update_page_form"
        admin.submit("/dashboard/pages/update/1/", form, content="Some")
    with shop.write("a page that was not found before"):
        form = "form:not(#logout_form)"
        about = {"url": "/about-us/", "title": "About us", "content": "A shop"}
        admin.submit("/dashboard/pages/create/", form, **about)
