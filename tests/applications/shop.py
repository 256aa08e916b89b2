"""A shop on FastAPI, SQLModel and an AsyncSession.

It behaves as their tutorials have it (models of tables and of what is sent, teams that have heroes,
links with fields of their own, offset and limit), with products for heroes: categories, stock,
carts and orders.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import Field, Relationship, SQLModel, col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.testclient import TestClient

from tests.applications.harness import Ask, Reply, Report, Site, site

# SQLModel types its attributes as their values.
with_list: Any = selectinload
with_one: Any = joinedload

SCOPES = ["category_id", "customer_id", "order_id", "product_id"]


class CategoryBase(SQLModel):
    name: str = Field(index=True)


class Category(CategoryBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    products: list["Product"] = Relationship(back_populates="category")


class ProductBase(SQLModel):
    name: str
    price: int
    stock: int = 0
    category_id: int | None = Field(default=None, foreign_key="category.id", index=True)


class Product(ProductBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    category: Category | None = Relationship(back_populates="products")


class ProductChange(SQLModel):
    name: str | None = None
    price: int | None = None
    stock: int | None = None
    category_id: int | None = None


class CustomerBase(SQLModel):
    name: str


class Customer(CustomerBase, table=True):
    id: int | None = Field(default=None, primary_key=True)
    orders: list["Order"] = Relationship(back_populates="customer", cascade_delete=True)
    cart: list["CartItem"] = Relationship(cascade_delete=True)


class CartItem(SQLModel, table=True):
    """A link with a field of its own, as SQLModel's tutorial has it."""

    customer_id: int | None = Field(default=None, foreign_key="customer.id", primary_key=True)
    product_id: int | None = Field(default=None, foreign_key="product.id", primary_key=True)
    quantity: int = 1
    product: Product = Relationship()


class Order(SQLModel, table=True):
    __tablename__ = "orders"
    id: int | None = Field(default=None, primary_key=True)
    customer_id: int = Field(foreign_key="customer.id", index=True)
    status: str = "open"
    customer: Customer = Relationship(back_populates="orders")
    lines: list["OrderLine"] = Relationship(back_populates="order", cascade_delete=True)


class OrderLine(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    order_id: int | None = Field(default=None, foreign_key="orders.id", index=True)
    product_id: int = Field(foreign_key="product.id")
    quantity: int
    price: int
    order: Order = Relationship(back_populates="lines")
    product: Product = Relationship()


class Shown(SQLModel):
    """What is sent of a product, with its category."""

    id: int
    name: str
    price: int
    stock: int
    category: CategoryBase | None


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(request.app.state.engine) as session:
        yield session


InSession = Annotated[AsyncSession, Depends(open_session)]
router = APIRouter()


def create_app(engine: AsyncEngine) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(SQLModel.metadata.create_all)
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.state.engine = engine
    app.include_router(router)
    return app


async def _found(session: AsyncSession, kind: Any, key: Any, *options: Any) -> Any:
    found = await session.get(kind, key, options=options)
    if found is None:
        raise HTTPException(404, f"{kind.__name__} not found")
    return found


@router.get("/products/", response_model=list[Shown])
async def products(
    session: InSession, offset: int = 0, limit: Annotated[int, Query(le=100)] = 4
) -> Any:
    query = select(Product).options(with_one(Product.category))
    return (await session.exec(query.order_by(col(Product.id)).offset(offset).limit(limit))).all()


@router.get("/products/{product_id}", response_model=Shown)
async def product(session: InSession, product_id: int) -> Any:
    return await _found(session, Product, product_id, with_one(Product.category))


@router.get("/cheaper-than/{price}", response_model=list[Shown])
async def cheap(session: InSession, price: int) -> Any:
    query = select(Product).where(Product.price < price).order_by(col(Product.id))
    return (await session.exec(query.options(with_list(Product.category)))).all()


@router.get("/categories/")
async def categories(session: InSession) -> Any:
    query = select(Category.id, Category.name, func.count(col(Product.id)))
    query = query.outerjoin(Product).group_by(col(Category.id)).order_by(Category.name)
    return [tuple(row) for row in (await session.exec(query)).all()]


@router.get("/categories/{category_id}")
async def category(session: InSession, category_id: int) -> Any:
    found = await _found(session, Category, category_id, with_list(Category.products))
    return {"name": found.name, "products": [p.model_dump() for p in found.products]}


@router.get("/stock/empty")
async def sold_out(session: InSession) -> Any:
    said = text("SELECT p.name FROM product AS p WHERE p.stock = 0 ORDER BY p.id")
    return list((await session.exec(said)).scalars())  # type: ignore[call-overload]


@router.get("/orders/")
async def orders(session: InSession, offset: int = 0) -> Any:
    query = select(Order, Customer.name).join(Customer).order_by(col(Order.id).desc())
    found = (await session.exec(query.offset(offset).limit(3))).all()
    return [{"id": order.id, "status": order.status, "of": name} for order, name in found]


@router.get("/orders/{order_id}")
async def order(session: InSession, order_id: int) -> Any:
    lines = with_list(Order.lines).joinedload(OrderLine.product)
    found = await _found(session, Order, order_id, lines, with_one(Order.customer))
    shown = [(line.product.name, line.quantity, line.price) for line in found.lines]
    return {"status": found.status, "of": found.customer.name, "lines": shown}


@router.get("/customers/{customer_id}")
async def customer(session: InSession, customer_id: int) -> Any:
    found = await _found(session, Customer, customer_id, with_list(Customer.orders))
    return {"name": found.name, "orders": [order.model_dump() for order in found.orders]}


@router.get("/customers/{customer_id}/cart")
async def cart(session: InSession, customer_id: int) -> Any:
    query = select(CartItem).where(CartItem.customer_id == customer_id)
    query = query.options(with_one(CartItem.product)).order_by(col(CartItem.product_id))
    items = (await session.exec(query)).all()
    return [(item.product.name, item.quantity, item.product.price) for item in items]


@router.get("/sales")
async def sales(session: InSession) -> Any:
    query = select(Product.name, func.sum(OrderLine.quantity)).join(OrderLine)
    query = query.join(Order).where(Order.status != "cancelled")
    best = await session.exec(query.group_by(col(Product.id)).order_by(Product.name))
    count = (await session.exec(select(func.count()).select_from(Order))).one()
    return {"orders": count, "sold": [tuple(row) for row in best.all()]}


@router.post("/categories/")
async def add_category(session: InSession, category: CategoryBase) -> Any:
    session.add(Category.model_validate(category))
    await session.commit()


@router.patch("/categories/{category_id}")
async def rename_category(session: InSession, category_id: int, new: CategoryBase) -> Any:
    category = await _found(session, Category, category_id)
    category.sqlmodel_update(new.model_dump())
    await session.commit()


@router.post("/categories/{category_id}/prices")
async def raise_prices(session: InSession, category_id: int, by: int) -> Any:
    raised = update(Product).where(col(Product.category_id) == category_id)
    await session.exec(raised.values(price=Product.price + by))
    await session.commit()


@router.post("/products/")
async def add_product(session: InSession, product: ProductBase) -> Any:
    session.add(Product.model_validate(product))
    await session.commit()


@router.patch("/products/{product_id}")
async def change_product(session: InSession, product_id: int, new: ProductChange) -> Any:
    product = await _found(session, Product, product_id)
    product.sqlmodel_update(new.model_dump(exclude_unset=True))
    session.add(product)
    await session.commit()


@router.delete("/products/{product_id}")
async def remove_product(session: InSession, product_id: int) -> Any:
    await session.delete(await _found(session, Product, product_id))
    await session.commit()


@router.post("/customers/")
async def add_customer(session: InSession, customer: CustomerBase) -> Any:
    session.add(Customer.model_validate(customer))
    await session.commit()


@router.delete("/customers/{customer_id}")
async def remove_customer(session: InSession, customer_id: int) -> Any:
    options = (with_list(Customer.cart), with_list(Customer.orders))
    lines = options[1].selectinload(Order.lines)
    await session.delete(await _found(session, Customer, customer_id, *options, lines))
    await session.commit()


@router.put("/customers/{customer_id}/cart/{product_id}")
async def put_in_cart(session: InSession, customer_id: int, product_id: int, quantity: int) -> Any:
    item = CartItem(customer_id=customer_id, product_id=product_id, quantity=quantity)
    await session.merge(item)
    await session.commit()


@router.post("/customers/{customer_id}/checkout")
async def check_out(session: InSession, customer_id: int) -> Any:
    cart = with_list(Customer.cart).joinedload(CartItem.product)
    customer = await _found(session, Customer, customer_id, cart)
    order = Order(customer_id=customer_id)
    for item in customer.cart:
        product = item.product
        if product.stock < item.quantity:
            raise HTTPException(409, f"{product.name} is sold out")
        product.stock -= item.quantity
        line = OrderLine(product_id=product.id, quantity=item.quantity, price=product.price)
        order.lines.append(line)
        await session.delete(item)
    session.add(order)
    await session.commit()


@router.post("/orders/{order_id}/cancel")
async def cancel(session: InSession, order_id: int) -> Any:
    lines = with_list(Order.lines).joinedload(OrderLine.product)
    order = await _found(session, Order, order_id, lines)
    order.status = "cancelled"
    for line in order.lines:
        line.product.stock += line.quantity
    await session.commit()


PAGES = [
    *("/products/", "/products/?offset=4", "/products/?offset=8", "/products/?limit=2"),
    *(f"/products/{n}" for n in range(1, 9)),
    *("/cheaper-than/5", "/cheaper-than/30", "/categories/", "/stock/empty", "/sales", "/orders/"),
    *(f"/categories/{n}" for n in range(1, 5)),
    *("/orders/?offset=3", *(f"/orders/{n}" for n in range(1, 6))),
    *(f"/customers/{n}" for n in range(1, 5)),
    *(f"/customers/{n}/cart" for n in range(1, 5)),
]


def run(auto_tags: object, directory: Path) -> Report:
    engine = create_async_engine(f"sqlite+aiosqlite:///{directory / 'shop.sqlite3'}")
    with site(auto_tags=auto_tags) as shop:

        @event.listens_for(engine.sync_engine, "before_cursor_execute")
        def note(connection: Any, cursor: Any, statement: str, *_: object) -> None:
            shop.note_statement(statement)

        with TestClient(shop.edge.asgi(create_app(engine))) as client:
            shop.ask, shop.pages = _stranger(client), PAGES
            _fill(client)
            _write(shop, client)
            return shop.report()


def _stranger(client: TestClient) -> Ask:
    def ask(url: str) -> Reply:
        response = client.get(url, follow_redirects=False)
        return Reply(response.status_code, dict(response.headers), response.content)

    return ask


def _fill(client: TestClient) -> None:
    for name in ("Tea", "Cups"):
        _send(client, "POST", "/categories/", {"name": name})
    for name, price, stock, category in (
        ("Green", 4, 10, 1),
        ("Black", 3, 10, 1),
        ("Mug", 9, 1, 2),
        ("Bowl", 12, 5, 2),
        ("Pot", 40, 2, None),
        ("White", 6, 0, 1),
    ):
        product: dict[str, Any] = {
            "name": name,
            "price": price,
            "stock": stock,
            "category_id": category,
        }
        _send(client, "POST", "/products/", product)
    for name in ("Ann", "Bob", "Cyd"):
        _send(client, "POST", "/customers/", {"name": name})
    for customer, chosen in ((1, 1), (2, 2), (2, 4)):
        _send(client, "PUT", f"/customers/{customer}/cart/{chosen}?quantity=1")
    for customer in (1, 2):
        _send(client, "POST", f"/customers/{customer}/checkout")


def _send(client: TestClient, method: str, url: str, sent: Any = None) -> None:
    response = client.request(method, url, json=sent)
    assert response.status_code == 200, (url, response.text)


def _write(shop: Site, client: TestClient) -> None:
    with shop.write("put a product into a cart"):
        _send(client, "PUT", "/customers/1/cart/3?quantity=1")
    with shop.write("change its quantity"):
        _send(client, "PUT", "/customers/1/cart/3?quantity=2")
    with shop.write("a checkout that is refused"):
        assert client.post("/customers/1/checkout").status_code == 409
    with shop.write("another product"):
        _send(client, "PUT", "/customers/1/cart/3?quantity=1")
        _send(client, "PUT", "/customers/1/cart/2?quantity=2")
    with shop.write("a checkout"):
        _send(client, "POST", "/customers/1/checkout")
    with shop.write("cancel an order"):
        _send(client, "POST", "/orders/3/cancel")
    with shop.write("restock"):
        _send(client, "PATCH", "/products/6", {"stock": 5})
    with shop.write("save a product as it is"):
        _send(client, "PATCH", "/products/6", {"stock": 5})
    with shop.write("change a price"):
        _send(client, "PATCH", "/products/1", {"price": 5})
    with shop.write("move a product to another category"):
        _send(client, "PATCH", "/products/4", {"category_id": 1})
    with shop.write("take a product out of its category"):
        _send(client, "PATCH", "/products/3", {"category_id": None})
    with shop.write("rename a category"):
        _send(client, "PATCH", "/categories/1", {"name": "Fine tea"})
    with shop.write("a product that was not found before"):
        _send(client, "POST", "/products/", {"name": "Spoon", "price": 2, "category_id": 2})
    with shop.write("an empty category"):
        _send(client, "POST", "/categories/", {"name": "Gifts"})
    with shop.write("raise all prices of a category (UPDATE)"):
        _send(client, "POST", "/categories/1/prices?by=1")
    with shop.write("remove a product"):
        _send(client, "DELETE", "/products/7")
    with shop.write("a customer"):
        _send(client, "POST", "/customers/", {"name": "Dee"})
    with shop.write("remove a customer with orders"):
        _send(client, "DELETE", "/customers/2")
